"""Keep the images that the model is least sure of."""

import torch
from torch.distributions import Categorical
from lwmfw import Selection, Selector, evaluating, hookimpl


class Uncertain:
    """The images whose prediction has the highest entropy."""

    def __init__(self, options):
        pass

    @hookimpl
    def select_memory(self, run, model, candidates, quota):
        with evaluating(model):
            logits = torch.cat([model(images).logits for images, _ in run.loader.evaluation_batches(candidates)])
        entropy = Categorical(logits=logits).entropy()
        chosen = {}
        for label, count in quota.items():
            members = (candidates.labels == label).nonzero().flatten()
            chosen[label] = members[entropy[members].argsort(descending=True, stable=True)[:count]]
        return Selection(chosen)


@hookimpl
def register_components():
    yield Selector("uncertain", Uncertain)
