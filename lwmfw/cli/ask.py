"""The verbs that only talk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lwmfw.cli import complete
from lwmfw.cli.letters import tell
from lwmfw.cli.options import PluginsOption, RecipeArgument, SeedOption, SetOption, load
from lwmfw.cli.table import print_table
from lwmfw.errors import UserError, harmless


def check(
    recipe: RecipeArgument,
    set_: SetOption = [],
    seed: SeedOption = None,
    plugins: PluginsOption = [],
) -> None:
    """Say whether a recipe would run, without its data."""
    from lwmfw.assembly.assemble import assemble
    from lwmfw.recipe.messages import dotted

    resolved = load(recipe, set_, seed, plugins)
    assemble(resolved)
    for keys, what in resolved.source.replaced.items():
        print(harmless(f"{resolved.source.place(keys)}: {dotted(keys)}: {what}"))
    print(harmless(f"{resolved.source.path}: ok"))


def show(
    recipe: RecipeArgument,
    set_: SetOption = [],
    seed: SeedOption = None,
    plugins: PluginsOption = [],
) -> None:
    """Print a recipe with its bases merged in and every default written out."""
    print(harmless(load(recipe, set_, seed, plugins).toml()), end="")


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Print this recipe.", autocompletion=complete.shipped_recipe)
    ] = None,
    copy: Annotated[Path | None, typer.Option(metavar="DIR", help="Copy it, with what it extends.")] = None,
) -> None:
    """List the shipped recipes, print one, or copy them."""
    from lwmfw.recipe import shipped

    if copy is not None:
        for path in shipped.copy(name, copy):
            print(harmless(str(path)))
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
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with --doctor.")] = False,
) -> None:
    """List the components that recipes can name, or one component's options."""
    if doctor:
        _tell_health(name, files, as_json=json)
        return
    if json:
        raise UserError("--json goes with --doctor; add it")
    from lwmfw.cli import manual
    from lwmfw.recipe.catalogue import discover

    catalogue = discover(files)
    if name:
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
) -> None:
    """List the moments at which a component can act, or one moment's manual."""
    from lwmfw.cli import manual

    if name:
        print(manual.hook_page(name))
    else:
        print_table(["hook", "arguments", "when"], manual.hook_rows())


def schema() -> None:
    """Print the JSON schema of recipes, with all installed components, for editors."""
    from lwmfw.recipe.catalogue import discover
    from lwmfw.recipe.schema import schema_text

    print(schema_text(discover()), end="")
