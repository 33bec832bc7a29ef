"""The class decides whose median feature is nearest."""

import torch
from lwmfw import Readout, hookimpl


class Medians:
    """The class whose median feature is nearest; outliers among the images do not move it."""

    def __init__(self, options):
        self.medians = []

    @hookimpl
    def after_training(self, run, step, data):
        features = run.features(data)
        self.medians += [features[data.labels == c].median(0).values for c in step.new_classes]

    def scores(self, features):
        return -torch.cdist(features, torch.stack(self.medians))

    def state(self):
        return {"points": torch.stack(self.medians)} if self.medians else {}

    def restore(self, state):
        self.medians = list(state.get("points", []))


@hookimpl
def register_components():
    yield Readout("medians", Medians)
