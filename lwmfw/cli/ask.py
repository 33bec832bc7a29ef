"""The verbs that only talk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lwmfw.cli import complete
from lwmfw.cli.letters import tell
from lwmfw.cli.options import JsonOption, PluginsOption, RecipeArgument, SeedOption, SetOption, load
from lwmfw.cli.table import print_json, print_table
from lwmfw.errors import UserError, harmless


def check(
    recipe: RecipeArgument,
    set_: SetOption = [],
    seed: SeedOption = None,
    plugins: PluginsOption = [],
    json: JsonOption = False,
) -> None:
    """Say whether a recipe would run, without its data."""
    from lwmfw.assembly.assemble import assemble
    from lwmfw.recipe.messages import dotted

    resolved = load(recipe, set_, seed, plugins)
    assemble(resolved)
    source = resolved.source
    replaced = [{"place": source.place(k), "key": dotted(k), "what": what} for k, what in source.replaced.items()]
    if json:
        print_json({"recipe": str(source.path), "ok": True, "replaced": replaced})
        return
    for keys, what in source.replaced.items():
        print(harmless(source.behind_place(keys, f"{dotted(keys)}: {what}")))
    print(harmless(f"{source.path}: ok"))


def show(
    recipe: RecipeArgument,
    set_: SetOption = [],
    seed: SeedOption = None,
    plugins: PluginsOption = [],
    json: JsonOption = False,
) -> None:
    """Print a recipe with its bases merged in and every default written out."""
    resolved = load(recipe, set_, seed, plugins)
    if json:
        print_json(resolved.tables())
    else:
        print(harmless(resolved.toml()), end="")


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Print this recipe.", autocompletion=complete.shipped_recipe)
    ] = None,
    copy: Annotated[Path | None, typer.Option(metavar="DIR", help="Copy it, with what it extends.")] = None,
    json: JsonOption = False,
) -> None:
    """List the shipped recipes, print one, or copy them."""
    from lwmfw.recipe import shipped

    if copy is not None:
        copied = [str(path) for path in shipped.copy(name, copy)]
        if json:
            print_json(copied)
        else:
            print(harmless("\n".join(copied)))
    elif json:
        found = {name: shipped.find(name)} if name else shipped.recipes()
        print_json([{"name": n, "purpose": shipped.purpose(path), "file": str(path)} for n, path in found.items()])
    elif name:
        print(shipped.find(name).read_text(encoding="utf-8"), end="")
    else:
        print_table(["recipe", "purpose"], [[key, shipped.purpose(path)] for key, path in shipped.recipes().items()])


def plugins(
    name: Annotated[
        str | None, typer.Argument(help="Print the options of this component.", autocompletion=complete.component)
    ] = None,
    files: PluginsOption = [],
    doctor: Annotated[bool, typer.Option("--doctor", help="Say what is wrong with plug-ins and environment.")] = False,
    json: JsonOption = False,
) -> None:
    """List the components that recipes can name, or one component's options."""
    if doctor:
        _tell_health(name, files, as_json=json)
        return
    from lwmfw.cli import manual
    from lwmfw.recipe.catalogue import discover

    catalogue = discover(files)
    if json and name:
        print_json([manual.manual_json(component) for component in manual.named(catalogue, name)])
    elif json:
        print_json([manual.component_json(component) for component in manual.sorted_components(catalogue)])
    elif name:
        for component in manual.named(catalogue, name):
            print(harmless(f"{component.kind} {component.name}, from {component.provider}: {component.summary}\n"))
            head = manual.about(component)
            print(harmless(f"{head}\n" if head else ""))
            print_table(["option", "type", "default", "meaning"], manual.option_rows(component))
            print()
            print_table(["trait", "type", "here", "meaning"], manual.trait_rows(component))
    else:
        rows = [[c.kind, c.name, str(c.provider), c.summary] for c in manual.sorted_components(catalogue)]
        print_table(["kind", "name", "from", "what it is"], rows)
    for failure in catalogue.failures:
        tell(str(failure))


def _tell_health(name: str | None, files: list[Path], *, as_json: bool) -> None:
    from lwmfw.cli.doctor import tell_health

    if name:
        raise UserError("--doctor examines every plug-in; leave the name out")
    tell_health(files, as_json=as_json)


def hooks(
    name: Annotated[str | None, typer.Argument(help="Print this hook's manual.", autocompletion=complete.hook)] = None,
    json: JsonOption = False,
) -> None:
    """List the moments at which a component can act, or one moment's manual."""
    from lwmfw.cli import manual
    from lwmfw.hookspecs import SPECS

    if json:
        print_json([manual.hook_json(each) for each in ([name] if name else SPECS)])
    elif name:
        print(manual.hook_page(name))
    else:
        print_table(["hook", "arguments", "when"], manual.hook_rows())


def schema() -> None:
    """Print the JSON schema of recipes, with all installed components, for editors."""
    from lwmfw.recipe.catalogue import discover
    from lwmfw.recipe.schema import schema_text

    print(schema_text(discover()), end="")
