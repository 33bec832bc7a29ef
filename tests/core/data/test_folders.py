"""Folders of images: which of them are classes, which files are images, and that nothing is passed over in silence."""

import json
import unicodedata
from collections import Counter

import pytest
import torch
from helpers.command import lwmfw
from helpers.pictures import make_folder, noise, one_jpeg, put
from PIL import Image

from lwmfw import UserError, images_below, left_out_words
from lwmfw.data.arrange import arrange
from lwmfw.data.images import DataSet, Images
from lwmfw.engine.origin import labels_in, new_labels
from lwmfw.recipe.catalogue import discover
from lwmfw.testing import tiny_recipe, tiny_run

CATALOGUE = discover()
JPEG = one_jpeg()


def component(root, **options):
    found = CATALOGUE.find("data", "folder")
    return found.factory(found.options(root=str(root), **options))


def load(root, **options):
    return component(root, **options).load()


def refusal(root, **options):
    with pytest.raises(UserError) as refused:
        load(root, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def fill(root, *folders, count=2):
    for name in folders:
        for n in range(count):
            put(root / name / f"{n}.jpg", JPEG)


# parts of a set

SPELLINGS = [
    *(("train", "test"), ("Train", "Test"), ("TRAIN", "TEST"), ("train ", " test"), ("Training", "Testing")),
    *(("train_set", "test_set"), ("TrainSet", "TestSet"), ("trn", "tst"), ("training_images", "test-images")),
    *(("train", "Test"), ("train2017", "test2017"), ("01 train", "02 test"), ("traindata", "testdata")),
]


@pytest.mark.parametrize(("train", "test"), SPELLINGS)
def test_training_and_test_images_are_known_by_common_names(tmp_path, train, test):
    fill(tmp_path / train, "ant", "bee", count=3)
    fill(tmp_path / test, "bee", "ant", count=1)
    data = load(tmp_path)
    assert data.class_names == ["ant", "bee"]
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 1])


@pytest.mark.parametrize("name", ["trainer", "steam train", "attest", "devil", "invalid", "settee", "test cricket"])
def test_a_word_that_holds_one_of_them_is_a_class(tmp_path, name):
    fill(tmp_path, name, "ant")
    assert sorted(load(tmp_path).class_names) == sorted([name, "ant"])


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, "bus", "car", "train")
    assert load(tmp_path).class_names == ["bus", "car", "train"]


@pytest.mark.parametrize("parts", [("train", "eval"), ("Train", "Validation"), ("train", "Training", "test"), ("tst",)])
def test_parts_that_are_not_one_of_each_are_refused_with_what_to_set(tmp_path, parts):
    for part in parts:
        fill(tmp_path / part, "ant", "bee")
    message = refusal(tmp_path)
    assert f"has {', '.join(sorted(parts))} but not both train and test; rename" in message
    assert "data.root and data.test" in message


def test_that_is_what_can_be_set(tmp_path):
    fill(tmp_path / "Train", "ant", "bee")
    fill(tmp_path / "Validation", "ant", "bee", count=1)
    data = load(tmp_path / "Train", test=str(tmp_path / "Validation"))
    assert (len(data.train), len(data.test)) == (4, 2)


def test_what_lies_beside_the_parts_is_said(tmp_path, capsys):
    for part in ("train", "test", "validation", "extra"):
        fill(tmp_path / part, "ant", "bee")
    put(tmp_path / "loose.png", JPEG)
    own = component(tmp_path)
    own.load()
    assert own.left_out == Counter({".png in no class": 1, "extra/": 1, "validation/": 1})
    told = capsys.readouterr().err
    assert told == (
        f"{tmp_path}: left out: 1 .png in no class, 1 extra/, 1 validation/; "
        "convert, rename or move what is a class's image\n"
    )
    own = component(tmp_path, test=str(tmp_path / "validation"))
    assert len(own.load().test) == 4
    assert own.left_out["test/"] == 1


