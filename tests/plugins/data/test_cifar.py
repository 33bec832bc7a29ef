"""CIFAR: read from the published layout, and not opened before every MD5 is the published one."""

import hashlib
import os
import pickle
import re

import numpy as np
import pytest
import torch
import torchvision
from helpers.command import lwmfw

from lwmfw import UserError
from lwmfw_plugins.data.cifar import Cifar10, Cifar100, CifarOptions

SETS = {"cifar10": Cifar10, "cifar100": Cifar100}


def made_batch(count, classes, label_key, seed):
    """A batch as its authors wrote them: rows of 1024 red, green and blue values each, and a list of labels."""
    rows = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": rows, label_key: [n % classes for n in range(count)]}


@pytest.fixture(params=SETS)
def published(request, tmp_path, monkeypatch):
    """A made set in the published layout whose MD5s are torchvision's, its component, and its batches by file name."""
    component = SETS[request.param]
    known = getattr(torchvision.datasets, component.torchvision_name)
    classes, label_key = component.class_count, "labels" if request.param == "cifar10" else "fine_labels"
    names = [name for name, _ in (*known.train_list, *known.test_list)]
    batches = {name: made_batch(2 * classes, classes, label_key, seed) for seed, name in enumerate(names)}
    contents = batches | {known.meta["filename"]: {known.meta["key"]: [f"class {n}" for n in range(classes)]}}
    folder = tmp_path / known.base_folder
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    md5 = {name: hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest() for name in contents}
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(known, part, [[name, md5[name]] for name, _ in getattr(known, part)])
    monkeypatch.setattr(known, "meta", known.meta | {"md5": md5[known.meta["filename"]]})
    return component, folder, batches, label_key


def load(component, root, **options):
    return component(CifarOptions(root=str(root), **options)).load()


def test_images_labels_and_names_are_those_of_the_files(published):
    component, folder, batches, label_key = published
    data = load(component, folder.parent)
    *train, test = batches.values()
    for images, parts in ((data.train, train), (data.test, [test])):
        pixels = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
        assert torch.equal(images.pixels, torch.from_numpy(pixels))
        assert images.labels.tolist() == [label for part in parts for label in part[label_key]]
        assert images.pixels.is_contiguous()
    assert data.class_names == [f"class {n}" for n in range(component.class_count)]
    assert (data.padding, data.flip, data.brightness) == (4, True, 0.0)
    changed = load(component, folder.parent, brightness=63 / 255, std=[0.2009, 0.1984, 0.2023])
    assert (changed.brightness, changed.std) == (63 / 255, [0.2009, 0.1984, 0.2023])
    assert changed.mean == data.mean
    assert data.std == component.std


def test_a_truncated_file_is_refused_with_its_md5_before_it_is_opened(published):
    component, folder, batches, _ = published
    for name in [*batches, "meta" if component is Cifar100 else "batches.meta"]:
        file = folder / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-5])
        md5 = hashlib.md5(whole[:-5], usedforsecurity=False).hexdigest()
        with pytest.raises(UserError, match=f"^{re.escape(str(file))}: md5 is {md5}, not [0-9a-f]{{32}}: damaged"):
            load(component, folder.parent)
        file.write_bytes(whole)
    load(component, folder.parent)


class Trap:
    def __init__(self, touched):
        self.touched = touched

    def __reduce__(self):
        return os.mkdir, (self.touched,)


def test_a_pickle_that_runs_code_is_not_opened(published, tmp_path):
    component, folder, batches, _ = published
    (folder / next(iter(batches))).write_bytes(pickle.dumps(Trap(str(tmp_path / "touched"))))
    with pytest.raises(UserError, match="damaged or another file"):
        load(component, folder.parent)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("component", SETS.values(), ids=SETS)
def test_a_missing_set_is_refused_with_the_path_and_what_gets_it(component, tmp_path):
    with pytest.raises(UserError, match=r"looked for .*(data_batch_1|train); unpack cifar-100?-python\.tar\.gz"):
        load(component, tmp_path)
    with pytest.raises(UserError, match=r"not shipped; set data\.root \(--set data\.root=DIR\) to"):
        load(component, "")
    assert list(tmp_path.iterdir()) == []


def test_a_download_happens_only_if_the_recipe_says_so(published, monkeypatch, tmp_path):
    component, folder, _, _ = published
    calls = []
    known = getattr(torchvision.datasets, component.torchvision_name)
    monkeypatch.setattr(known, "download", lambda self: calls.append(self.root))
    load(component, folder.parent, download=True)  # it is there already
    with pytest.raises(UserError, match="not found"):
        load(component, tmp_path / "elsewhere")
    assert calls == []
    with pytest.raises(UserError, match="failed: Dataset not found or corrupted"):
        load(component, tmp_path / "elsewhere", download=True)
    assert calls == [str(tmp_path / "elsewhere")]


def test_a_truncated_file_exits_2_in_one_line(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    (folder / "train").write_bytes(b"short")
    settings = ["--set", 'data.use="cifar100"', "--set", f'data.root="{tmp_path}"', "--out", str(tmp_path / "run")]
    done = lwmfw("run", "lwm", *settings)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        f"lwmfw 0.1.0: cifar100: {folder / 'train'}: md5 is 4f09daa9d95bcb166a302407a0e0babe, "
        "not 16019d7e3df5f24257cddd939b257f8d: damaged or another file; fetch it again"
    )
    assert not (tmp_path / "run").exists()
