"""The methods that are shipped, each on a few small images: what has to hold for all of them is tried on these."""

import copy

from helpers.runs import THREE_STEPS

MEMORY = {"budget": "12 exemplars", "select": {"use": "herding"}}
SEEN = {"use": "cross_entropy", "over": "seen"}
METHODS = {
    "finetune": {},
    "adam": {"training": {"optimizer": "adam", "schedule": "steps", "milestones": [0.5]}},
    "lwm": {"penalties": [{"use": "L_D"}, {"use": "L_AD"}], "data": {"size": 16}},
    "icarl": {"penalties": [{"use": "L_D"}], "memory": MEMORY, "readouts": [{"use": "cnn"}, {"use": "nme"}]},
    "replay": {"memory": MEMORY | {"replay": 0.25}},
    "jpeg": {"memory": MEMORY | {"budget": "20 kB", "codec": {"use": "jpeg"}}},
    "mnemonics": {"memory": MEMORY | {"refine": [{"use": "mnemonics", "iterations": 2, "queries": 8}]}},
    "podnet": {
        "backbone": {"use": "podnet32"},
        "classifier": {"use": "proxies"},
        "objective": {"use": "nca", "over": "seen", "legacy_margin": True},
        "penalties": [{"use": "POD"}, {"use": "POD-flat"}],
        "memory": MEMORY,
        "phases": [{"use": "balanced", "epochs": 2}],
    },
    "ucir": {
        "classifier": {"use": "cosine"},
        "objective": SEEN,
        "penalties": [{"use": "less-forget"}, {"use": "margin-ranking"}],
        "memory": MEMORY,
    },
    **{name: {"penalties": [{"use": name}]} for name in ("ewc", "si", "mas", "self-rotation")},
    "efc": {"objective": {"use": "cross_entropy"}, "penalties": [{"use": "efc"}]},
    "muc": {"penalties": [{"use": "muc", "other": {"use": "synthetic"}, "side_epochs": 2}], "objective": SEEN},
    "bic": {"penalties": [{"use": "bic"}], "memory": MEMORY | {"budget": "24 exemplars"}, "objective": SEEN},
    "wa": {"penalties": [{"use": "wa"}], "memory": MEMORY, "objective": SEEN},
    "freeze": {"penalties": [{"use": "freeze"}], "readouts": [{"use": "cnn"}, {"use": "som"}]},
    "der": {"backbone": {"use": "der", "prune": True}, "objective": SEEN, "memory": MEMORY}
    | {"phases": [{"use": "balanced", "epochs": 2, "fresh": True}]},
    "pnn": {"backbone": {"use": "pnn"}, "training": {"lr": 0.01}},
    "den": {"backbone": {"use": "den"}, "classifier": {"use": "step-heads"}},
    "rmm": {"memory": MEMORY | {"rate": {"use": "rmm"}}},
    "mecil": {"memory": MEMORY | {"budget": "120 kB", "codec": {"use": "mecil", "decoder_epochs": 1}}},
    "carried over": {"readouts": [{"use": "cnn"}, *({"use": n, "transport": True} for n in ("ncm", "lda", "ridge"))]}
    | {"penalties": [{"use": "L_D"}]},
}
"""Name -> tables of a recipe."""


def tables(name):
    """A method's recipe of three steps of two classes, six batches an epoch."""
    method = METHODS[name]
    data = THREE_STEPS["data"] | {"size": 12} | method.get("data", {})
    training = {"batch_size": 8, "epochs": 2} | method.get("training", {})
    backbone = {"use": "resnet20"} | method.get("backbone", {})
    backbone |= {} if backbone["use"] == "thesis32" else {"width": 4}
    return copy.deepcopy(THREE_STEPS | method | {"data": data, "training": training, "backbone": backbone})
