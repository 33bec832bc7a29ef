"""A recorded run with what has to be built to be looked at: model, exemplars, data."""

from __future__ import annotations

from functools import cached_property

import torch

from lwmfw.assembly.assemble import assemble
from lwmfw.assembly.parts import Assembly
from lwmfw.data.images import ImageFiles, Images, ImageSet
from lwmfw.data.loader import Preprocessing
from lwmfw.engine.build import DeviceName, new_model
from lwmfw.engine.going_on import go_on
from lwmfw.engine.prepare import new_memory, prepare
from lwmfw.engine.run import Run
from lwmfw.engine.telling import told_in_words
from lwmfw.errors import CheckpointRefused, UserError
from lwmfw.model.growing import Model
from lwmfw.record import checkpoint
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.reading import RecordedRun


class OpenedRun(RecordedRun):
    """A run directory, read: results, recipe, model, exemplars, class names and preprocessing."""

    @cached_property
    def model(self) -> Model:
        """The model of the last finished step, as `model_at` has it."""
        return self.model_at()

    def model_at(self, step: int | None = None) -> Model:
        """The model after a step, on the CPU in evaluation mode, without a plug-in's own parts (`model.extras`).

        Raises:
            UserError: no run there, or no checkpoint of that step; the first and the last finished step have one.
            CheckpointRefused: the checkpoint is damaged, or is not of this recipe.
        """
        kept = self.checkpoint(step)
        shape = self.preprocessing_of(kept)
        with told_in_words(self._assembly, self.path):
            model = new_model(self._assembly, shape.channels, shape.size, torch.device("cpu"))
            for each in kept.results.steps:
                model.grow(len(each.new_classes))
        checkpoint.restore(kept.without_extras(), model, {})
        return model.eval()

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """What an image has to go through before the model sees it."""
        return self.preprocessing_of(self.checkpoint())

    @staticmethod
    def preprocessing_of(kept: Checkpoint) -> Preprocessing:
        """The same of a checkpoint.

        Raises:
            CheckpointRefused: it is of another version.
        """
        try:
            return Preprocessing(**kept.facts["preprocessing"])
        except (KeyError, TypeError) as error:
            raise CheckpointRefused(f"{kept.path}: says nothing of preprocessing; train the run anew") from error

    def exemplars(self, step: int | None = None) -> ImageSet:
        """What the memory held after a step: decoded, or photographs as they are stored; labels as positions in the
        class order.

        Raises:
            UserError: as `checkpoint`, or the recipe keeps no exemplars.
            CheckpointRefused: the checkpoint is damaged.
        """
        kept = self.checkpoint(step)
        shape = self.preprocessing_of(kept)
        none, labels = torch.empty(0, shape.channels, shape.size, shape.size, dtype=torch.uint8), torch.empty(0).long()
        like = ImageFiles([], labels, shape.size, shape.resize) if shape.resize else Images(none, labels)
        memory = new_memory(self._assembly, like)
        if memory is None:
            raise UserError(f"{self.path}: its recipe keeps no exemplars; name a run with [memory]")
        codec = self._assembly.only("codec")
        if codec.trait("restore"):
            codec.method("restore")(kept.components.get(codec.name, {}))
        memory.restore(kept.components["[memory]"])
        return memory.images()

    def prepared(self, device: DeviceName = "cpu") -> Run:
        """The run as it would go on after its last finished step: with its data, which are read; written nowhere.

        Raises:
            UserError: missing data, or no such device.
            CheckpointRefused: the checkpoint is damaged, or was computed in another way.
        """
        run = prepare(self._assembly, device)
        run.origin = self.checkpoint()
        go_on(run)
        return run

    @cached_property
    def _assembly(self) -> Assembly:
        return assemble(self.recipe)
