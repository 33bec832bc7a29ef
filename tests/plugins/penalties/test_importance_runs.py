"""ewc, si and mas in runs: what a step leaves to the next, and what a resumed run finds."""

import pytest
import torch
from torch.testing import assert_close

import lwmfw
from lwmfw import Observer, UserError, hookimpl
from lwmfw.errors import Interrupted
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw_plugins.penalties._importance import flat, spring_energy

THREE_STEPS = {"data": {"use": "synthetic", "classes": 6, "train_per_class": 16, "test_per_class": 8, "size": 8}}
SLOW = pytest.mark.slow
METHODS = ["ewc", "si", "mas"]


class Watch:
    """Lets a test look on, and interrupts the third step if it is asked to."""

    interrupts = False
    seen = None

    def __init__(self, options):
        pass

    @hookimpl
    def before_step(self, step):
        if step.index == 3 and Watch.interrupts:
            raise KeyboardInterrupt

    @hookimpl
    def after_step(self, run, step):
        for penalty in (run.assembly.components[name].instance for name in METHODS if name in run.assembly.components):
            Watch.seen[step.index] = (penalty.held, flat(p.detach() for p in penalty.parameters(run.model).values()))


def watched_run(folder, penalty, *, interrupts=False):
    """A run of three steps, and what each left the parameters at and held by."""
    folder.mkdir(exist_ok=True)
    Watch.seen, Watch.interrupts = {}, interrupts
    components = [Observer("watch", Watch)]
    run = tiny_run(
        THREE_STEPS | {"penalties": [penalty], "observers": [{"use": "watch"}]}, folder, components=components
    )
    return run, Watch.seen


@pytest.mark.parametrize(
    "penalty",
    [
        {"use": "ewc", "weight": 1000.0},
        pytest.param(
            {"use": "ewc", "weight": 1000.0, "form": "empirical", "fusion": "online", "gamma": 0.9}, marks=SLOW
        ),
        pytest.param({"use": "si", "weight": 100.0}, marks=SLOW),
        pytest.param({"use": "mas", "weight": 30.0}, marks=SLOW),
    ],
    ids=["ewc", "ewc-online", "si", "mas"],
)
def test_a_penalty_has_its_term_from_the_second_step_on_and_keeps_important_parameters_near(penalty, tmp_path):
    distances = []
    for weight in (0.0, penalty["weight"]):
        run, seen = watched_run(tmp_path / str(weight), penalty | {"weight": weight})
        assert [sorted(terms) for terms in run.terms.values()] == [["bce"], *[["bce", penalty["use"]]] * 2]
        distances.append(float(spring_energy(seen[2][1], *seen[1][0][:2])))
    assert distances[1] < 0.8 * distances[0]


@SLOW
def test_what_the_fusions_make_of_three_steps(tmp_path):
    """The weight is 0, so that both runs train alike and only their fusion differs."""
    weightless = {"weight": 0.0, "images": 0, "form": "empirical"}
    separate, online = (
        watched_run(tmp_path / fusion, {"use": "ewc", "fusion": fusion, "gamma": 0.5, **weightless})[1]
        for fusion in ("separate", "online")
    )
    first = separate[1][0].importance
    second, third = (separate[i][0].importance - separate[i - 1][0].importance for i in (2, 3))
    assert_close(online[3][0].importance, 0.25 * first + 0.5 * second + third, rtol=1e-4, atol=1e-6)
    assert torch.equal(online[3][0].anchors, online[3][1])
    assert not torch.equal(separate[3][0].anchors, separate[3][1])


@SLOW
def test_mas_takes_the_mean_of_what_was_held_and_of_the_newest_step(tmp_path):
    held = {}
    for alpha in (0.0, 0.25, 1.0):
        seen = watched_run(tmp_path / str(alpha), {"use": "mas", "alpha": alpha, "weight": 0.0, "images": 20})[1]
        held[alpha] = [seen[step][0].importance for step in (1, 2, 3)]
    newest = held[0.0]
    assert torch.equal(held[1.0][2], newest[0])
    second = 0.25 * newest[0] + 0.75 * newest[1]
    assert_close(held[0.25], [newest[0], second, 0.25 * second + 0.75 * newest[2]])


@pytest.mark.parametrize("use", [pytest.param(use, marks=[SLOW] * (use != "ewc")) for use in METHODS])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(use, tmp_path):
    penalty = {"use": use, "heads": True}
    whole, seen = watched_run(tmp_path / "whole", penalty)
    with pytest.raises(Interrupted):
        watched_run(tmp_path / "halved", penalty, interrupts=True)
    resumed, seen_again = watched_run(tmp_path / "halved", penalty)
    for name, value in whole.run.model.state_dict().items():
        assert torch.equal(value, resumed.run.model.state_dict()[name]), name
    (ours, _), (theirs, _) = seen[3], seen_again[3]
    assert torch.equal(ours.anchors, theirs.anchors)
    assert torch.equal(ours.importance, theirs.importance)
    assert ours.shapes == theirs.shapes


def test_a_first_step_can_be_taken_over_unless_its_way_counts(tmp_path):
    (tmp_path / "plain").mkdir()
    finished = tiny_run({}, tmp_path / "plain").path

    def taken(use):
        folder = tmp_path / use
        folder.mkdir()
        return lwmfw.run(
            tiny_recipe({"penalties": [{"use": use}]}, folder), out=folder / "run", device="cpu", from_run=finished
        )

    for use in ("ewc", "mas"):
        (tmp_path / f"{use}-whole").mkdir()
        whole = tiny_run({"penalties": [{"use": use}]}, tmp_path / f"{use}-whole").results
        assert [s.confusion for s in taken(use).steps] == [s.confusion for s in whole.steps]
    with pytest.raises(UserError, match=r"\(penalties\.si differs\)"):
        taken("si")
