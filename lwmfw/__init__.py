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
    Readout,
    Refiner,
    Selector,
)
from lwmfw.errors import LwmfwError, UserError, did_you_mean
from lwmfw.hookspecs import hookimpl

if TYPE_CHECKING:
    from lwmfw.api import open_run, run
    from lwmfw.data.decoding import decode_images, unreadable_images
    from lwmfw.data.images import Batch, DataSet, ImageFiles, Images, ImageSet
    from lwmfw.data.loader import Loader
    from lwmfw.engine.run import Run
    from lwmfw.memory.selection import Selection
    from lwmfw.model.features import class_means
    from lwmfw.model.growing import Model, evaluating, frozen_copy, full_precision
    from lwmfw.model.outputs import Features, Outputs
    from lwmfw.recipe.budget import Budget
    from lwmfw.recipe.phase import Phase
    from lwmfw.recipe.scenario import Step
    from lwmfw.record.results import Results, StepResult

__version__ = version("lwmfw")

_LATER = {
    "open_run": "api",
    "run": "api",
    "Budget": "recipe.budget",
    "Results": "record.results",
    "StepResult": "record.results",
    "Loader": "data.loader",
    "Model": "model.growing",
    "evaluating": "model.growing",
    "frozen_copy": "model.growing",
    "full_precision": "model.growing",
    "Run": "engine.run",
    "Batch": "data.images",
    "DataSet": "data.images",
    "Features": "model.outputs",
    "ImageFiles": "data.images",
    "ImageSet": "data.images",
    "Images": "data.images",
    "Outputs": "model.outputs",
    "Phase": "recipe.phase",
    "Selection": "memory.selection",
    "Step": "recipe.scenario",
    "class_means": "model.features",
    "decode_images": "data.decoding",
    "unreadable_images": "data.decoding",
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
    "Readout",
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
