import numpy as np
import pytest
from lwmfw import UserError
from lwmfw.testing import check
from lwmfw_medmnist import Medmnist, MedmnistOptions, register_components

(RECORD,) = register_components()


def test_keeps_the_contract():
    check(RECORD)


def test_reads_grey_and_coloured_images(tmp_path):
    file = tmp_path / "images.npz"
    for shape, channels in (((6, 8, 8), 1), ((6, 8, 8, 3), 3)):
        pixels = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
        labels = np.array([[0], [1], [0], [1], [2], [2]], np.uint8)
        np.savez(file, train_images=pixels, train_labels=labels, test_images=pixels, test_labels=labels)
        data = Medmnist(MedmnistOptions(file=str(file))).load()
        assert data.train.labels.tolist() == [0, 1, 0, 1, 2, 2]
        assert data.train.channels == channels
        assert data.test.pixels[5, -1, 7, 7] == pixels[5, 7, 7].flat[-1]


def test_says_what_to_do_without_its_file(tmp_path):
    with pytest.raises(UserError, match=r"is no file; name a downloaded \.npz"):
        Medmnist(MedmnistOptions(file=str(tmp_path / "none.npz"))).load()