def test_a_set_in_parts_can_be_named_for_its_test_images(tmp_path):
    fill(tmp_path / "months", "ant", "bee", count=3)
    fill(tmp_path / "set" / "Train", "ant", "bee", count=2)
    fill(tmp_path / "set" / "Test", "ant", "bee", count=1)
    data = load(tmp_path / "months", test=str(tmp_path / "set"))
    assert (data.class_names, len(data.train), len(data.test)) == (["ant", "bee"], 6, 2)


# folders that are no classes


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("ant/train", "ant/test", "bee/train", "bee/test"), "ant holds test and train; name it as data.root if"),
        (("set/Train/ant", "set/Test/ant"), "set holds Test and Train; name it as data.root if"),
        (("data/set/train/ant", "data/set/val/ant"), "set holds train and val; name it as data.root if"),
        (("images/trn/a", "images/tst/a", "labels/a"), "images holds trn and tst; name it"),
        (("fold1/ant", "fold1/bee", "fold2/ant", "fold2/bee"), "'fold2' has a folder 'ant', as 'fold1' does"),
        (("day/Ant", "night/ant"), "'night' has a folder 'ant', as 'day' does"),
        (("seg_a/seg_a/x", "seg_b/seg_b/x"), "'seg_b' has a folder 'x', as 'seg_a' does"),
        (("ant", "bee", "more/ant"), "'more' has a folder 'ant', and 'ant' lies beside it"),
        (("flowers/rose", "flowers/tulip"), "flowers has no images beside its folders; name it instead"),
        (("train/f1/a", "train/f2/a", "test/f1/a", "test/f2/a"), "'f2' has a folder 'a', as 'f1' does"),
    ],
)
def test_folders_that_look_like_no_classes_are_refused(tmp_path, folders, words):
    fill(tmp_path, *folders)
    assert words in refusal(tmp_path)


def test_a_recipe_can_say_that_they_are(tmp_path):
    fill(tmp_path, "ant/2023", "ant/2024", "bee/2024")
    assert refusal(tmp_path).endswith('or set data.nested = "take" if each is one class')
    data = load(tmp_path, nested="take")
    assert data.class_names == ["ant", "bee"]
    assert len(data.train) + len(data.test) == 6
    fill(tmp_path, "ant/train", "ant/test")
    assert "ant holds test and train" in refusal(tmp_path, nested="take")


def test_a_class_may_have_folders_of_its_own_and_one_for_its_images(tmp_path):
    fill(tmp_path, "ant/images", "ant/black", "bee/images", "bee/wild", "cat")
    assert load(tmp_path).class_names == ["ant", "bee", "cat"]


# the order of classes


def test_numbered_classes_are_in_natural_order(tmp_path):
    numbers = [str(n) for n in range(12)]
    fill(tmp_path / "train", *numbers)
    fill(tmp_path / "test", *numbers, "12", count=1)
    fill(tmp_path / "train", "12")
    assert load(tmp_path).class_names == [*numbers, "12"]
    assert load(tmp_path / "train").class_names == [*numbers, "12"]
    fill(tmp_path / "few", "class 9")
    fill(tmp_path / "more", "class 10", "class 9", "class 8")
    assert load(tmp_path / "few", test=str(tmp_path / "more")).class_names == ["class 9", "class 8", "class 10"]


def test_names_of_equal_numbers_are_in_order_of_their_text(tmp_path):
    fill(tmp_path, "a2b10", "a2b9", "a10", "1", "01", "B", "a")
    assert load(tmp_path).class_names == ["01", "1", "B", "a", "a2b9", "a2b10", "a10"]


# which files are images


