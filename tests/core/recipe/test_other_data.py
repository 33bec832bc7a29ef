"""A data set that an option names besides the recipe's own: checked with the recipe, loaded when it is asked for."""

from typing import ClassVar

import pytest

from lwmfw import DataChoice, Field, Options, Penalty, hookimpl
from lwmfw.errors import UserError
from lwmfw.recipe.catalogue import record_fault
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw.testing.tiny import beside_installed


class LookingOptions(Options):
    other: DataChoice = Field(DataChoice(use="synthetic"), description="other images")


class Looking:
    """Looks at other images."""

    seen: ClassVar[list] = []

    def __init__(self, options):
        self.other = options.other

    @hookimpl
    def before_run(self, run):
        Looking.seen.append(run.load_data(self.other))


LOOKING = Penalty("looking", Looking, LookingOptions)


def loaded(table, folder):
    recipe = tiny_recipe({"penalties": [{"use": "looking", **table}]}, folder)
    return load_recipe(recipe, catalogue=beside_installed([LOOKING]))


def test_it_is_loaded_as_its_table_says(tmp_path):
    other = {"use": "synthetic", "classes": 3, "train_per_class": 5, "test_per_class": 1, "size": 12}
    tiny_run({"penalties": [{"use": "looking", "other": other}]}, tmp_path, components=[LOOKING])
    data = Looking.seen.pop()
    assert tuple(data.train.pixels.shape) == (15, 3, 12, 12)


def test_its_defaults_are_written_out(tmp_path):
    (table,) = loaded({"other": {"use": "synthetic", "size": 12}}, tmp_path).tables()["penalties"]
    assert table["other"]["use"] == "synthetic"
    assert table["other"]["size"] == 12
    assert "train_per_class" in table["other"]


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({"use": "synthetics"}, r"penalties.*other\.use: no data named 'synthetics'; did you mean 'synthetic'"),
        ({"use": "synthetic", "sise": 12}, r"penalties.*other.*sise \(synthetic, from lwmfw .*; did you mean 'size'"),
        (
            {"use": "synthetic", "size": "large"},
            r"penalties.*other.*size \(synthetic, from lwmfw .*\): input should be",
        ),
    ],
)
def test_what_is_wrong_with_it_is_found_with_the_recipe(other, fault, tmp_path):
    with pytest.raises(UserError, match=rf"tiny\.toml:\d+: {fault}"):
        loaded({"other": other}, tmp_path)


def test_what_is_missing_is_told_by_the_option_that_names_it(tmp_path):
    other = {"use": "folder", "root": str(tmp_path / "nowhere")}
    with pytest.raises(UserError, match=r"penalties\.looking\.other: .*nowhere.*; set penalties\.looking\.other\.root"):
        tiny_run({"penalties": [{"use": "looking", "other": other}]}, tmp_path, components=[LOOKING])


def test_an_option_is_one_itself_or_the_record_is_refused():
    class Many(Options):
        others: list[DataChoice] = Field([], description="other images")

    assert record_fault(Penalty("many", Looking, Many)) == (
        "option 'others' of 'many' has a DataChoice inside another type; let it be one itself"
    )
