"""Data sets made of image files: each is read in its published layout, and what is missing is said."""

import re
import shutil

import numpy as np
import pytest
import torch
from helpers.pictures import (
    make_caltech101,
    make_cub200,
    make_folder,
    make_imagenet,
    make_tiny_imagenet,
    noise,
    one_jpeg,
    put,
    save,
    wnids,
    write_lines,
)

from lwmfw import ImageFiles, Images, UserError
from lwmfw.recipe.catalogue import discover

CATALOGUE = discover()


def load(use, root, **options):
    component = CATALOGUE.find("data", use)
    return component.factory(component.options(root=str(root), **options)).load()


def names(part, label=None):
    """File names of a part, of one class if asked for."""
    return [
        path.rsplit("/", 1)[1] for path, y in zip(part.paths, part.labels.tolist(), strict=True) if label in (None, y)
    ]


def refusal(use, root, **options):
    with pytest.raises(UserError) as refused:
        load(use, root, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# folder: classes and their split


def test_a_folder_of_class_folders_is_split(tmp_path):
    make_folder(tmp_path, ["dog", "ant", "cat"], count=10)
    data = load("folder", tmp_path)
    assert data.class_names == ["ant", "cat", "dog"]
    assert data.train.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert data.test.labels.tolist() == [0] * 2 + [1] * 2 + [2] * 2
    for label in range(3):
        assert sorted(names(data.train, label) + names(data.test, label)) == [f"{n}.png" for n in range(10)]
    assert all(f"/{data.class_names[y]}/" in path for path, y in zip(data.train.paths, data.train.labels, strict=True))


def test_the_split_is_a_function_of_seed_and_names_wherever_the_folder_lies(tmp_path):
    make_folder(tmp_path / "one", ["ant", "cat"], count=10)
    shutil.copytree(tmp_path / "one", tmp_path / "two" / "deeper")
    first = load("folder", tmp_path / "one")
    assert names(load("folder", tmp_path / "two" / "deeper").test) == names(first.test)
    others = [names(load("folder", tmp_path / "one", split_seed=seed).test) for seed in range(1, 6)]
    assert any(other != names(first.test) for other in others)
    assert len(load("folder", tmp_path / "one", test_share=0.5).test) == 10


def test_another_class_changes_no_split(tmp_path):
    make_folder(tmp_path, ["ant", "cat"], count=10)
    before = names(load("folder", tmp_path).test, 1)
    make_folder(tmp_path, ["bee"], count=10)
    assert names(load("folder", tmp_path).test, 2) == before


def test_train_and_test_folders_are_used_as_they_are(tmp_path):
    make_folder(tmp_path / "train", ["b", "a"], count=3)
    make_folder(tmp_path / "test", ["a", "b"], count=2)
    data = load("folder", tmp_path)
    assert data.class_names == ["a", "b"]
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
    assert all("/train/" in path for path in data.train.paths)


@pytest.mark.parametrize(("part", "other"), [("train", "test"), ("test", "train")])
def test_train_and_test_have_the_same_classes(tmp_path, part, other):
    make_folder(tmp_path / part, ["a", "b", "c"], count=2)
    make_folder(tmp_path / other, ["a", "b"], count=2)
    assert refusal("folder", tmp_path) == f"class 'c' is in {part} but not in {other}; add its images there"


def test_images_are_found_in_folders_inside_and_nothing_else_is(tmp_path):
    make_folder(tmp_path, ["a"], count=2)
    image = tmp_path / "a" / "0.png"
    for name in ("a/more/deep/2.PNG", "a/.hidden.png", "a/.hidden/3.png", ".git/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / name)
    write_lines(tmp_path / "a" / "notes.txt", ["no image"])
    write_lines(tmp_path / "readme.txt", ["no class"])
    data = load("folder", tmp_path)
    assert data.class_names == ["a"]
    assert sorted(names(data.train) + names(data.test)) == ["0.png", "1.png", "2.PNG"]


def test_links_are_followed_to_files_and_classes_and_never_round(tmp_path):
    make_folder(tmp_path / "elsewhere", ["a"], count=3)
    root = tmp_path / "root"
    make_folder(root, ["b"], count=2)
    (root / "a").symlink_to(tmp_path / "elsewhere" / "a")
    (root / "b" / "round").symlink_to(root)
    (root / "b" / "2.png").symlink_to(tmp_path / "elsewhere" / "a" / "0.png")
    data = load("folder", root)
    assert data.class_names == ["a", "b"]
    assert len(data.train) + len(data.test) == 6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "cannot be read (No such file or directory); set data.root"),
        (lambda root: root.mkdir(), "has no folders; put the images of each class into a folder of its name"),
        (lambda root: make_folder(root / ".hidden"), "has no folders"),
        (lambda root: (root / "a").mkdir(parents=True), "a has no images (.bmp, .gif,"),
        (lambda root: make_folder(root / "train"), "has train but not both train and test; rename"),
        (lambda root: [make_folder(root / part) for part in ("train", "val")], "has train, val but not both"),
        (lambda root: [(root / part).mkdir(parents=True) for part in ("train", "test")], "train has no folders"),
    ],
    ids=["missing", "empty", "hidden", "a class is empty", "train alone", "val for test", "train and test are empty"],
)
def test_a_folder_without_classes_is_refused(tmp_path, make, words):
    make(tmp_path / "mine")
    message = refusal("folder", tmp_path / "mine")
    assert str(tmp_path / "mine") in message
    assert words in message


