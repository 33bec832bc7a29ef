"""`lwmfw plugins --doctor`: what is wrong with plug-ins, where, and what they stand on."""

import json
import tomllib
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.command import lwmfw
from helpers.plugin_files import ANGLES, distribution

from lwmfw.authoring.doctor import PURPOSES
from lwmfw.authoring.new import render

HEAD = "from lwmfw import Field, Observer, Options, Penalty, hookimpl\n"
TAIL = """
@hookimpl
def register_components():
    yield Penalty("odd", Odd, Odd.Options if hasattr(Odd, "Options") else Options)
"""
ODD = """
class Odd:
    needs = {"features"}

    def __init__(self, options): pass

    @hookimpl
    def compute_penalty(self, new): pass
"""


def asked(*more):
    """The exit code and what --json says."""
    done = lwmfw("plugins", "--doctor", "--json", *more)
    return done.returncode, json.loads(done.stdout), done.stderr


def odd(tmp_path, monkeypatch, before="", after="", text=HEAD + ODD + TAIL):
    """What is said of a distribution with the component `odd`, of which something is changed."""
    assert before == "" or text.count(before) == 1
    distribution(tmp_path, monkeypatch, "odd-one", "odd_one", text.replace(before, after))
    code, said, _ = asked()
    (plugin,) = (each for each in said["plugins"] if each["provider"] == "odd-one 1.2")
    return code, plugin, [each for each in said["components"] if each["provider"] == "odd-one 1.2"]


def test_all_is_well(tmp_path, monkeypatch):
    distribution(tmp_path, monkeypatch, "some-angles", "some_angles", ANGLES)
    done = lwmfw("plugins", "--doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "some-angles 1.2 anything = some_angles 1 ok" in lines
    assert "penalty angles some-angles 1.2 ok" in lines
    assert {"python", "lwmfw", "torch", "torchvision", "numpy", "pluggy", "CUDA", "threads", "bf16"} <= {
        line.split(" ")[0] for line in lines if line
    }
    assert not any("several have the name" in line for line in lines)


def test_every_extra_is_listed_with_what_it_is_for():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras.keys() <= PURPOSES.keys()
    _, said, _ = asked()
    told = {each["name"]: each for each in said["extras"]}
    assert told["test"] == {"name": "test", "purpose": PURPOSES["test"], "missing": []}


def test_a_library_that_is_not_there_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lwmfw.authoring.doctor.requires",
        lambda name: ["torch>=2", 'no-such-library>=1; extra == "onnx"', "lwmfw[test]; extra == 'dev'"],
    )
    _, said, _ = asked()
    assert said["extras"] == [{"name": "onnx", "purpose": PURPOSES["onnx"], "missing": ["no-such-library"]}]
    assert "missing: no-such-library" in lwmfw("plugins", "--doctor").stdout


@pytest.mark.parametrize(
    ("text", "fault", "line"),
    [
        ("import nothere\n", "ModuleNotFoundError: No module named 'nothere'", ":1"),
        ("x = 1\ndef f():\n    raise KeyError('gone')\nf()\n", "KeyError: 'gone'", ":3"),
        ("x = 1\nif True\n", "SyntaxError: expected ':'", ":2"),
        ("raise SystemExit(3)\n", "SystemExit: 3", ":1"),
        ("raise ValueError('a\\nb \\x1b[2J')\n", r"ValueError: a b \x1b[2J", ":1"),
        (HEAD + ODD, "no hook register_components; define it with @hookimpl and yield the records", ""),
        (HEAD + "@hookimpl\ndef register_component(): pass\n", "did you mean 'register_components'?", ""),
        (HEAD + "@hookimpl\ndef register_components():\n    yield 3\n", "yielded 3; yield one of", ""),
    ],
)  # fmt: skip
def test_a_plug_in_that_does_not_load_is_told_with_its_line(text, fault, line, tmp_path, monkeypatch):
    code, plugin, components = odd(tmp_path, monkeypatch, text=text)
    assert (code, plugin["components"], components) == (2, 0, [])
    assert fault in plugin["fault"]
    assert "odd-one" not in plugin["fault"]
    assert plugin["place"] == f"{tmp_path / 'site-odd-one' / 'odd_one.py'}{line}"
    assert plugin["found_by"] == "anything = odd_one"


def test_a_module_that_is_not_there(tmp_path, monkeypatch):
    distribution(tmp_path, monkeypatch, "odd-one", "odd_one", "")
    (tmp_path / "site-odd-one" / "odd_one.py").unlink()
    code, said, told = asked()
    assert code == 2
    assert said["plugins"][-1]["fault"] == "ModuleNotFoundError: No module named 'odd_one'"
    assert told == "broken plug-ins and components: 1; mend, update or uninstall them\n"


