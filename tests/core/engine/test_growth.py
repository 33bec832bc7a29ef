"""Networks that grow: what a stranger's may do, and that it is read again as it was."""

import re

import pytest
import torch
from helpers.runs import THREE_STEPS, interrupted
from torch.nn.functional import cross_entropy

import lwmfw
import lwmfw.testing
from lwmfw import Backbone, Objective, ObjectiveOptions, Penalty, hookimpl
from lwmfw.errors import RunFailed, UserError
from lwmfw.testing import tiny_run

NETWORK = """
import torch
from torch import nn
from lwmfw import Backbone, Features, Options, hookimpl

class Towers(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.channels, self.towers = channels, nn.ModuleList([nn.Conv2d(channels, 4, 3)])
        self.register_load_state_dict_pre_hook(self.fit)

    def add(self, width):
        self.towers.append(nn.Conv2d(self.channels, width, 3))

    def fit(self, module, state, prefix, *rest):
        for number, tower in enumerate(self.towers):
            weight = state[f"{prefix}towers.{number}.weight"]
            if weight.shape != tower.weight.shape:
                self.towers[number] = nn.Conv2d(self.channels, len(weight), 3)

    def forward(self, images):
        return Features(torch.cat([tower(images).relu().mean((2, 3)) for tower in self.towers], 1), [], [], None)

class Growing:
    "Towers side by side."

    needs = frozenset({"resize"})

    def __init__(self, options):
        pass

    def build(self, channels):
        return Towers(channels)

    @hookimpl
    def grow_model(self, step, model):
        if step.index > 1:
            model.backbone.add(2)

class Replacing(Growing):
    "Towers side by side."

    @hookimpl
    def grow_model(self, step, model):
        if step.index == 1:
            return None
        grown = Towers(3)
        for _ in range(step.index - 1):
            grown.add(2)
        return grown

class Shrinking(Growing):
    "Towers side by side."

    @hookimpl
    def group_parameters(self, step, phase, model):
        if phase.name == "balanced":
            tower = model.backbone.towers[-1]
            model.backbone.towers[-1] = torch.nn.utils.skip_init(nn.Conv2d, 3, 1, 3)
            model.backbone.towers[-1].load_state_dict({"weight": tower.weight[:1], "bias": tower.bias[:1]})
            model.reshaped()

class Boasting(Growing):
    "Towers side by side."

    needs = frozenset()
    offers = frozenset({"features"})

class Hasty(Growing):
    "Towers side by side."

    @hookimpl
    def after_epoch(self, step, epoch, run):
        if step.index == 2 and epoch == 1:
            run.model.backbone.add(2)
            run.model.reshaped()

class Silent(Growing):
    "Towers side by side."

    @hookimpl
    def grow_model(self, model):
        return nn.Flatten()

class Careless(Growing):
    "Towers side by side."

    needs = frozenset()

def register_components():
    for name, made in (("growing", Growing), ("replacing", Replacing), ("shrinking", Shrinking), ("boasting", Boasting),
                       ("hasty", Hasty), ("silent", Silent),
                       ("careless", Careless)):
        yield Backbone(name, made)

register_components = hookimpl(register_components)
"""


def growing(folder, use="growing", **tables):
    (folder / "towers.py").write_text(NETWORK)
    backbone = {"use": use, "width": None}
    return {
        **THREE_STEPS,
        "plugins": ["towers.py"],
        "backbone": {key: value for key, value in backbone.items() if value},
        "objective": {"use": "cross_entropy", "over": "seen"},
        **tables,
    }


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("use", ["growing", "replacing"])
def test_a_network_grows_with_the_steps_and_its_classifier_with_it(use, tmp_path):
    run = tiny_run(growing(tmp_path, use), tmp_path)
    assert run.run.model.width == 4 + 2 + 2
    assert run.run.model.classifier.weight.shape == (6, 8)
    grown = [step.parameters for step in run.results.steps]
    tower = 2 * (3 * 9 + 1)
    assert grown[1] - grown[0] == tower + 2 * (6 + 1) + 2 * 2  # two rows of six columns, two columns of two rows