def test_files_are_images_by_suffix_or_by_content(tmp_path, capsys):
    names = ["0.jpe", "1.jfif", "2", "3.jpeg_large", "4.jpg ", "5.JPG", "6.12"]
    for name in names:
        put(tmp_path / "ant" / name, JPEG)
    noise(9, 9).save(tmp_path / "ant" / "7.tga")
    noise(9, 9).save(tmp_path / "ant" / "8", "PNG")
    counts = Counter()
    assert [path.rsplit("/", 1)[1] for path in images_below(tmp_path, counts)] == [*names, "7.tga", "8"]
    assert not counts
    data = load(tmp_path)
    assert len(data.train) + len(data.test) == 9
    assert capsys.readouterr().err == ""


def test_avif_is_an_image_where_pillow_reads_it(tmp_path):
    put(tmp_path / "ant" / "0.avif", b"no image")
    counts = Counter()
    Image.init()
    reads = ".avif" in Image.registered_extensions()
    assert len(images_below(tmp_path, counts)) == reads
    assert list(counts) == ([] if reads else [".avif (needs pillow-avif-plugin, registered with Pillow)"])


def test_what_is_no_image_is_counted_by_suffix(tmp_path, capsys):
    fill(tmp_path, "ant", "bee")
    for name in ("a.heic", "b.HEIC", "clip.mp4", "README", "._0.jpg"):
        put(tmp_path / "ant" / name, b"no image")
    for name in ("c.nef", "d.jpg.part", "e.jpg~"):
        put(tmp_path / "bee" / name, JPEG)
    for name in (".00.png", ".DS_Store", "Thumbs.db", "notes.txt", "desktop.ini"):
        put(tmp_path / "bee" / name, b"nobody misses it")
    own = component(tmp_path)
    data = own.load()
    assert len(data.train) + len(data.test) == 4
    heic = ".heic (needs pillow-heif, registered with Pillow)"
    counted = {heic: 2, ".mp4": 1, "without suffix": 1, "hidden .jpg": 1, ".nef": 1, ".part": 1, ".jpg~": 1}
    assert own.left_out == counted
    assert f"2 {heic}" in capsys.readouterr().err


def test_a_class_of_nothing_else_says_what_there_is(tmp_path):
    fill(tmp_path, "bee")
    put(tmp_path / "ant" / "a.heic", b"no image")
    message = refusal(tmp_path)
    assert "ant has no images (" in message
    assert message.endswith(", only 1 .heic (needs pillow-heif, registered with Pillow); add some or remove the folder")


def test_no_file_is_waited_for_and_no_pixel_is_decoded_to_find_images(tmp_path, monkeypatch):
    fill(tmp_path, "ant")
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    put(tmp_path / "ant" / "2", JPEG)
    (tmp_path / "ant" / "broken").symlink_to("nowhere")
    counts = Counter()
    assert len(images_below(tmp_path, counts)) == 3
    assert counts == {"without suffix": 1}


JUNK = ["@eaDir", "#recycle", "$RECYCLE.BIN", "@Recycle", "__MACOSX", "lost+found", "System Volume Information"]


@pytest.mark.parametrize("name", [*JUNK, "__pycache__", "Thumbs", "thumbs"])
def test_what_systems_leave_is_left_out_and_said(tmp_path, capsys, name):
    fill(tmp_path, "ant", "bee", name, f"{name}/ant", f"ant/{name}/0.jpg", f"bee/deep/{name}")
    own = component(tmp_path)
    data = own.load()
    assert data.class_names == ["ant", "bee"]
    assert len(data.train) + len(data.test) == 4
    assert own.left_out == {f"{name}/": 3}
    assert f"3 {name}/" in capsys.readouterr().err


