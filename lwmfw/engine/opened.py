"""A recorded run with what has to be built to be looked at: model, exemplars, data."""

from __future__ import annotations

from functools import cached_property

import torch

from lwmfw.assembly.assemble import assemble, assemble_filled
from lwmfw.assembly.parts import Assembly
from lwmfw.data.images import DataSet, ImageFiles, Images, ImageSet
from lwmfw.data.loader import Preprocessing
from lwmfw.engine.borrowed import given_back
from lwmfw.engine.build import DeviceName, choose_device, grow, new_model
from lwmfw.engine.drift import check_alike
from lwmfw.engine.going_on import restore
from lwmfw.engine.origin import finished_steps, preprocessing_of
from lwmfw.engine.prepare import new_memory, prepare, run_of
from lwmfw.engine.run import Run
from lwmfw.engine.telling import told_in_words
from lwmfw.errors import UserError
from lwmfw.memory.store import Memory
from lwmfw.model.growing import Model
from lwmfw.recipe.load import Resolved
from lwmfw.record import checkpoint
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.reading import RecordedRun
from lwmfw.record.results import Results


class OpenedRun(RecordedRun):
    """A run directory, read: results, recipe, model, exemplars, class names and preprocessing."""

    @cached_property
    def results(self) -> Results:
        """Its results up to its newest checkpoint, of which its model is; of a run without one, those it has written.

        Raises:
            UserError: there are none, or they are not in the format of this version.
            CheckpointRefused: the checkpoint is damaged.
        """
        return self.checkpoint().results if checkpoint.steps(self.path / "checkpoints") else super().results

    @cached_property
    def model(self) -> Model:
        """The model of the last finished step, as `model_at` has it."""
        return self.model_at()

    @given_back()
    def model_at(self, step: int | None = None) -> Model:
        """The model after a step, on the CPU in evaluation mode, without a plug-in's own parts (`model.extras`).

        Raises:
            UserError: no run there, or no checkpoint of that step; the first and the last finished step have one, and
                all of a run that keeps them (`keep_steps`).
            CheckpointRefused: the checkpoint is damaged, or is not of this recipe.
        """
        kept = self.checkpoint(step)
        model = self.untrained(kept.results)
        checkpoint.restore(kept.without_extras(), model, {})
        return model.eval()

    @given_back()
    def untrained(self, results: Results) -> Model:
        """A model of its recipe that has grown by the steps of some results, as drawn."""
        shape = self.preprocessing
        with told_in_words(self.assembly, self.path):
            model = new_model(self.assembly, shape.channels, shape.size, torch.device("cpu"))
            for step in finished_steps(results):
                grow(self.assembly, model, step)
        return model

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """What an image has to go through before the model sees it."""
        return preprocessing_of(self.checkpoint())

    @given_back()
    def as_left(
        self, device: DeviceName = "cpu", kept: Checkpoint | None = None, recipe: Resolved | None = None
    ) -> Run:
        """The run as its last finished step left it, without its data, which are not asked for; written nowhere.

        Its read-outs can be asked: `run.assembly.of_kind("readout")[name].method("scores")(features)`.

        Args:
            device: where it computes.
            kept: another checkpoint of its recipe than that of the last step.
            recipe: another one that fits the checkpoint.

        Raises:
            UserError: no run there, or no checkpoint.
            CheckpointRefused: the checkpoint is damaged, or is not of this recipe.
        """
        kept, assembly = (kept or self.checkpoint()).without_extras(), assemble_filled(recipe or self.recipe)
        with told_in_words(assembly, self.path):
            data = no_images(preprocessing_of(kept), kept.results.class_names)
            run = run_of(assembly, choose_device(device), data, finished_steps(kept.results), kept.results)
            restore(run, kept)
            for part in assembly.of_kind("readout").values():
                if "before_run" in part.hooks:
                    part.hook("before_run")(run, run.rng)
        return run

    def exemplars(self, step: int | None = None) -> ImageSet:
        """What the memory held after a step: decoded, or photographs as they are stored; labels as positions in the
        class order.

        Raises:
            UserError, CheckpointRefused: as `memory`.
        """
        return self.memory(step).images()

    def memory(self, step: int | None = None) -> Memory:
        """The memory as it was after a step.

        Raises:
            UserError: as `checkpoint`, or the recipe keeps no exemplars.
            CheckpointRefused: the checkpoint is damaged.
        """
        kept = self.checkpoint(step)
        shape = preprocessing_of(kept)
        memory = new_memory(self.assembly, no_images(shape, []).train)
        if memory is None:
            raise UserError(f"{self.path}: its recipe keeps no exemplars; name a run with [memory]")
        codec = self.assembly.only("codec")
        if codec.trait("restore"):
            with checkpoint.taking_back(kept.path, codec.name):
                codec.method("restore")(kept.components.get(codec.name, {}))
        memory.restore(kept.components.get("[memory]", {}))
        return memory

    def prepared(self, device: DeviceName = "cpu") -> Run:
        """The run as it would go on after its last finished step: with its data, which are read; written nowhere.

        Raises:
            UserError: missing data, or no such device.
            CheckpointRefused: the checkpoint is damaged, was computed in another way, or learned from other data.
        """
        kept = self.checkpoint()
        run = prepare(assemble(self.recipe), device, filled=True)
        check_alike(run, kept)
        restore(run, kept)
        return run

    @cached_property
    def assembly(self) -> Assembly:
        """Its components, as its recipe has them; they know nothing yet, and read no initial weights."""
        return assemble_filled(self.recipe)


def no_images(shape: Preprocessing, names: list[str]) -> DataSet:
    """A data set of some classes without an image, for a model that sees images in one way."""
    labels = torch.empty(0, dtype=torch.int64)
    pixels = torch.empty(0, shape.channels, shape.size, shape.size, dtype=torch.uint8)
    none: ImageSet = Images(pixels, labels, shape.reading)
    if shape.resize:
        none = ImageFiles([], labels, shape.size, shape.resize, channels=shape.channels, **vars(shape.reading))
    return DataSet(none, none, names, shape.mean, shape.std)
