"""The verbs that give a finished run more classes, prove what that was worth, and take them away again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lwmfw.cli import complete, leave
from lwmfw.cli.letters import tell
from lwmfw.cli.options import Device, DeviceOption, JsonOption, LogOption, ResumeMode, RunArgument, SetOption
from lwmfw.cli.table import print_json, print_table
from lwmfw.errors import RunFailed, harmless

NewRun = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Directory of the run that is made.")]


def extend(
    run: RunArgument,
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="A folder of images for each new class.")],
    test: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Test images, of known classes too.")] = None,
    held_out: Annotated[
        float, typer.Option(help="Else this share of the new images is held out.", min=0.01, max=0.9)
    ] = 0.2,
    more: Annotated[bool, typer.Option("--more", help="Allow more images of known classes.")] = False,
    train: Annotated[bool, typer.Option("--train", help="Go on training as the recipe has it.")] = False,
    out: NewRun = None,
    set_: SetOption = [],
    device: DeviceOption = Device.AUTO,
    json: JsonOption = False,
    log: LogOption = None,
) -> None:
    """Add classes to a finished run from a folder of images; nothing of its old data is needed."""
    from lwmfw.api import execute
    from lwmfw.assembly.assemble import assemble
    from lwmfw.cli.log import check_heard, logged, tell_end
    from lwmfw.engine.opened import OpenedRun
    from lwmfw.recipe.settings import parse_settings
    from lwmfw.using.extend import Extension, extended
    from lwmfw.using.outcome import outcome

    began = time.perf_counter()
    with logged(log):
        wanted = Extension(data, test, held_out, more, train, parse_settings(set_))
        resolved = extended(OpenedRun(run), wanted)
        check_heard(log, resolved.tables())
        done = execute(assemble(resolved), out, device.value, ResumeMode.AUTO.value)
        tell_end(done)
    seconds = time.perf_counter() - began
    leave.leave(done, lambda: _print(outcome(done, seconds), json))


def adopt(
    weights: Annotated[Path, typer.Option(metavar="FILE", help="A .safetensors file, or .pth with a state_dict.")],
    backbone: Annotated[
        str, typer.Option(help="The component whose network it is: torchvision, timm, ...")
    ] = "torchvision",
    model: Annotated[str, typer.Option(help="Which of its models, as in resnet18.")] = "",
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names of the classes, a line each, in the order of the outputs."),
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="FOLDER", help="A folder of some images for each class.")] = None,
    recipe: Annotated[
        str, typer.Option(metavar="RECIPE", help="What the run is to have besides.", autocompletion=complete.recipe)
    ] = "adopted",
    out: NewRun = None,
    set_: SetOption = [],
    device: DeviceOption = Device.AUTO,
    json: JsonOption = False,
) -> None:
    """Make a finished run of one step out of a model that was trained anywhere."""
    from lwmfw.recipe.settings import parse_settings
    from lwmfw.using.adopt import Adoption, adopted
    from lwmfw.using.outcome import outcome

    chosen = {"backbone.use": backbone} | ({"backbone.model": model} if model else {})
    began = time.perf_counter()
    wanted = Adoption(weights, classes, data, recipe, chosen | parse_settings(set_))
    done = adopted(wanted, out, device.value, tell)
    seconds = time.perf_counter() - began
    leave.leave(done, lambda: _print(outcome(done, seconds), json))


def verify(
    run: RunArgument,
    data: Annotated[
        list[Path], typer.Option(metavar="FOLDER", help="Where its images are now, oldest first. Repeatable.")
    ] = [],
    device: DeviceOption = Device.AUTO,
    json: JsonOption = False,
) -> None:
    """Recompute what a run knows from all its images at once, and compare to the bit."""
    from lwmfw.engine.opened import OpenedRun
    from lwmfw.using.verify import verified

    verdicts, images = verified(OpenedRun(run), data, device.value, tell)
    shorts = [[v.readout, "equal" if v.equal else "differs", v.kept[:16], v.found[:16]] for v in verdicts]
    rows = [[*row, f"{v.difference:.1e}"] for row, v in zip(shorts, verdicts, strict=True)]
    if json:
        print_json([vars(v) | {"equal": v.equal, "images_at_once": images} for v in verdicts])
    else:
        header = ["read-out", "statistics", "of the run", f"of {images} images at once", "difference"]
        print_table(header, rows, kept=len(header))
    wrong = [v for v in verdicts if not v.equal]
    if wrong:
        names = ", ".join(v.readout for v in wrong)
        same = wrong[0].images == images
        counted = (
            "the images are others" if same else f"it has learned from {wrong[0].images} images, these are {images}"
        )
        raise RunFailed(f"{run}: the statistics of {names} are not those of all images at once; {counted}")


def merge(
    one: RunArgument,
    two: Annotated[
        Path, typer.Argument(metavar="RUN", help="Another, of the same backbone.", autocompletion=complete.run)
    ],
    base: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The run that both go on from.", autocompletion=complete.run)
    ] = None,
    out: NewRun = None,
    json: JsonOption = False,
) -> None:
    """Make one run of two that learned apart on one backbone: their sums are added."""
    from lwmfw.engine.opened import OpenedRun
    from lwmfw.using.keep import keep
    from lwmfw.using.merge import merged
    from lwmfw.using.outcome import outcome

    began, opened = time.perf_counter(), OpenedRun(one)
    run = merged(opened, OpenedRun(two), OpenedRun(base) if base else None)
    keep(run, out, opened.checkpoint().facts["arithmetic"])
    said = outcome(run, time.perf_counter() - began)
    leave.leave(run, lambda: _print_certificates(said, json))


def retract(
    run: RunArgument,
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Class folders of the images that are taken out.")],
    out: NewRun = None,
    device: DeviceOption = Device.AUTO,
    json: JsonOption = False,
) -> None:
    """Take images out of a run's sums again; the backbone stays as it is."""
    from lwmfw.engine.opened import OpenedRun
    from lwmfw.using.keep import keep
    from lwmfw.using.outcome import outcome
    from lwmfw.using.retract import retracted

    began, opened = time.perf_counter(), OpenedRun(run)
    left = retracted(opened, data, device.value, tell)
    keep(left, out, opened.checkpoint().facts["arithmetic"])
    said = outcome(left, time.perf_counter() - began)
    leave.leave(left, lambda: _print_certificates(said, json))


def _print(said: dict[str, Any], json: bool) -> None:
    from lwmfw.using.outcome import table

    if not json:
        header, rows = table(said)
        print_table(header, rows, kept=len(header))
        print()
    _print_certificates(said, json)


def _print_certificates(said: dict[str, Any], json: bool) -> None:
    from lwmfw.using.outcome import certificates

    if json:
        print_json(said)
    else:
        print(harmless("\n".join(certificates(said))))