def test_what_was_left_out_is_in_env_json(tmp_path):
    make_folder(tmp_path / "set", ["ant", "bee", "cat", "dog"])
    fill(tmp_path / "set", "ant/@eaDir")
    put(tmp_path / "set" / "bee" / "clip.mp4", b"no image")
    data = {"use": "folder", "root": str(tmp_path / "set"), "size": 8, "decode": "once"}
    done = tiny_run({"data": data}, tmp_path)
    assert json.loads((done.path / "env.json").read_text())["left_out"] == {"@eaDir/": 1, ".mp4": 1}
    assert left_out_words({"@eaDir/": 1, ".mp4": 2}) == "1 @eaDir/, 2 .mp4"
    put(tmp_path / "asked" / "1", JPEG)
    put(tmp_path / "asked" / "2.heic", b"no image")
    said = lwmfw("predict", done.path, tmp_path / "asked", "--json")
    assert [each["image"] for each in json.loads(said.stdout)] == [str(tmp_path / "asked" / "1")]
    assert (
        f"{tmp_path / 'asked'}: left out: 1 .heic (needs pillow-heif, registered with Pillow); convert" in said.stderr
    )


def test_classes_that_are_all_made_of_folders_are_asked_about(tmp_path, capsys):
    fill(tmp_path, "animals/cat", "animals/dog", "plants/fir", "plants/oak")
    assert component(tmp_path).load().class_names == ["animals", "plants"]
    assert f"{tmp_path}: every class is made of folders, as 'animals' is of cat, dog; put" in capsys.readouterr().err
    component(tmp_path, nested="take").load()
    fill(tmp_path, "plants")  # images beside the folders: it is a class
    component(tmp_path).load()
    assert not capsys.readouterr().err


# classes of one image, and names that differ in nothing that is seen


@pytest.mark.parametrize("settings", [(), ("evaluation.validation=0.5",), ("data.test_share=0.9",)])
def test_a_class_of_one_image_is_said_to_need_two(tmp_path, settings):
    fill(tmp_path / "set", "bee", "cat", "dog", count=4)
    fill(tmp_path / "set", "ant", count=1)
    data = {"use": "folder", "root": str(tmp_path / "set"), "size": 8, "decode": "once"}
    more = [part for setting in settings for part in ("--set", setting)]
    done = lwmfw("run", tiny_recipe({"data": data}, tmp_path), "--out", tmp_path / "run", "--device", "cpu", *more)
    assert done.returncode == 2
    words = "has no test images, for it has one image, and two are needed; leave it out or add some"
    assert done.stderr == f"data: class 'ant' {words}\n"


def of(train, test, names):
    def images(labels):
        return Images(torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64))

    return DataSet(images(train), images(test), names, [0.0], [1.0])


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_share_for_validation_leaves_an_image_to_learn_from(share):
    data = arrange(of([0, 0, 1, 1, 1], [], ["ant", "bee"]), [0, 1], share, 0)
    assert set(data.train.labels.tolist()) == set(data.test.labels.tolist()) == {0, 1}


TWINS = [("Watch", "watch"), ("café", unicodedata.normalize("NFD", "café")), ("watch", "watch "), ("STRASSE", "straße")]


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_classes_that_differ_in_nothing_else_are_refused(tmp_path, one, other):
    fill(tmp_path / "both", one, other)
    words = "differ in capitals, composed letters or outer spaces alone; give both one name, or other names"
    assert words in refusal(tmp_path / "both")
    fill(tmp_path / "train", one)
    fill(tmp_path / "test", other)
    assert f"classes {one!a} and {other!a} differ" in refusal(tmp_path, test="")
    assert f"classes {one!a} and {other!a} differ" in refusal(tmp_path / "train", test=str(tmp_path / "test"))


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_a_new_class_is_not_written_unlike_a_known_one(one, other):
    data = of([0, 0, 1], [2], ["ant", "bee", other])
    words = f"data: class {other!a} is known as {one!a}; write its name alike, or another name"
    for ask in (lambda: new_labels(data, [one], more=True), lambda: labels_in(data, ["cat", one])):
        with pytest.raises(UserError) as refused:
            ask()
        assert str(refused.value) == words
    assert new_labels(of([0, 1], [], [one, "bee"]), [one, other], more=True) == [1]