# folder: images that cannot be read


def spoil(root, *files):
    for name in files:
        put(root / name, b"no image")
    return [str(root / name) for name in files]


def test_unreadable_images_are_refused_with_their_names(tmp_path):
    make_folder(tmp_path, ["a", "b"], count=5)
    bad = spoil(tmp_path, "a/1.png", "b/9.jpg")
    message = refusal("folder", tmp_path)
    assert message.startswith("2 of 11 images cannot be read: ")
    assert all(f"{path} (no image of a known format)" in message for path in bad)
    assert 'data.unreadable = "skip"' in message


def test_of_many_unreadable_images_five_are_named(tmp_path):
    make_folder(tmp_path, ["a"], count=2)
    bad = spoil(tmp_path, *(f"a/bad{n}.png" for n in range(8)))
    message = refusal("folder", tmp_path)
    assert [path in message for path in bad] == [True] * 5 + [False] * 3
    assert "8 of 10" in message
    assert "and 3 more" in message


@pytest.mark.parametrize("decode", ["once", "each epoch"])
def test_unreadable_images_are_skipped_and_listed_if_the_recipe_asks(tmp_path, decode):
    make_folder(tmp_path, ["a", "b"], count=5)
    bad = spoil(tmp_path, "a/1.png", "b/9.jpg")
    data = load("folder", tmp_path, unreadable="skip", decode=decode, size=16)
    assert data.skipped == bad
    assert len(data.train) + len(data.test) == 9


# in memory or not


def test_decoded_once_a_set_is_in_memory_and_shifted(tmp_path):
    make_folder(tmp_path, ["a", "b"], count=5)
    data = load("folder", tmp_path, decode="once", size=32)
    assert isinstance(data.train, Images)
    assert data.train.pixels.shape == (8, 3, 32, 32)
    assert (data.padding, data.flip) == (2, True)


def test_decoded_each_epoch_a_set_stays_in_its_files(tmp_path):
    make_folder(tmp_path, ["a", "b"], count=5)
    data = load("folder", tmp_path, flip=False)
    assert isinstance(data.train, ImageFiles)
    assert (data.train.size, data.train.resize) == (224, 256)
    assert (data.padding, data.flip) == (0, False)


# published sets


def test_tiny_imagenet(tmp_path):
    make_tiny_imagenet(tmp_path)
    ids = wnids(200)[::-1]
    data = load("tiny-imagenet", tmp_path)
    assert data.train.pixels.shape == (400, 3, 64, 64)
    assert data.train.labels.bincount().tolist() == [2] * 200
    assert data.test.labels.tolist() == list(range(200))
    assert data.class_names == [f"thing {wnid}" for wnid in ids]
    files = load("tiny-imagenet", tmp_path / "tiny-imagenet-200", decode="each epoch")
    assert names(files.train, 3) == [f"{ids[3]}_0.JPEG", f"{ids[3]}_1.JPEG"]
    assert names(files.test, 3) == ["val_3.JPEG"]


