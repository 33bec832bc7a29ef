"""The pages of the site that are read off the code: hooks, components, recipes, commands, names of the library.

    python docs/generate.py

writes them to docs/reference/, where conf.py has them written for every build.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer
from markup import code, fenced, joined, prose, said, table, toctree, told
from pydantic import BaseModel
from typer.cli import get_docs_for_click

import lwmfw
from lwmfw import hookspecs, loop, testing
from lwmfw.assembly.calls import marker
from lwmfw.cli import manual
from lwmfw.cli.verbs import app
from lwmfw.components import KINDS, Component
from lwmfw.hookspecs import OWN, RUN_HOOKS, SPECS, own
from lwmfw.recipe import shipped
from lwmfw.recipe.catalogue import discover
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.tables import Evaluation, MemoryTable, Origin, Recipe, Scenario, Training
from lwmfw.record.files import write_text

ROOT = Path(__file__).parent.parent
CATALOGUE = discover(installed=True)
SHIPPED = [component for component in manual.sorted_components(CATALOGUE) if component.provider.name == "lwmfw"]
COMPONENTS, HOOKS, RECIPES = "/reference/components", "/reference/hooks", "/reference/recipes"


def write(folder: Path) -> None:
    """Write every page below a folder, but those that are there already, and remove what is none."""
    wanted = {folder / f"{name}.md": text for name, text in pages()}
    for path in set(folder.rglob("*.md")) - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)  # another build may be reading


def pages() -> Iterator[tuple[str, str]]:
    """Name, without its suffix, and text of each page."""
    yield "hooks/index", hooks_page()
    for hook in SPECS:
        yield f"hooks/{hook}", hook_page(hook)
    yield "components/index", components_page()
    used = users()
    for kind in KINDS:
        yield f"components/{kind.kind}/index", kind_page(kind)
    for component in SHIPPED:
        yield f"components/{component.kind}/{component.name}", component_page(component, used)
    yield "recipes/index", recipes_page()
    for folder, names in folders().items():
        yield f"recipes/{page_of(folder)}", folder_page(folder, names)
    yield "keys", keys_page()
    yield "commands", commands_page()
    yield "api", api_page()
    for name in ("CONTRIBUTING", "CHANGELOG"):
        yield name.lower(), site_links((ROOT / f"{name}.md").read_text(encoding="utf-8"), ROOT)


# Links


def site_links(text: str, folder: Path) -> str:
    """A page of the repository with its links as the site has them.

    Links to pages lead to them, those to a component's README to its page; of anything else that the repository has
    the words are left. What is not there is left as it is, for Sphinx to complain of.
    """

    def moved(found: re.Match[str]) -> str:
        words, target, anchor = found.groups()
        path = (folder / target).resolve()
        if not path.is_relative_to(ROOT) or not path.exists():
            return found[0]
        place = path.relative_to(ROOT).as_posix()
        if place.startswith("docs/") and place.endswith(".md"):
            words = "" if words.endswith(".md") else words  # then Sphinx puts the title there
            return f"[{words}]({place.removeprefix('docs')}{anchor or ''})"
        if place in ("CONTRIBUTING.md", "CHANGELOG.md"):
            return f"[{words}](/reference/{place.lower()})"
        component = re.fullmatch(r"plugins/lwmfw_plugins/\w+/(\w+)/README\.md", place)
        kinds = [c.kind for c in SHIPPED if component and c.name == component[1]]
        return f"[{words}]({COMPONENTS}/{kinds[0]}/{component[1]}.md)" if component and kinds else words

    return re.sub(r"(?<!!)\[([^\[\]\n]+)\]\((?!https?:|/|#)([^\s()#]+)(#[^\s()]*)?\)", moved, text)


# Hooks


def hooks_page() -> str:
    rows = [
        [f"[`{name}`]({HOOKS}/{name}.md)", ", ".join(map(code, arguments.split(", ") if arguments else [])), said(when)]
        for name, arguments, when in manual.hook_rows()
    ]
    return joined(
        "# Hooks",
        "Moments of a run at which a component can act. A component of any kind may implement any hook, as a method "
        "marked `@hookimpl` that takes the arguments it wants, by name. [Write a plug-in](/plugins.md) has examples; "
        "`lwmfw hooks NAME` prints what these pages say.",
        table(["hook", "arguments", "when"], rows),
        "## The life cycle",
        fenced(told(loop)),
        toctree(*(f"{name}" for name in SPECS)),
    )


def hook_page(name: str) -> str:
    documented = joined(f"# `{name}`", fenced(f".. autofunction:: lwmfw.hookspecs.{name}", "{eval-rst}"))
    if name not in RUN_HOOKS:
        return documented
    asked = "the first answer that is not None counts" if first_result(name) else "every component is asked"
    return joined(
        documented,
        f"Called in the order of the recipe; {asked}. Offered besides the arguments above: "
        + "; ".join(f"`{argument}`, {said(OWN[argument])}" for argument in own(name))
        + ".",
        "## Who implements it",
        listed(c for c in SHIPPED if name in hooks_of(c)),
    )


def first_result(name: str) -> bool:
    """Whether a hook has one answer."""
    return bool(getattr(hookspecs, name).lwmfw_spec["firstresult"])


def hooks_of(component: Component) -> list[str]:
    """The hooks that a component implements, in the order of a run."""
    return [hook for hook in RUN_HOOKS if hasattr(component.made_by, hook) and marker(component.made_by, hook)]


# Components


def listed(components: Iterable[Component]) -> str:
    """Components as a table with links."""
    rows = [[linked(c), said(c.summary)] for c in components]
    return table(["component", "what it is"], rows) if rows else "None of the shipped ones."


def of_kind(kind: type[Component]) -> list[Component]:
    return [component for component in SHIPPED if component.kind == kind.kind]


def linked(component: Component) -> str:
    return f"[`{component.name}`]({COMPONENTS}/{component.kind}/{component.name}.md)"


def components_page() -> str:
    parts = []
    for kind in KINDS:
        parts += [f"## [{kind.kind}]({COMPONENTS}/{kind.kind}/index.md)", listed(of_kind(kind))]
    return joined(
        "# Components",
        "What a recipe can name, by kind. `lwmfw plugins` lists the same, with those that others have installed.",
        *parts,
        toctree(*(f"{kind.kind}/index" for kind in KINDS)),
    )


def kind_page(kind: type[Component]) -> str:
    members = of_kind(kind)
    return joined(
        f"# {kind.kind}",
        f"Chosen in `{kind.heading()}` of a recipe; registered as `lwmfw.{kind.__name__}`.",
        prose(told(kind)),
        listed(members),
        "[Write a plug-in](/plugins.md) has a complete file of this kind.",
        toctree(*(c.name for c in members)),
    )


def component_page(component: Component, used: dict[tuple[str, str], list[str]]) -> str:
    recipes = used.get((component.kind, component.name), [])
    hooks = ", ".join(f"[`{hook}`]({HOOKS}/{hook}.md)" for hook in hooks_of(component))
    return joined(
        f"# `{component.name}`",
        f"{said(component.summary)} Its kind: [{component.kind}]({COMPONENTS}/{component.kind}/index.md).",
        fenced(as_written(component), "toml"),
        prose(manual.about(component)),
        "## Options",
        keys_table(component.options) if manual.option_rows(component) else "None.",
        "## What it says of itself",
        table(
            ["trait", "type", "here", "meaning"],
            [[code(a), said(b), code(c), said(d)] for a, b, c, d in manual.trait_rows(component)],
        ),
        f"Hooks that it implements: {hooks}." if hooks else "",
        papers_of(component),
        "## Recipes that use it",
        ", ".join(map(recipe_link, recipes)) if recipes else "None of the shipped ones.",
        readme(component),
    )


def as_written(component: Component) -> str:
    """The lines of a recipe that name it."""
    table_, _, key = component.table.rpartition(".")
    if table_ and not component.listed:
        return f'[{table_}]\n{key} = {{ use = "{component.name}" }}'
    return f'{component.heading()}\nuse = "{component.name}"'


def papers_of(component: Component) -> str:
    """The rows of docs/papers.md that name a component."""
    lines = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("| method |"))
    rows = [line for line in lines[start + 2 :] if f"`{component.name}`" in line.partition(" | ")[0]]
    return "\n".join(["## Paper\n", *lines[start : start + 2], *rows]) if rows else ""


def readme(component: Component) -> str:
    """What lies beside a large component, without its title, which is the page's."""
    source = Path(sys.modules[component.made_by.__module__].__file__ or "").parent
    path = source / "README.md"
    if source.name != component.name or not path.exists():
        return ""
    return joined("## In detail", site_links(path.read_text(encoding="utf-8").partition("\n")[2].strip(), source))


