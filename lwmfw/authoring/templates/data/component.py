"""Small images in one .npz, as MedMNIST has them; without a file, drawn ones to try a recipe with."""

from pathlib import Path
import numpy as np
import torch
from lwmfw import Data, DataSet, Field, File, Images, Options, UserError, hookimpl


class MedmnistOptions(Options):
    file: File = Field("", description="the .npz, such as pathmnist.npz; empty: drawn images")


class Medmnist:
    """One of the sets of MedMNIST."""

    def __init__(self, options: MedmnistOptions):
        self.file = options.file

    def load(self):
        if self.file and not Path(self.file).is_file():
            raise UserError(f"data.file: '{self.file}' is no file; name a downloaded .npz")
        arrays = np.load(self.file, allow_pickle=False) if self.file else drawn()
        train, test = (images(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test"))
        names = [f"class {label}" for label in range(int(train.labels.max()) + 1)]
        return DataSet(train, test, names, [0.5] * train.channels, [0.25] * train.channels, padding=2)


def images(pixels, labels):
    pixels = torch.from_numpy(pixels)
    pixels = pixels.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)  # grey ones have no axis of channels
    return Images(pixels.contiguous(), torch.from_numpy(labels).flatten().long())


def drawn():
    labels = np.arange(80, dtype=np.uint8) % 4
    pixels = np.random.default_rng(0).integers(0, 64, (80, 8, 8, 3), np.uint8) + 40 * labels[:, None, None, None]
    test = {"test_images": pixels[:16], "test_labels": labels[:16]}
    return test | {"train_images": pixels[16:], "train_labels": labels[16:]}


@hookimpl
def register_components():
    yield Data("medmnist", Medmnist, MedmnistOptions)