def test_imagenet_has_all_classes_in_the_order_of_their_ids(tmp_path):
    make_imagenet(tmp_path)
    data = load("imagenet", tmp_path)
    assert data.class_names == wnids(1000)
    assert [path.split("/")[-2] for path in data.train.paths] == wnids(1000)
    assert [path.split("/")[-2] for path in data.test.paths] == wnids(1000)


@pytest.mark.parametrize("seed", [1993, 7])
def test_a_subset_of_imagenet_is_the_first_100_of_the_seeds_order(tmp_path, seed):
    ids = wnids(1000)
    chosen = [ids[i] for i in np.random.RandomState(seed).permutation(1000)[:100]]
    for wnid in chosen:  # with the list of all classes, the folders of the others are not needed
        for part in ("train", "val"):
            put(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / part / wnid / "1.JPEG", one_jpeg())
    write_lines(tmp_path / "LOC_synset_mapping.txt", [f"{wnid} bird {wnid}, birdie" for wnid in ids])
    data = load("imagenet", tmp_path, subset=100, subset_seed=seed)
    assert [path.split("/")[-2] for path in data.train.paths] == chosen
    assert data.test.labels.tolist() == list(range(100))
    assert data.class_names == [f"bird {wnid}" for wnid in chosen]


def test_the_fields_subset_begins_as_published():
    component = CATALOGUE.find("data", "imagenet")
    assert component.factory(component.options(root="x", subset=100))._chosen()[:5] == [54, 7, 894, 512, 126]