# Recipes


def users() -> dict[tuple[str, str], list[str]]:
    """Kind and name of a component -> the shipped recipes that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, path in shipped.recipes().items():
        for chosen in load_recipe(path, catalogue=CATALOGUE).chosen:
            recipes = found.setdefault((chosen.component.kind, chosen.component.name), [])
            recipes += [name] if name not in recipes else []
    return found


def folders() -> dict[str, list[str]]:
    """Folder of recipes, "" for none, -> their names."""
    found: dict[str, list[str]] = {}
    for name in shipped.recipes():
        found.setdefault(name.rpartition("/")[0], []).append(name)
    return found


def page_of(folder: str) -> str:
    return folder.replace("/", "-") or "shipped"


def recipe_link(name: str) -> str:
    return f"[`{name}`](#{_target(name)})"


def _target(name: str) -> str:
    return f"recipe-{name.replace('/', '-')}"


def recipes_page() -> str:
    parts = []
    for folder, names in folders().items():
        rows = [[recipe_link(name), said(shipped.purpose(shipped.recipes()[name]))] for name in names]
        parts += [f"## {folder or ', '.join(names)}", table(["recipe", "purpose"], rows)]
    return joined(
        "# Recipes",
        "What is shipped, with what each costs and came to, as its head says. `lwmfw run NAME` runs one, "
        "`lwmfw recipes NAME` prints it, `lwmfw recipes NAME --copy DIR` copies it with what it extends.",
        *parts,
        toctree(*map(page_of, folders())),
    )


def folder_page(folder: str, names: list[str]) -> str:
    return joined(
        f"# {folder or ', '.join(names)}",
        *(recipe_section(name, shipped.recipes()[name].read_text(encoding="utf-8")) for name in names),
    )


def recipe_section(name: str, text: str) -> str:
    """A recipe: what its head says, and its lines."""
    purpose, fields, rest, body = recipe_parts(text)
    told = [f"**{label}** {said(what)}" for label, what in fields if label != "command"]
    commands = [fenced(what, "sh") for label, what in fields if label == "command"]
    return joined(
        f"({_target(name)})=\n## `{name}`", said(purpose), *commands, *told, prose(rest), fenced(body, "toml")
    )


def recipe_parts(text: str) -> tuple[str, list[tuple[str, str]], str, str]:
    """Purpose, labelled lines (command, cost, result, ...), other words and lines of a recipe."""
    lines = [line for line in text.strip().splitlines() if not line.startswith("#:")]
    end = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    head = [line.removeprefix("#").removeprefix(" ").rstrip() for line in lines[:end]]
    fields: list[tuple[str, str]] = []
    rest: list[str] = []
    for line in head[1:]:
        label = re.match(r"(\w+): +(.*)", line)
        if label and not any(rest):
            fields.append((label[1], label[2]))
        elif fields and not any(rest) and line.startswith("  "):
            fields[-1] = (fields[-1][0], f"{fields[-1][1]} {line.strip()}")
        else:
            rest.append(line)
    return head[0], fields, "\n".join(rest), "\n".join(lines[end:]).strip()


# Keys, commands and names


def keys_page() -> str:
    tables = [(Recipe, "At the top"), (Scenario, "[scenario]"), (Training, "[training]"), (MemoryTable, "[memory]")]
    tables += [(Evaluation, "[evaluation]"), (Origin, "[origin]")]
    return joined(
        "# Keys of a recipe",
        "A table that chooses a component (`use = NAME`) has the options of that component besides, which stand on "
        "[its page](/reference/components/index.md). `lwmfw show RECIPE` prints a recipe with every key written out, "
        "`lwmfw schema` all keys for editors.",
        *(part for table_, title in tables for part in (f"## {said(title)}", prose(told(table_)), keys_table(table_))),
        "`[training.first]` has keys of `[training]` for the first step alone; `--set training.KEY` wins over both.",
    )


def keys_table(table_: type[BaseModel]) -> str:
    rows = [row for row in manual.field_rows(table_) if row[3]]
    return table(["key", "type", "default", "meaning"], [[code(a), code(b), code(c), said(d)] for a, b, c, d in rows])


def commands_page() -> str:
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="lwmfw")
    verbs = [group.get_command(context, name) for name in group.list_commands(context)]
    return joined(
        "# Command line",
        "`python -m lwmfw` is the same as `lwmfw`. Results go to standard output, progress and errors to standard "
        "error. The files of a run directory are in [results](/results.md), the exit codes in [resume](/resume.md).",
        *(get_docs_for_click(obj=verb, ctx=context, indent=1, call_prefix="lwmfw").strip() for verb in verbs),
    )


API = {
    "api": "Running recipes",
    "components": "Records of components, and options",
    "hookspecs": "Records of components, and options",
    "data": "Images",
    "model": "Networks and their outputs",
    "memory": "Exemplars",
    "recipe": "Steps, phases, budgets",
    "engine": "The run",
    "record": "Results",
    "showing": "Pages and pictures",
    "errors": "Errors and messages",
}
"""Room of the code -> the heading under which its public names stand."""


def api_page() -> str:
    sections: dict[str, list[str]] = {}
    for name, home in lwmfw._homes().items():
        if home.startswith("lwmfw."):
            sections.setdefault(API[home.split(".")[1]], []).append(_documented(f"lwmfw.{name}", getattr(lwmfw, name)))
    kit = [
        _documented(f"lwmfw.testing.{name}", getattr(testing, name))
        for name in testing.__all__
        if callable(getattr(testing, name))
    ]
    return joined(
        "# Python",
        "All names that `lwmfw` makes public; a plug-in needs no others. `Field`, for the fields of `Options`, is "
        "pydantic's.",
        *(f"## {title}\n\n{fenced(chr(10).join(names), '{eval-rst}')}" for title, names in sections.items()),
        f"## The kit for authors, lwmfw.testing\n\n{fenced(chr(10).join(kit), '{eval-rst}')}",
    )


def _documented(name: str, what: object) -> str:
    if isinstance(what, type):
        return f".. autoclass:: {name}\n   :members:\n"
    return f".. auto{'function' if callable(what) else 'data'}:: {name}\n"


if __name__ == "__main__":
    write(ROOT / "docs" / "reference")
