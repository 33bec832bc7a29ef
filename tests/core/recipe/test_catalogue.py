"""The catalogue: the same everywhere, tolerant of what nobody asked for, exact about what somebody did."""

import pytest
from helpers.plugin_files import ANGLES, distribution

import lwmfw
from lwmfw import Penalty
from lwmfw.assembly.assemble import assemble
from lwmfw.errors import UserError
from lwmfw.recipe.catalogue import discover
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe, tiny_run


def test_the_penalty_of_the_manual_works_as_a_file(tmp_path):
    (tmp_path / "angles.py").write_text(ANGLES)
    run = tiny_run({"plugins": ["angles.py"], "penalties": [{"use": "angles", "weight": 3.0}]}, tmp_path)
    assert run.terms[2]["angles"] > 0
    assert run.results.providers["angles"].startswith("angles.py sha256:")


def test_and_as_an_installed_package(tmp_path, monkeypatch):
    distribution(tmp_path, monkeypatch, "some-angles", "some_angles", ANGLES)
    run = tiny_run({"penalties": [{"use": "angles"}]}, tmp_path)
    assert run.terms[2]["angles"] > 0
    assert run.results.providers["angles"] == "some-angles 1.2"


def test_wrong_options_of_a_stranger_name_the_stranger(tmp_path):
    (tmp_path / "angles.py").write_text(ANGLES)
    recipe = tiny_recipe({"plugins": ["angles.py"], "penalties": [{"use": "angles", "wieght": -1}]}, tmp_path)
    with pytest.raises(UserError, match=r"\(angles, from angles.py\): no such option; did you mean 'weight'\?"):
        load_recipe(recipe)
    with pytest.raises(UserError, match=r"should be greater than or equal to 0, got -1"):
        load_recipe(recipe, {"penalties": [{"use": "angles", "weight": -1}]})


def test_two_providers_of_one_name_are_an_error_only_where_it_is_used(tmp_path, monkeypatch):
    distribution(tmp_path, monkeypatch, "some-angles", "some_angles", ANGLES)
    (tmp_path / "angles.py").write_text(ANGLES)
    plugins = {"plugins": ["angles.py"]}
    tiny_run(plugins, tmp_path)
    with pytest.raises(UserError) as refused:
        load_recipe(tiny_recipe(plugins | {"penalties": [{"use": "angles"}]}, tmp_path))
    assert "'angles' is provided by some-angles 1.2 and angles.py; " in str(refused.value)
    assert "write use = 'some-angles/angles' or 'angles.py/angles'" in str(refused.value)
    for use in ("some-angles/angles", "angles.py/angles"):
        resolved = load_recipe(tiny_recipe(plugins | {"penalties": [{"use": use}]}, tmp_path))
        assert "angles" in assemble(resolved).components


def test_a_broken_package_is_quoted_only_when_a_name_is_missing(tmp_path, monkeypatch):
    distribution(tmp_path, monkeypatch, "broken", "broken_module", "import nothere\n")
    load_recipe(tiny_recipe({}, tmp_path))
    with pytest.raises(
        UserError, match=r"note: broken 1.2 failed to load: ModuleNotFoundError: No module named 'nothere'"
    ):
        load_recipe(tiny_recipe({"penalties": [{"use": "angles"}]}, tmp_path))