@pytest.mark.usefixtures("bare")
def test_a_grown_network_is_opened_as_it_was_left(tmp_path):
    run = tiny_run(growing(tmp_path), tmp_path)
    images = torch.randn(5, 3, 8, 8)
    opened = lwmfw.open_run(run.path)
    ours = run.run.model.eval()
    assert torch.equal(opened.model(images).logits, ours(images).logits)
    assert opened.model_at(1).width == 4


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("use", ["growing", "shrinking"])
@pytest.mark.parametrize("after", [1, 2])
def test_a_growing_network_resumes_to_the_same_bits(use, after, tmp_path):
    more = {"memory": {"budget": "2 per class", "select": {"use": "random"}}, "phases": [{"use": "balanced"}]}
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole = tiny_run(growing(tmp_path / "whole", use, **more), tmp_path / "whole")
    resumed = interrupted(tmp_path / "broken", growing(tmp_path / "broken", use, **more), after)
    ours, theirs = (run.run.model.state_dict() for run in (whole, resumed))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert whole.run.model.width == (8 if use == "growing" else 4 + 1 + 1)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("use", "tables", "fault"),
    [
        ("growing", {"classifier": {"use": "proxies"}}, "growing needs 'resize', but the classifier proxies offers"),
        ("growing", {"penalties": [{"use": "less-forget"}]}, "less-forget needs 'features', but the backbone growing"),
        (
            "growing",
            {"readouts": [{"use": "ridge"}]},
            "ridge needs 'features', but the backbone growing offers nothing",
        ),
    ],
)
def test_what_cannot_go_with_a_growing_network_is_refused(use, tables, fault, tmp_path):
    with pytest.raises(UserError, match=re.escape(fault)):
        tiny_run(growing(tmp_path, use, **tables), tmp_path)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("use", "tables", "fault"),
    [
        (
            "hasty",
            {"training": {"epochs": 2}},
            "hasty: the backbone was given new parameters inside a phase, which would not learn; change it after",
        ),
        ("silent", {}, "silent.grow_model returned a network of which the backbone returned Tensor from forward"),
        (
            "boasting",
            {},
            "boasting: the backbone offers 'features', and has 6 of them after 4; offer them where all steps",
        ),
        (
            "careless",
            {"classifier": {"use": "cosine"}},
            "careless: the backbone has 6 features after 4, to which the classifier cannot be resized; let it need",
        ),
    ],
)
def test_a_network_that_grows_otherwise_than_it_says_is_blamed(use, tables, fault, tmp_path):
    with pytest.raises(RunFailed, match=re.escape(f"towers.py: {fault}")):
        tiny_run(growing(tmp_path, use, **tables), tmp_path)


def test_an_optional_phase_without_anything_to_train_is_passed_over(tmp_path):
    from dataclasses import replace

    class Resting:
        def __init__(self, options):
            pass

        @hookimpl
        def plan_phases(self, main):
            return [replace(main, name="rest", optional=True)]

        @hookimpl
        def group_parameters(self, phase, model):
            if phase.name == "rest":
                model.requires_grad_(False)

    with_rest = tiny_run({"penalties": [{"use": "resting"}]}, tmp_path, components=[Penalty("resting", Resting)])
    assert "rest" not in (with_rest.path / "metrics.jsonl").read_text()
    assert all(parameter.requires_grad for parameter in with_rest.run.model.parameters())


def test_a_phases_temperature_divides_the_logits_of_its_loss(tmp_path):
    from dataclasses import replace

    asked = []

    class Recording:
        def __init__(self, options):
            pass

        def loss(self, logits, labels):
            asked.append(logits.detach())
            return cross_entropy(logits, labels)

    class Cooling:
        needs = frozenset({"old"})

        def __init__(self, options):
            pass

        @hookimpl
        def plan_phases(self, step, main):
            return [replace(main, name="cool", temperature=5.0, batch_size=64)] if step.index == 2 else None

        @hookimpl
        def compute_penalty(self, new, old):
            asked.append(new.logits.detach())

    components = [Objective("recording", Recording, ObjectiveOptions), Penalty("cooling", Cooling)]
    tables = {"objective": {"use": "recording", "over": "seen"}, "penalties": [{"use": "cooling"}]}
    tiny_run(tables, tmp_path, components=components)
    *_, divided, whole = asked
    assert torch.equal(divided, whole / 5)


def test_the_examination_grows_a_network_and_reads_it_again():
    scope = {}
    exec(compile(NETWORK, "towers.py", "exec"), scope)  # noqa: S102
    lwmfw.testing.check(Backbone("growing", scope["Replacing"]))
    with pytest.raises(AssertionError, match="offered where their number stays"):
        lwmfw.testing.check(Backbone("boasting", scope["Boasting"]))