def test_imagenet_with_flat_validation_images_says_what_to_do(tmp_path):
    put(tmp_path / "train" / "n10000000" / "n10000000_1.JPEG", one_jpeg())
    put(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", one_jpeg())
    assert "val has no class folders; move each validation image into the folder" in refusal("imagenet", tmp_path)


def test_caltech101(tmp_path):
    make_caltech101(tmp_path, count=6)
    data = load("caltech101", tmp_path, train_per_class=4)
    assert data.class_names == [f"thing_{n:03}" for n in range(101)]
    assert data.train.labels.bincount().tolist() == [4] * 101
    assert data.test.labels.bincount().tolist() == [2] * 101
    for label in range(101):
        assert sorted(names(data.train, label) + names(data.test, label)) == [f"image_{n:04}.jpg" for n in range(1, 7)]
    again = load("caltech101", tmp_path / "caltech101", train_per_class=4)
    assert again.train.paths == data.train.paths
    assert load("caltech101", tmp_path, train_per_class=4, split_seed=1).train.paths != data.train.paths


def test_cub200(tmp_path):
    make_cub200(tmp_path)
    data = load("cub200", tmp_path)
    assert data.class_names == [f"Made up Bird{n}" for n in range(1, 201)]
    for part, n in ((data.train, 1), (data.test, 2)):
        assert part.labels.tolist() == list(range(200))
        assert names(part) == [f"{c:03}.Made_up_Bird{c}_{n}.jpg" for c in range(1, 201)]
    assert load("cub200", tmp_path / "CUB_200_2011").train.paths == data.train.paths


@pytest.mark.parametrize(
    ("use", "places", "source"),
    [
        ("tiny-imagenet", ["", "tiny-imagenet-200"], "cs231n.stanford.edu"),
        ("imagenet", ["", "ILSVRC/Data/CLS-LOC"], "image-net.org"),
        ("caltech101", ["", "caltech101"], "data.caltech.edu"),
        ("cub200", ["", "CUB_200_2011"], "data.caltech.edu"),
    ],
)
def test_a_missing_set_names_the_paths_and_what_gets_it(tmp_path, use, places, source):
    message = refusal(use, tmp_path)
    assert message.startswith("not found; looked for ")
    assert all(str(tmp_path / place) in message for place in places)
    assert source in message


def edit(path, number, line):
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    write_lines(path, lines)


TINY, CUB = "tiny-imagenet-200", "CUB_200_2011"


@pytest.mark.parametrize(
    ("use", "file", "line", "words"),
    [
        ("tiny-imagenet", f"{TINY}/val/val_annotations.txt", "gone.JPEG\tn10000000\t0", "there is no"),
        ("tiny-imagenet", f"{TINY}/val/val_annotations.txt", "val_2.JPEG", "'' is no class of wnids.txt"),
        ("tiny-imagenet", f"{TINY}/val/val_annotations.txt", "val_2.JPEG\tn5\t0", "'n5' is no class of wnids.txt"),
        ("tiny-imagenet", f"{TINY}/val/val_annotations.txt", "../x.JPEG\tn10000000\t0", "names no file inside"),
        (
            "tiny-imagenet",
            f"{TINY}/val/val_annotations.txt",
            "val_0.JPEG\tn10000000\t0",
            "a second line of 'val_0.JPEG'",
        ),
        ("cub200", f"{CUB}/images.txt", "3 gone.jpg", "there is no"),
        ("cub200", f"{CUB}/images.txt", "3", "'' names no file inside"),
        ("cub200", f"{CUB}/images.txt", "3 /etc/passwd", "names no file inside"),
        ("cub200", f"{CUB}/images.txt", "3 a/../../classes.txt", "names no file inside"),
        ("cub200", f"{CUB}/images.txt", "2 x", "a second line of '2'"),
        ("cub200", f"{CUB}/image_class_labels.txt", "3 201", "'201' is not known"),
        ("cub200", f"{CUB}/train_test_split.txt", "3 2", "'2' is not known"),
    ],
)
def test_a_wrong_line_is_named_with_its_file(tmp_path, use, file, line, words):
    {"tiny-imagenet": make_tiny_imagenet, "cub200": make_cub200}[use](tmp_path)
    edit(tmp_path / file, 3, line)
    message = refusal(use, tmp_path)
    assert message.startswith(f"{tmp_path / file}:3: ")
    assert words in message


def test_an_image_that_another_list_leaves_out_is_named(tmp_path):
    make_cub200(tmp_path)
    edit(tmp_path / CUB / "train_test_split.txt", 3, "")
    place = re.escape(str(tmp_path / CUB / "images.txt"))
    assert re.match(rf"{place}:3: image 3 has no line in train_test_split.txt", refusal("cub200", tmp_path))


@pytest.mark.parametrize(
    ("use", "make", "spoil_set", "words"),
    [
        ("tiny-imagenet", make_tiny_imagenet, lambda r: write_lines(r / TINY / "wnids.txt", ["n1"]), "1 classes"),
        ("imagenet", make_imagenet, lambda r: shutil.rmtree(r / "train" / wnids(5)[4]), "999 classes"),
        ("caltech101", make_caltech101, lambda r: (r / "caltech101/101_ObjectCategories/x").mkdir(), "102 classes"),
        ("cub200", make_cub200, lambda r: write_lines(r / CUB / "classes.txt", ["1 a", "2 b"]), "2 classes"),
    ],
)
def test_other_classes_than_the_published_are_refused(tmp_path, use, make, spoil_set, words):
    make(tmp_path)
    spoil_set(tmp_path)
    assert words in refusal(use, tmp_path)


@pytest.mark.parametrize("missing", ["words.txt", "val/val_annotations.txt"])
def test_a_missing_list_is_named(tmp_path, missing):
    make_tiny_imagenet(tmp_path)
    (tmp_path / TINY / missing).unlink()
    assert str(tmp_path / TINY / missing) in refusal("tiny-imagenet", tmp_path)


def test_a_missing_folder_of_training_images_is_named(tmp_path):
    make_tiny_imagenet(tmp_path)
    shutil.rmtree(tmp_path / TINY / "train" / wnids(8)[7])
    assert wnids(8)[7] in refusal("tiny-imagenet", tmp_path)


def test_a_damaged_image_of_a_set_that_is_decoded_once_is_named(tmp_path):
    make_tiny_imagenet(tmp_path)
    path = save(noise(20, 20), tmp_path / TINY / "train" / wnids(9)[8] / "images" / f"{wnids(9)[8]}_1.JPEG")
    put(tmp_path / path, b"\xff\xd8\xff")
    assert refusal("tiny-imagenet", tmp_path).startswith(f"{path}: cannot be read (")


def test_loading_leaves_the_global_generator_alone(tmp_path):
    make_folder(tmp_path, ["a", "b"], count=5)
    before = torch.random.get_rng_state()
    load("folder", tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
