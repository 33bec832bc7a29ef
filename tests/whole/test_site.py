"""The site of docs/: built without a warning, read off the code where that knows, and nothing of it from elsewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers import ROOT

from lwmfw.cli.verbs import VERBS
from lwmfw.hookspecs import SPECS
from lwmfw.recipe import shipped
from lwmfw.recipe.catalogue import discover, load_file

ELSEWHERE = re.compile(r"https?://|//")
SOMEBODYS = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|usr|work|Users|mnt)/")
"""A path of the machine that the page was written on."""


class Page(HTMLParser):
    """What a page of the site refers to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.assets, self.images = [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in ("a", "form"):
            self.links.append(attributes.get("href") or attributes.get("action", ""))
        elif tag in ("link", "script", "img", "iframe"):
            self.assets += [value for key in ("href", "src") if (value := attributes.get(key))]
        if tag == "img":
            self.images.append(attributes)


@pytest.fixture(scope="module")
def generate():
    sys.path.insert(0, str(ROOT / "docs"))
    yield load_file(ROOT / "docs" / "generate.py")
    sys.path.remove(str(ROOT / "docs"))


def test_a_recipes_head_is_read_as_it_is_meant(generate):
    text = """#:schema recipe.json
# What it is for
#
# command: lwmfw run it
# cost:    a minute,
#          or two
# protocols:
#   10 x 10    as it stands
#
# More: of this.
name = "it"

[data]
"""
    purpose, fields, rest, body = generate.recipe_parts(text)
    assert purpose == "What it is for"
    assert fields == [("command", "lwmfw run it"), ("cost", "a minute, or two")]
    assert rest.strip() == "protocols:\n  10 x 10    as it stands\n\nMore: of this."
    assert body == 'name = "it"\n\n[data]'


def test_links_of_the_repository_lead_to_pages_or_are_words_or_are_left_to_be_complained_of(generate):
    def moved(text):
        return generate.site_links(text, ROOT / "docs")

    assert moved("[a run](results.md#resultsjson)") == "[a run](/results.md#resultsjson)"
    assert moved("see [lwm.md](lwm.md)") == "see [](/lwm.md)"
    assert moved("[`der`](../plugins/lwmfw_plugins/backbones/der/README.md)") == (
        "[`der`](/reference/components/backbone/der.md)"
    )
    assert moved("[an example](../plugins/example) and [paper](https://arxiv.org)") == (
        "an example and [paper](https://arxiv.org)"
    )
    assert moved("[gone](gone.md)") == "[gone](gone.md)"


def test_words_of_the_code_are_shown_as_they_are(generate):
    markup = sys.modules["markup"]
    assert markup.said("a* of [x] by `a*`") == r"a\* of \[x\] by `a*`"
    assert markup.table(["a"], [['"x" | "y"']]) == '| a |\n| --- |\n| "x" \\| "y" |'
    assert markup.prose("one\n\n    x = y\n\ntwo") == "one\n\n\n```text\n    x = y\n```\n\ntwo"


@pytest.mark.slow
def test_every_hook_component_recipe_option_and_verb_has_its_place(generate):
    pages = dict(generate.pages())
    assert {f"hooks/{hook}" for hook in SPECS} <= pages.keys()
    for component in discover().components:
        if component.provider.name == "lwmfw":
            page = pages[f"components/{component.kind}/{component.name}"]
            for name, field in component.options.model_fields.items():
                assert f"| `{field.alias or name}` |" in page
    recipes = "".join(text for name, text in pages.items() if name.startswith("recipes/"))
    for name, path in shipped.recipes().items():
        assert f"\n## `{name}`\n" in recipes
        assert path.read_text().strip().splitlines()[-1] in recipes
    assert r"| `increment` | `integer \| array of integer` | `0` |" in pages["keys"]
    for verb in VERBS:
        assert f"## `lwmfw {verb.__name__}`" in pages["commands"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_site_is_built_without_a_warning_and_whole(tmp_path):
    pytest.importorskip("furo")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "-j", "2", "-b", "html", ROOT / "docs", tmp_path]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    site = {path: Page(path) for path in tmp_path.rglob("*.html")}
    reached, left = set(), [tmp_path / "index.html"]
    while left:
        path = left.pop()
        if path in site and path not in reached:
            reached.add(path)
            links = (link.partition("#")[0] for link in site[path].links if not ELSEWHERE.match(link))
            left += [Path(path.parent, link).resolve() for link in links if link]
    assert reached == set(site), "every page is reached from the first"
    for path, page in site.items():
        assert not [asset for asset in page.assets if ELSEWHERE.match(asset)], "nothing is fetched from elsewhere"
        assert all(image.get("alt") for image in page.images)
        text = path.read_text(encoding="utf-8")
        assert not SOMEBODYS.search(text), path
        assert str(ROOT) not in text


@pytest.mark.slow
def test_what_is_read_off_the_code_is_not_shipped(generate):
    from hatchling.builders.sdist import SdistBuilder

    generate.write(ROOT / "docs" / "reference")
    files = {file.distribution_path for file in SdistBuilder(str(ROOT)).recurse_included_files()}
    assert {"docs/index.md", "docs/conf.py"} <= files
    assert not [name for name in files if name.startswith(("docs/reference", "docs/_build"))]
