"""Learning classes one group after another is learning them at once, to the bit: whole runs in other orders."""

import hashlib
import itertools

import pytest
import torch
from helpers.runs import THREE_STEPS, interrupted

from lwmfw.data import loader
from lwmfw.testing import tiny_run
from lwmfw_plugins.readouts._sums import rounded

READOUTS = [
    {"use": "ridge"},
    {"use": "ridge", "as": "lifted", "lift": 30},
    {"use": "fecam", "covariance": "class"},
]
ORDERS = [[*range(10)], [*reversed(range(10))], [3, 9, 0, 7, 1, 8, 2, 6, 4, 5]]
SIZES = {"one by one": (1, 1), "five at a time": (5, 5), "at once": (10, 0)}


def learned(folder, order, sizes, **more):
    """By read-out, a digest of its sums, classes in the order of their labels, for a backbone that is only drawn."""
    first, increment = SIZES[sizes]
    run = tiny_run(
        {
            "data": {"use": "synthetic", "classes": 10, "train_per_class": 11, "test_per_class": 2, "size": 8},
            "scenario": {"first": first, "increment": increment, "order": order},
            "training": {"epochs": 0},
            "readouts": READOUTS,
            **more,
        },
        folder,
    )
    places, found = torch.tensor(order).argsort(), {}
    for name, part in run.run.assembly.of_kind("readout").items():
        state = part.method("state")()
        parts = [state["gram"], state["moments"][:, places], state["counts"][places]]
        parts += [state["grams"][places]] if "grams" in state else []
        found[name] = hashlib.sha256(b"".join(part.contiguous().numpy().tobytes() for part in parts)).hexdigest()
    assert all(said["exact"] for said in run.results.steps[-1].readouts.values())
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return learned(tmp_path_factory.mktemp("reference"), ORDERS[0], "at once")


@pytest.mark.parametrize(("order", "sizes"), list(itertools.product(range(3), SIZES)))
def test_every_order_and_partition_of_classes_gives_the_same_sums(order, sizes, reference, tmp_path):
    assert learned(tmp_path, ORDERS[order], sizes) == reference


@pytest.mark.parametrize("size", [7, 64])
def test_so_does_every_batch_size(size, reference, tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "EVALUATION_BATCH", size)
    assert learned(tmp_path, ORDERS[1], "five at a time") == reference


def test_other_weights_give_other_sums(reference, tmp_path):
    found = learned(tmp_path, ORDERS[0], "at once", seed=2)
    assert not set(found.values()) & set(reference.values())


@pytest.mark.parametrize("trained", [False, True])
def test_a_run_that_was_interrupted_keeps_its_statistics(trained, tmp_path):
    carried = [each | {"transport": True} for each in READOUTS]
    recipe = THREE_STEPS | {"readouts": carried} | ({} if trained else {"penalties": [{"use": "freeze"}]})
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    whole = tiny_run(recipe, tmp_path / "whole").results.steps[-1].readouts
    resumed = interrupted(tmp_path / "resumed", recipe, after=2).results.steps[-1].readouts
    assert resumed == whole
    assert all(said["exact"] != trained for said in whole.values())
    assert all(("drift" in said) == trained for said in whole.values())


def test_what_is_carried_over_is_nearer_to_the_features_that_are_there_now(tmp_path):
    """Sums of step 1 after step 2, held against those that its images, which a test still has, would have now."""
    found = {}
    for transport in (False, True):
        (tmp_path / str(transport)).mkdir()
        run = tiny_run(
            {
                "data": {"use": "synthetic", "classes": 4, "train_per_class": 40, "size": 8},
                "training": {"epochs": 2, "lr": 0.05},
                "readouts": [{"use": "ncm", "transport": transport}],
            },
            tmp_path / str(transport),
        ).run
        kept = run.assembly.of_kind("readout")["ncm"].method("state")()
        now = rounded(run.features(run.data.train.of_classes(range(2))))
        means = torch.stack([part.mean(0) for part in now.split(40)])
        found[transport] = float(((kept["moments"] / kept["counts"]).T[:2] - means).norm() / means.norm())
    assert found[True] < 0.9 * found[False]
