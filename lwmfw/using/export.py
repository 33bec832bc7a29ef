"""What a run has learned as one file for other programs: pixels in, scores out, held against the run before it stays.

The file has normalisation, backbone and read-out inside, which compute in float32; beside them, as JSON, what a program
has to know: the names of the classes, and how an image becomes the pixels.
"""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.run import Run
from lwmfw.engine.telling import told_in_words
from lwmfw.errors import DiskFailed, RunFailed, UserError, describe
from lwmfw.model.growing import evaluating, full_precision
from lwmfw.record.files import write_bytes
from lwmfw.using.predict import chosen_readout

Format = Literal["onnx", "pt2"]
Scores = Callable[[Tensor], Tensor]

TOLERANCE = 1e-4
"""How far a file's scores may be from the run's, in units of the largest score."""

IMAGES = 100

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_NOISY = ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    Attributes:
        path: where it lies.
        bytes: how many it has.
        difference: of its scores from the run's, the largest, in units of the largest score.
    """

    path: Path
    bytes: int
    difference: float


class Deciding(nn.Module):
    """Images (N, C, size, size), uint8, to the scores (N, classes) of a read-out.

    Backbone and read-out are asked themselves, past the checks of their answers, which would fix N.
    """

    def __init__(self, run: Run, readout: str) -> None:
        super().__init__()
        self.model, self.normalise = run.model, run.loader.normalise
        self.scores: Scores = run.assembly.of_kind("readout")[readout].instance.scores

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        return self.scores(self.model.backbone(self.normalise(images)).features.float())


def export(opened: OpenedRun, form: Format, readout: str = "", out: Path | None = None) -> Exported:
    """Write a read-out of a run with all that comes before it, read the file again and hold it against the run.

    Args:
        opened: the run.
        form: onnx, for ONNX Runtime and what else reads that; pt2, for `torch.export.load`.
        readout: which one decides; by default the first of the recipe.
        out: the file; by default `export.onnx` or `export.pt2` in the run directory, in the place of an earlier one.

    Raises:
        UserError: no run or no such read-out, a file that is there already, or a package is missing.
        RunFailed: the network cannot be written in this form, or the file does not decide as the run does.
        DiskFailed: the disk is full, or fails.
    """
    _check_installed(form)
    readout = chosen_readout(opened, readout)
    path = _place(opened, form, out)
    run = opened.as_left("cpu")
    run.model.requires_grad_(False)
    facts = facts_of(opened, readout, run.assembly.of_kind("readout")[readout].trait("probability"))
    unchecked = path.with_name(f"{path.name}.unchecked")
    with told_in_words(run.assembly, opened.path):
        asked = Asked.of(run, readout)
    try:
        with _told(opened, readout, form), _quiet():
            write_bytes(unchecked, _WRITE[form](_traced(run, readout, asked.images[:2]), json.dumps(facts)), named=True)
            difference = asked.held_against(*_READ[form](unchecked), facts)
        size = unchecked.stat().st_size
        unchecked.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from error
    finally:
        with suppress(OSError):
            unchecked.unlink()
    return Exported(path, size, difference)


def _check_installed(form: Format) -> None:
    missing = [name for name in _NEEDED if form == "onnx" and find_spec(name) is None]
    if missing:
        raise UserError(f'--format onnx: {missing[0]} is not installed; pip install "lwmfw[onnx]"')


def _place(opened: OpenedRun, form: Format, out: Path | None) -> Path:
    path = out or opened.path / f"export.{form}"
    try:
        there, folder = path.exists(), path.absolute().parent.is_dir()
    except OSError as error:  # a name that no file can have
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
    if out and there:
        raise UserError(f"{path}: exists; choose another --out")
    if not folder:
        raise UserError(f"{path}: its folder does not exist; make it, or choose another --out")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UserError(f"{path}: its folder cannot be written in; have it made writable, or choose another --out")
    return path


def facts_of(opened: OpenedRun, readout: str, probability: str) -> dict[str, Any]:
    """What a program has to know to use a file."""
    shape = opened.preprocessing
    side, colours = shape.resize or shape.size, "grey" if shape.channels == 1 else "RGB"
    return {
        "recipe": opened.results.recipe,
        "readout": readout,
        "probability_is": probability or None,
        "classes": opened.class_names,
        "input": "images, uint8 (N, channels, size, size), 0 to 255: normalisation is inside",
        "output": "scores (N, classes), the largest decides; minus infinity where nothing is known of a class",
        "preprocessing": {
            "channels": shape.channels,
            "size": shape.size,
            "resize": side,
            "crop": f"{colours}; the shorter side resized to {side}, then {shape.size} x {shape.size} from the centre",
        },
    }


@dataclass(frozen=True)
class Asked:
    """What a run says of random images such as it sees.

    Attributes:
        images: (IMAGES, C, size, size), uint8, the same every time.
        scores: (IMAGES, classes).
    """

    images: Tensor
    scores: Tensor

    @classmethod
    def of(cls, run: Run, readout: str) -> Asked:
        """What a read-out of a run says, computed in float32."""
        like, rng = run.data.train, torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (IMAGES, like.channels, like.size, like.size), dtype=torch.uint8, generator=rng)
        scores: Scores = run.assembly.of_kind("readout")[readout].method("scores")
        with evaluating(run.model), full_precision(run.model):
            return cls(images, scores(run.model(run.loader.normalise(images)).features))

    def held_against(self, scores: Scores, said: str, facts: Mapping[str, Any]) -> float:
        """The largest difference of a file's scores, in units of the largest score.

        Args:
            scores: of the file.
            said: what it says of itself.
            facts: what it should say.

        Raises:
            RunFailed: it does not decide, or say, what the run does.
        """
        found = torch.cat([scores(self.images[:1]), scores(self.images[1:])])  # N is free
        difference, wrong = compared(found, self.scores)
        if wrong or json.loads(said) != facts:
            what = f"scores {wrong} of {IMAGES} random images otherwise than the run, by up to {difference:.2g} of the"
            raise RunFailed(f"{what} largest score" if wrong else "says otherwise what its classes and images are")
        return difference


def compared(found: Tensor, expected: Tensor) -> tuple[float, int]:
    """The largest difference of scores, in units of the largest score, and how many images are scored otherwise.

    Those are the images with a score that is further off than the tolerance, with another decision where two classes
    are further apart than that, or with other classes of which nothing is known.

    Args:
        found: (N, classes).
        expected: (N, classes).
    """
    known = expected.isfinite()
    largest = float(expected.masked_fill(~known, 0).abs().max())
    apart = (found - expected).masked_fill(~known, 0).abs()
    best = expected.topk(min(2, expected.shape[1]), 1).values
    decided = best[:, 0] - best[:, -1] > TOLERANCE * largest
    otherwise = decided & (found.argmax(1) != expected.argmax(1))
    wrong = otherwise | ~(apart <= TOLERANCE * largest).all(1) | (found.isfinite() != known).any(1)
    return float(apart.max()) / (largest or 1.0), int(wrong.sum())


@contextmanager
def _told(opened: OpenedRun, readout: str, form: Format) -> Iterator[None]:
    what, hint = f"{opened.path}: {readout} cannot be written as {form}", "choose another --format or --readout"
    try:
        yield
    except (OSError, UserError, DiskFailed):
        raise
    except RunFailed as error:
        raise RunFailed(f"{what}: the file {error}; {hint}") from None
    except Exception as error:  # of any kind, as torch raises for what it cannot write
        raise RunFailed(f"{what} ({describe(error)}); {hint}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Remarks of the writing libraries on themselves are for their authors; errors go through."""
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(torch|onnx|onnxscript|onnx_ir|onnxruntime|copyreg)\b")
            for name in _NOISY:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _traced(run: Run, readout: str, example: Tensor) -> torch.export.ExportedProgram:
    """The computation, for any number of images; it names no file that it was written in."""
    with evaluating(run.model):
        free = ({0: torch.export.Dim("N")},)
        program = torch.export.export(Deciding(run, readout).eval(), (example,), dynamic_shapes=free)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    program.example_inputs = None
    return program


def _onnx(program: torch.export.ExportedProgram, facts: str) -> bytes:
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["scores"], "dynamic_shapes": ({0: "N"},)}
    converted = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    assert converted is not None, "as the dynamo exporter answers"  # noqa: S101
    converted.model.metadata_props["lwmfw"] = facts
    content: bytes = converted.model_proto.SerializeToString()
    return content


def _read_onnx(path: Path) -> tuple[Scores, str]:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def scores(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["scores"], {"images": images.numpy()})[0])

    return scores, session.get_modelmeta().custom_metadata_map["lwmfw"]


def _pt2(program: torch.export.ExportedProgram, facts: str) -> bytes:
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"lwmfw.json": facts})
    return content.getvalue()


def _read_pt2(path: Path) -> tuple[Scores, str]:
    extra = {"lwmfw.json": ""}
    program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra)
    return program.module(), extra["lwmfw.json"]


_WRITE: dict[Format, Callable[[torch.export.ExportedProgram, str], bytes]] = {"onnx": _onnx, "pt2": _pt2}
_READ: dict[Format, Callable[[Path], tuple[Scores, str]]] = {"onnx": _read_onnx, "pt2": _read_pt2}