HEAD = """
from lwmfw import Field, Objective, Options, Penalty, hookimpl

class Mute:
    def __repr__(self): raise KeyError("no")

class Answering:
    def __getattr__(self, name): return 1

class Use(Options): use: str = ""
class As(Options): other: str = Field("", alias="as")
answering = Answering()

@hookimpl
def register_components():
    """


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothere", "mine.py: cannot be imported: ModuleNotFoundError: No module named 'nothere'"),
        ("raise SystemExit(0)", "mine.py: cannot be imported: SystemExit: 0"),
        ("def (", "mine.py: cannot be imported: SyntaxError"),
        ("", "mine.py: no hook register_components; define it with @hookimpl and yield the records"),
        (
            "from lwmfw import hookimpl\n@hookimpl\ndef register_component(): yield 1",
            "mine.py: register_component is marked @hookimpl, but a module has only the hook register_components; "
            "did you mean 'register_components'?",
        ),
        (
            "from lwmfw import hookimpl\n@hookimpl\ndef register_components(): yield 1",
            "mine.py: register_components yielded 1; "
            "yield one of Data, Backbone, Classifier, Objective, Penalty, "
            "ExtraPhase, Readout, Selector, Rate, Refiner, Codec, Observer",
        ),
        (
            "from lwmfw import hookimpl, Penalty\n@hookimpl\ndef register_components(): yield Penalty('x', dict, dict)",
            "mine.py: the options of 'x' are no subclass of lwmfw.Options",
        ),
        *(
            (HEAD + lines, message)
            for lines, message in [
                ("return None", "register_components yields no record; yield one for each component"),
                ("yield from ()", "register_components yields no record; yield one for each component"),
                ("return 5", "register_components returned 5; yield the records"),
                ("yield 'x\\n' * 500", r"register_components yielded 'x\nx\n"),
                ("yield Mute()", "register_components yielded a value of type Mute; yield one of Data, "),
                (
                    "yield Penalty(5, dict)",
                    "a penalty is named 5, but a name input should be a valid string; rename it",
                ),
                *(
                    (
                        f"yield Penalty({name!r}, dict)",
                        f"a penalty is named {name!r}, but a name should match pattern '^",
                    )
                    for name in ("[memory]", "a/b", "x y", "x\ny", "", ".")
                ),
                ("yield Penalty('x' * 101, dict)", "but a name should have at most 100 characters; rename it"),
                ("yield Penalty('x', 5)", "the factory of 'x' is 5, which cannot be called; give the class whose"),
                ("yield Penalty('x', dict, Options())", "the options of 'x' are no subclass of lwmfw.Options; derive"),
                ("yield Objective('x', dict, Options)", "no subclass of lwmfw.ObjectiveOptions; derive"),
                (
                    "yield Penalty('x', dict, Use)",
                    "the options of 'x' have a 'use', which every component's table has; r",
                ),
                (
                    "yield Penalty('x', dict, As)",
                    "the options of 'x' have a 'as', which every component's table has; r",
                ),
                ("yield from [Penalty('x', dict)] * 2", "registers two of kind penalty named 'x'; rename one"),
            ]
        ),
        (
            "from lwmfw import hookimpl\n@hookimpl\ndef register_components(): raise ValueError('no')",
            "mine.py: cannot be imported: ValueError: no",
        ),
    ],
)
def test_a_plug_in_file_that_cannot_be_used_is_refused(text, message, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError) as refused:
        load_recipe(tiny_recipe({"plugins": ["mine.py"]}, tmp_path))
    assert message in str(refused.value)
    assert "mine.py: " in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_record_that_tests_hand_over_is_held_to_the_same(tmp_path):
    with pytest.raises(UserError, match=r"^test: a penalty is named 'a/b', but a name should match pattern"):
        tiny_run({}, tmp_path, components=[Penalty("a/b", dict)])


def test_a_missing_plug_in_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nothere.py: no such plug-in file; plugins lists Python files"):
        load_recipe(tiny_recipe({"plugins": ["nothere.py"]}, tmp_path))


def test_a_plug_in_file_is_copied_and_named_with_its_digest(tmp_path):
    (tmp_path / "angles.py").write_text(ANGLES)
    run = tiny_run({"plugins": ["angles.py"], "penalties": [{"use": "angles"}]}, tmp_path)
    copied = run.path / "plugins" / "angles.py"
    assert copied.read_text() == ANGLES
    copied.write_text(ANGLES + "# changed")
    with pytest.raises(
        UserError, match=r"angles.py: sha256 is [0-9a-f]{64}, the recipe says [0-9a-f]{64}; restore the file"
    ):
        load_recipe(run.path / "resolved.toml")


def test_files_of_one_name_are_refused(tmp_path):
    (tmp_path / "other").mkdir()
    for folder in (tmp_path, tmp_path / "other"):
        (folder / "angles.py").write_text(ANGLES)
    with pytest.raises(UserError, match=r"two plug-in files are named angles.py; rename one"):
        load_recipe(tiny_recipe({"plugins": ["angles.py", "other/angles.py"]}, tmp_path))


def test_a_file_that_is_named_twice_is_read_once(tmp_path):
    (tmp_path / "angles.py").write_text(ANGLES)
    twice = discover([tmp_path / "angles.py", tmp_path / "." / "angles.py"], installed=False)
    assert [component.name for component in twice.components] == ["angles"]


def test_discovery_has_one_order():
    names = [c.name for c in discover().components]
    assert names == [c.name for c in discover().components]
    assert {"L_D", "L_AD", "resnet20", "resnet32", "linear", "cosine", "bce", "cross_entropy"} <= set(names)
    assert {"fashion-mnist-mini", "fashion-mnist", "synthetic", "console"} <= set(names)


def test_every_public_name_exists():
    for name in lwmfw.__all__:
        assert getattr(lwmfw, name) is not None
