"""Whatever bytes a recipe holds, the answer is a recipe or an error in words, soon, with nothing written."""

import os
from pathlib import Path

import pytest
import tomli_w
from helpers.command import lwmfw, lwmfw_process
from helpers.hostile import FOREVER, RECIPE, check, refusal

from lwmfw.errors import UserError
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.settings import parse_settings
from lwmfw.recipe.text import MAX_BYTES

pytestmark = pytest.mark.timeout(FOREVER)


def test_the_recipe_that_is_spoilt_below_is_valid():
    Path("recipe.toml").write_text(RECIPE)
    assert check("recipe.toml").recipe.name == "valid"


# --- contents ----------------------------------------------------------------------------------------------------


def nested(levels, inner):
    """Inline tables whose keys are as deep as a key may be."""
    return ("{" + ".".join(["a"] * 31) + " = ") * levels + inner + "}" * levels


def at_the_top(text):
    return text + "\n" + RECIPE


CONTENTS = {
    "empty": "",
    "blank": "\n \t\n",
    "only a comment": "# nothing",
    "binary": bytes(range(256)) * 10,
    "an archive": b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + bytes(1000),
    "not UTF-8": at_the_top("# caf").encode() + b"\xe9\n",
    "UTF-16": RECIPE.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + RECIPE.encode(),
    "NUL": RECIPE + "\0",
    "NUL in a comment": RECIPE + "# a\0b\n",
    "10 MB": RECIPE + "# x\n" * (10 * 2**20 // 4),
    "10 MB in one line": "#" * (10 * 2**20),
    "no TOML": "epochs: 3\n",
    "twice": RECIPE * 2,
    "half": RECIPE[: len(RECIPE) // 2],
    "open string": at_the_top('name = "'),
    "open multi-line string": at_the_top('name = """'),
    "5000 brackets": at_the_top("seed = " + "[" * 5000 + "]" * 5000),
    "5000 open brackets": at_the_top("seed = " + "[" * 5000),
    "5000 tables": at_the_top("seed = " + "{a = " * 5000 + "1" + "}" * 5000),
    "300 brackets": at_the_top("seed = " + "[" * 300 + "]" * 300),
    "inline tables of deep keys": at_the_top("seed = " + nested(200, "1")),
    "inline tables of deep keys as options": RECIPE + "x = " + nested(200, "1") + "\n",
    "20,000 dotted keys": at_the_top("\n".join(f"a.k{number} = 1" for number in range(20_000))),
    "5000 dotted keys": at_the_top("\n".join(f"a.k{number} = 1" for number in range(5000))),
    "one key of 20,000 dots": at_the_top(".".join(["a"] * 20_001) + " = 1"),
    "one quoted key of 10,000 dots": at_the_top(".".join(['"a"'] * 10_001) + " = 1"),
    "one key of 20,000 empty parts": at_the_top(".".join(['""'] * 20_001) + " = 1"),
    "one key of 15,000 blank parts": at_the_top(".".join(['" "'] * 15_001) + " = 1"),
    "a header of 20,000 dots": RECIPE + "[" + ".".join(["a"] * 20_001) + "]\n",
    "a header of 15,000 blank parts": RECIPE + "[" + ".".join(["' '"] * 15_001) + "]\n",
    "5000 unknown keys": at_the_top("\n".join(f"k{number} = 1" for number in range(5000))),
    "3000 tables of one name": RECIPE + "[[penalties]]\n" * 3000,
    "an array of 15,000 words": RECIPE.replace("increment = 2", "order = [" + "'',\n" * 15_000 + "]"),
    "a line of blanks like a header": RECIPE + "x = [\n'''\n[" + " " * 60_000 + "\n''']\n",
    "a line of dashes like a key": RECIPE + "x = [\n'''\n" + "a-" * 30_000 + "\n''']\n",
    "a key of 60,000 letters": at_the_top("a" * 60_000 + " = 1"),
    "a value of 60,000 letters": at_the_top(RECIPE).replace("valid", "a" * 60_000),
    "a component of 60,000 letters": RECIPE.replace("linear", "a" * 60_000),
    "an integer of 5000 digits": at_the_top("seed = " + "9" * 5000),
    "a hexadecimal of 5000 digits": at_the_top("seed = 0x" + "f" * 5000),
    "an array of hexadecimals": at_the_top("seed = [0x" + "f" * 5000 + "]"),
    "a hexadecimal option of 5000 digits": RECIPE + "layer = 0x" + "f" * 5000 + "\n",
    "a fraction of 60,000 digits": RECIPE.replace("0.5", "9" * 4000 + "." + "9" * 50_000),
    "an exponent of 50,000 digits": RECIPE.replace("0.5", "1e" + "9" * 50_000),
    "a number of 4000 digits for a fraction": RECIPE.replace("0.5", "9" * 4000),
    "line break in a key": at_the_top('"a\\nb" = 1'),
    "line break in a table": RECIPE + '["a\\nb"]\n',
    "line break in an option": RECIPE + '"a\\nb" = 1\n',
    "line break in a component": RECIPE.replace("linear", "lin\\near"),
    "line break in a value": RECIPE.replace('"valid"', '"a\\nb"'),
    "line break in a base": at_the_top('extends = "a\\nb.toml"'),
    "escape sequence in a key": at_the_top('"\\u001b[31m" = 1'),
    "escape sequence in a component": RECIPE.replace("linear", "\\u001b[31mlinear"),
    "right-to-left mark in a component": RECIPE.replace("linear", "\\u202elinear"),
    "empty key": at_the_top('"" = 1'),
    "empty table": RECIPE + '[""]\n',
    "unknown table": RECIPE + "[memoryy]\n",
    "unknown key": RECIPE.replace("epochs", "epoch"),
    "unknown option": RECIPE + "wieght = 1\n",
    "keys like Python's own": RECIPE + "[__class__]\n__init__ = 1\n[training.first.model_fields]\n",
    "option like Python's own": RECIPE + "__pydantic_extra__ = { a = 1 }\nmodel_config = 1\nself = 1\n",
    "alias of `as`": RECIPE + "as_ = 'x'\n",
    "name that is a path": RECIPE.replace('"valid"', '"../../etc/passwd"'),
    "name that is an option": RECIPE.replace('"valid"', '"-rf"'),
    "component that is a path": RECIPE.replace('"linear"', '"../linear"'),
    "component of no name": RECIPE.replace('"linear"', '"/"'),
    "negative classes": RECIPE.replace("first = 2", "first = -2"),
    "too many classes": RECIPE.replace("first = 2", "first = 1000000"),
    "far too many classes": RECIPE.replace("first = 2", f"first = {10**30}"),
    "a step too large": RECIPE.replace("increment = 2", "increment = 1000001"),
    "a listed step too large": RECIPE.replace("increment = 2", "increment = [1000001]"),
    "more listed steps than classes": RECIPE.replace("increment = 2", f"increment = {[1] * 20_000}"),
    "steps of steps": RECIPE.replace("increment = 2", "increment = [[1], [1]]"),
    "an order of negative classes": RECIPE.replace("increment = 2", "order = [-1, -2]"),
    "an order of strange names": RECIPE.replace("increment = 2", 'order = ["\\u0007\\nbell", "B\\tag"]'),
    "an order of a strange name": RECIPE.replace("increment = 2", 'order = "\\u0007\\nbell"'),
    "an order of a long name": RECIPE.replace("increment = 2", f'order = ["{"x" * 5000}"]'),
    "an order of orders": RECIPE.replace("increment = 2", 'order = [["Bag"], ["Coat"]]'),
    "an order of hexadecimals": RECIPE.replace("increment = 2", "order = [0x" + "f" * 5000 + "]"),
    "an order of huge classes": RECIPE.replace("increment = 2", f"order = [{10**30}]"),
    "an empty order": RECIPE.replace("increment = 2", "order = []"),
    "a base that is a number": at_the_top("extends = 1"),
    "a base that is a list": at_the_top('extends = ["a.toml"]'),
    "a base of no name": at_the_top('extends = ""'),
    "a base above": at_the_top('extends = "../recipe.toml"'),
    "a base above in disguise": at_the_top('extends = "folder/../../recipe.toml"'),
    "an absolute base": at_the_top('extends = "/etc/passwd"'),
    "a base in a home": at_the_top('extends = "~/recipe.toml"'),
    "a base that is a folder": at_the_top('extends = "."'),
    "a base with a NUL": at_the_top('extends = "a\\u0000b.toml"'),
    "a base of 5000 letters": at_the_top(f'extends = "{"a" * 5000}.toml"'),
    "a base that is the recipe": at_the_top('extends = "recipe.toml"'),
    "plugins that are a word": at_the_top('plugins = "a.py"'),
    "plugins that are numbers": at_the_top("plugins = [1, nan]"),
    "101 plugins": at_the_top(f"plugins = {['a.py'] * 101}"),
    "a home of nobody": RECIPE.replace("fashion-mnist-mini", 'fashion-mnist"\nroot = "~nobody-at-all/x'),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_bad_content_is_refused_in_words(case):
    content = CONTENTS[case]
    Path("recipe.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    refusal()
    assert os.listdir() == ["recipe.toml"]


def test_a_byte_order_mark_is_called_by_its_name():
    Path("recipe.toml").write_bytes(CONTENTS["byte order mark"])
    assert "byte order mark" in refusal()


def test_the_largest_recipe_is_read():
    Path("recipe.toml").write_text(RECIPE + "#" * (MAX_BYTES - len(RECIPE)))
    assert check("recipe.toml")
    Path("recipe.toml").write_text(RECIPE + "#" * (MAX_BYTES - len(RECIPE) + 1))
    assert refusal() == "recipe.toml: larger than 64 KiB; a recipe is a short text file"


@pytest.mark.parametrize("name", ["gone.py", ".", "..", "/etc/passwd", "a\0b.py", "a\nb.py", "", "a" * 5000 + ".py"])
def test_a_plugin_that_is_no_file_is_refused_in_one_line(name):
    Path("recipe.toml").write_text(tomli_w.dumps({"plugins": [name]}) + RECIPE)
    with pytest.raises(UserError, match=r"\A[^\n]*: no such plug-in file; [^\n]*\Z"):
        check("recipe.toml")


@pytest.mark.parametrize(
    "code", ["raise SystemExit(0)", "1 / 0", "def (", "\0", "import gone_for_good", "raise Exception('a\\nb')", ""]
)
def test_a_plugin_that_fails_is_refused_in_one_line(code):
    Path("broken.py").write_text(code)
    Path("recipe.toml").write_text('plugins = ["broken.py"]\n' + RECIPE)
    with pytest.raises(UserError, match=r"\Abroken\.py: [^\n]*\Z"):
        check("recipe.toml")


# --- paths -------------------------------------------------------------------------------------------------------


def outside(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    (folder / "base.toml").write_text(RECIPE)
    return folder


def test_a_file_that_is_not_there_is_refused():
    assert refusal("gone.toml") == "gone.toml: no such file; `lwmfw recipes` lists the shipped ones"


def test_what_is_no_regular_file_is_refused_unread():
    os.mkfifo("fifo.toml")
    Path("folder.toml").mkdir()
    for path in ("fifo.toml", "folder.toml", "/dev/zero"):
        assert refusal(path) == f"{path}: it is no regular file"


def test_a_file_that_cannot_be_read_is_refused():
    assert refusal("/proc/self/mem").startswith("/proc/self/mem: ")


def test_a_link_to_itself_is_refused():
    Path("loop.toml").symlink_to("loop.toml")
    assert refusal("loop.toml") == "loop.toml: no such file can be read; it is a link to itself or no file name"


def test_a_path_that_no_file_can_have_is_refused():
    for path in ("a" * 5000, "a\0b", ""):
        with pytest.raises(UserError):
            load_recipe(path)


def test_a_base_behind_a_link_to_outside_is_refused(tmp_path_factory):
    Path("base.toml").symlink_to(outside(tmp_path_factory) / "base.toml")
    Path("recipe.toml").write_text('extends = "base.toml"')
    assert refusal() == ("recipe.toml:1: extends: 'base.toml' leaves the folder of the recipe; move the base into it")


def test_a_base_in_a_linked_folder_outside_is_refused(tmp_path_factory):
    Path("bases").symlink_to(outside(tmp_path_factory), target_is_directory=True)
    Path("recipe.toml").write_text('extends = "bases/base.toml"')
    assert "leaves the folder of the recipe" in refusal()


def test_a_base_that_is_a_pipe_or_a_link_to_itself_is_refused_unread():
    os.mkfifo("pipe.toml")
    Path("loop.toml").symlink_to("loop.toml")
    for base, fault in (("pipe.toml", "no file {} beside the recipe"), ("loop.toml", "{} is no file name")):
        Path("recipe.toml").write_text(f'extends = "{base}"')
        assert refusal().startswith("recipe.toml:1: extends: " + fault.format(f"'{base}'") + "; write ")


def test_bases_that_extend_one_another_are_refused():
    Path("a.toml").write_text('extends = "b.toml"\n')
    Path("b.toml").write_text('extends = "c.toml"\n')
    Path("c.toml").write_text('extends = "a.toml"\n')
    assert refusal("a.toml") == "a.toml: extends itself through a.toml -> b.toml -> c.toml; break the cycle"


def test_a_base_is_held_to_the_same_limits():
    Path("recipe.toml").write_text('extends = "base.toml"')
    for content in (b"\xff", b"x" * (MAX_BYTES + 1), b"a." * 20_000 + b"a = 1", b"a = "):
        Path("base.toml").write_bytes(content)
        with pytest.raises(UserError, match=r"\Abase\.toml[^\n]*\Z"):
            check("recipe.toml")


def test_bases_of_many_keys_merge_in_time():
    many = "\n".join(f"k{number} = 1" for number in range(5000)) + "\n"
    Path("recipe.toml").write_text('extends = "base.toml"\n' + many)
    Path("base.toml").write_text(many)
    assert "k0: no such option" in refusal()


# --- settings ----------------------------------------------------------------------------------------------------

SETTINGS = [
    "", "=", "seed", "seed=", ".=1", "a..b=1", ".".join(["a"] * 20_000) + "=1", "a" * 60_000 + "=1",
    "seed=" + "9" * 5000, "seed=0x" + "f" * 5000, "seed=" + "[" * 5000, "seed=[" + "[" * 300 + "]" * 301,
    "seed=" + nested(200, "1"), "seed={" + ".".join(['""'] * 20_000) + "=1}", "seed=nan", "seed=1\nname='x'", "seed=\0",
    "seed='a\\nb'", "training.epochs=5\nseed=2", "a\nb=1", "\x1b[31m=1", "penalties=1", "penalties.0.weight=1",
    "penalties.L_D.a.b.c=1", "data=1", "data.use.x=1", "extends=recipe.toml", "name=../x", "plugins=[1]",
    "training.first=1", "training.first.lr=nan", "seed=2020-01-01", "__class__.x=1", "x=" + "a" * 70_000,
]  # fmt: skip


@pytest.mark.parametrize("text", SETTINGS, ids=lambda text: ascii(text[:20]))
def test_a_bad_setting_is_refused_in_words(text):
    Path("recipe.toml").write_text(RECIPE)
    with pytest.raises(UserError) as refused:
        check("recipe.toml", parse_settings([text]))
    assert str(refused.value).isprintable()
    assert str(refused.value).startswith("--set")
    assert len(str(refused.value)) < 1000


# --- the command line --------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "case",
    ["empty", "binary", "10 MB", "5000 brackets", "a hexadecimal of 5000 digits", "line break in a key", "unknown key"],
)
def test_the_command_line_answers_bad_content_with_exit_code_2(case):
    content = CONTENTS[case]
    Path("recipe.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused("recipe.toml", lwmfw_process if case == "5000 brackets" else lwmfw)
    assert os.listdir() == ["recipe.toml"]


@pytest.mark.timeout(120)
def test_the_command_line_answers_bad_paths_with_exit_code_2():
    os.mkfifo("pipe.toml")
    Path("folder.toml").mkdir()
    Path("loop.toml").symlink_to("loop.toml")
    for path in ("pipe.toml", "folder.toml", "loop.toml", "gone.toml", "a" * 5000):
        assert_refused(path)
    assert sorted(os.listdir()) == ["folder.toml", "loop.toml", "pipe.toml"]


def assert_refused(path, start=lwmfw):
    answer = start("check", path)
    assert "Traceback" not in answer.stderr, answer.stderr[-500:]
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(path[:50])
