"""lwmfw: a plug-in framework for class-incremental image classification.

What a plug-in author needs is importable from here. Importing this package does not import torch; the names that need
it are loaded when they are first asked for.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lwmfw.components import (
    Backbone,
    Classifier,
    Codec,
    Component,
    Data,
    ExtraPhase,
    File,
    Folder,
    Objective,
    ObjectiveOptions,
    Observer,
    Options,
    Penalty,
    Rate,
    Refiner,
    Selector,
)
from lwmfw.errors import LwmfwError, UserError, did_you_mean
from lwmfw.hookspecs import hookimpl

if TYPE_CHECKING:
    from lwmfw.api import open_run, run
    from lwmfw.budget import Budget
    from lwmfw.data import Loader
    from lwmfw.decoding import decode_images, unreadable_images
    from lwmfw.features import class_means
    from lwmfw.metrics import Results, StepResult
    from lwmfw.model import Model, evaluating, frozen_copy, full_precision
    from lwmfw.scenario import Step
    from lwmfw.state import Run
    from lwmfw.types import Batch, DataSet, Features, ImageFiles, Images, ImageSet, Outputs, Phase, Selection

__version__ = version("lwmfw")

_LATER = {
    "open_run": "api",
    "run": "api",
    "Budget": "budget",
    "Results": "metrics",
    "StepResult": "metrics",
    "Loader": "data",
    "Model": "model",
    "evaluating": "model",
    "frozen_copy": "model",
    "full_precision": "model",
    "Run": "state",
    "Batch": "types",
    "DataSet": "types",
    "Features": "types",
    "ImageFiles": "types",
    "ImageSet": "types",
    "Images": "types",
    "Outputs": "types",
    "Phase": "types",
    "Selection": "types",
    "Step": "scenario",
    "class_means": "features",
    "decode_images": "decoding",
    "unreadable_images": "decoding",
}

__all__ = [
    "Backbone",
    "Batch",
    "Budget",
    "Classifier",
    "Codec",
    "Component",
    "Data",
    "DataSet",
    "ExtraPhase",
    "Features",
    "Field",
    "File",
    "Folder",
    "ImageFiles",
    "ImageSet",
    "Images",
    "Loader",
    "LwmfwError",
    "Model",
    "Objective",
    "ObjectiveOptions",
    "Observer",
    "Options",
    "Outputs",
    "Penalty",
    "Phase",
    "Rate",
    "Refiner",
    "Results",
    "Run",
    "Selection",
    "Selector",
    "Step",
    "StepResult",
    "UserError",
    "__version__",
    "class_means",
    "decode_images",
    "did_you_mean",
    "evaluating",
    "frozen_copy",
    "full_precision",
    "hookimpl",
    "open_run",
    "run",
    "unreadable_images",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'lwmfw' has no attribute '{name}'")
    value = getattr(import_module(f"lwmfw.{_LATER[name]}"), name)
    globals()[name] = value
    return value