def test_a_group_that_nothing_reads(tmp_path, monkeypatch):
    distribution(tmp_path, monkeypatch, "odd-one", "odd_one", HEAD + ODD + TAIL, group="lwmfw.plugins")
    code, said, _ = asked()
    assert code == 2
    assert "nothing reads the group 'lwmfw.plugins'; write [project.entry-points.lwmfw]" in said["plugins"][-1]["fault"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("compute_penalty(self, new)", "compute_penality(self, new)"), "did you mean 'compute_penalty'?"),
        (("(self, new)", "(self, news)"), "asks for 'news', which is not offered; did you mean 'new'?"),
        (("(self, new)", "(self, new, old)"), "asks for 'old' but does not need it"),
        (("    @hookimpl\n", ""), "has a hook's name but no @hookimpl"),
        (("    needs", "    need"), "has 'need', which nothing reads; did you mean 'needs'?"),
        (('{"features"}', '{"featurse"}'), "needs 'featurse', which nothing can offer; did you mean 'features'?"),
        (('{"features"}', "3"), "needs = 3 is no set of names"),
        (("compute_penalty(self, new)", "spoken(self)"), "spoken is marked @hookimpl, but the loop has no such hook"),
        (('Penalty("odd"', 'Observer("odd"'), ""),
    ],
)
def test_a_component_that_check_would_refuse_is_told_with_its_line(change, fault, tmp_path, monkeypatch):
    code, plugin, (component,) = odd(tmp_path, monkeypatch, *change)
    assert plugin["fault"] == ""
    assert fault in component["fault"]
    if fault:
        assert component["place"] == f"{tmp_path / 'site-odd-one' / 'odd_one.py'}:3"
    assert code == (2 if fault else 0)


def test_a_constructor_that_fails_is_told_with_the_line_that_does(tmp_path, monkeypatch):
    code, _, (component,) = odd(tmp_path, monkeypatch, "options): pass", "options):\n        self.x = options.weight")
    assert (code, component["name"]) == (2, "odd")
    assert "cannot be built: AttributeError" in component["fault"]
    assert component["place"].endswith("odd_one.py:7")


def test_options_that_have_to_be_told_leave_a_component_unexamined(tmp_path, monkeypatch):
    options = 'class Odd:\n    class Options(Options):\n        root: str = Field(description="where")\n'
    code, _, (component,) = odd(tmp_path, monkeypatch, "class Odd:\n", options)
    assert (code, component["fault"], component["required"]) == (0, "", ["root"])
    assert "not examined: has to be told root" in lwmfw("plugins", "--doctor").stdout


def test_names_that_two_have_are_told_with_what_settles_them_and_break_nothing(tmp_path, monkeypatch):
    for name in ("some-angles", "other-angles"):
        distribution(tmp_path, monkeypatch, name, name.replace("-", "_"), ANGLES)
    distribution(tmp_path, monkeypatch, "shadow", "shadow", HEAD + ODD + TAIL.replace('"odd"', '"L_D"'))
    code, said, _ = asked()
    assert code == 0
    assert sorted(said["shared"], key=lambda each: each["name"]) == [
        {"kind": "penalty", "name": "L_D", "use": ["lwmfw/L_D", "shadow/L_D"]},
        {"kind": "penalty", "name": "angles", "use": ["other-angles/angles", "some-angles/angles"]},
    ]
    table = lwmfw("plugins", "--doctor").stdout
    assert 'write use = "lwmfw/L_D" or use = "shadow/L_D"' in table


def test_two_of_one_distribution_that_nothing_can_tell_apart(tmp_path, monkeypatch):
    distribution(tmp_path, monkeypatch, "some-angles", "some_angles", ANGLES)
    info = tmp_path / "site-some-angles" / "some_angles-1.2.dist-info" / "entry_points.txt"
    info.write_text(info.read_text() + "again = some_angles\n")
    assert "no recipe can say which some-angles/angles is meant" in lwmfw("plugins", "--doctor").stdout


def test_files_are_examined_too():
    Path("lwmfw_margin.py").write_text(render("margin", "penalty")["lwmfw_margin.py"])
    Path("broken.py").write_text("1 / 0\n")
    code, said, told = asked("--plugins", "lwmfw_margin.py", "--plugins", "broken.py", "--plugins", "none.py")
    assert code == 2
    (good, broken, none) = said["plugins"][-3:]
    assert (good["provider"], good["components"], good["fault"]) == ("lwmfw_margin.py", 1, "")
    assert broken["fault"] == "cannot be imported: ZeroDivisionError: division by zero"
    assert broken["place"] == f"{Path('broken.py').resolve()}:1"
    assert none["fault"].startswith("no such plug-in file; ")
    assert [each["name"] for each in said["components"]][-1] == "margin"
    assert told.startswith("broken plug-ins and components: 2; ")


def test_what_a_plug_in_prints_is_no_part_of_the_report(tmp_path, monkeypatch):
    noisy = "print('HELLO')\n" + HEAD + ODD.replace("options): pass", "options): print('BUILT')") + TAIL
    distribution(tmp_path, monkeypatch, "odd-one", "odd_one", noisy)
    done = lwmfw("plugins", "--doctor", "--json")
    json.loads(done.stdout)
    assert "HELLO" in done.stderr
    assert "BUILT" in done.stderr


def test_it_examines_all_or_nothing():
    done = lwmfw("plugins", "L_D", "--doctor")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "--doctor examines every plug-in; leave the name out\n"
