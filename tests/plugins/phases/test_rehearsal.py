"""Training on exemplars: balanced phases, groups of parameters, nearest means, photographs."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from lwmfw import Codec, Data, LwmfwError, Penalty, UserError, hookimpl
from lwmfw.assembly.assemble import assemble
from lwmfw.cli.plan import plan, plan_rows
from lwmfw.components import Provider
from lwmfw.model.features import class_means
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw_plugins.codecs.raw import Raw
from lwmfw_plugins.data.synthetic import Synthetic, SyntheticOptions
from lwmfw_plugins.readouts.nme import nearest_mean_scores

MEMORY = {"budget": "12 exemplars", "select": {"use": "random"}}
SEEN = {
    "data": {"use": "synthetic", "classes": 6, "train_per_class": 16, "test_per_class": 8},
    "objective": {"use": "cross_entropy", "over": "seen"},
    "memory": MEMORY,
}


def with_penalty(cls, overrides, folder):
    """Run with a penalty of this class, which may implement any hook."""
    return tiny_run(overrides | {"penalties": [{"use": "probe"}]}, folder, components=[Penalty("probe", cls)])


class Probe:
    def __init__(self, options):
        pass

    @hookimpl
    def compute_penalty(self):
        return None


# phases


def test_a_balanced_phase_shows_as_many_new_images_as_the_memory_will_keep(tmp_path):
    shown = {}

    class Count(Probe):
        @hookimpl
        def group_parameters(self, step, phase):
            self.key = step.index, phase.name

        @hookimpl
        def after_update(self, batch):
            shown.setdefault(self.key, []).append(batch.labels)

    run = with_penalty(Count, SEEN | {"phases": [{"use": "balanced", "epochs": 1}]}, tmp_path).run
    counts = {key: torch.cat(labels).bincount().tolist() for key, labels in shown.items()}
    assert counts == {
        (1, "main"): [16, 16],
        (2, "main"): [6, 6, 16, 16],
        (2, "balanced"): [3, 3, 3, 3],
        (3, "main"): [3, 3, 3, 3, 16, 16],
        (3, "balanced"): [2] * 6,
    }
    assert [run.updates(step) for step in run.steps] == [2, 3 + 1, 3 + 1]


@pytest.mark.parametrize("trains", ["classifier", "all"])
def test_a_balanced_phase_trains_what_it_says(trains, tmp_path):
    before = {}

    class Watch(Probe):
        @hookimpl
        def group_parameters(self, phase, model):
            if phase.name == "balanced":
                before.update({name: value.clone() for name, value in model.state_dict().items()})

        @hookimpl
        def after_step(self, step, model):
            assert all(p.requires_grad for p in model.parameters())
            if step.index > 1:
                moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
                assert any(name.startswith("classifier") for name in moved)
                assert any(name.startswith("backbone") for name in moved) == (trains == "all")

    with_penalty(Watch, SEEN | {"phases": [{"use": "balanced", "epochs": 1, "trains": trains}]}, tmp_path)
    assert before


def test_the_epochs_of_all_phases_are_told_before_and_after(tmp_path):
    training = {"epochs": 2, "first": {"epochs": 1}}
    made = tiny_run(SEEN | {"training": training, "phases": [{"use": "balanced", "epochs": 3}]}, tmp_path)
    assert [step.epochs for step in made.results.steps] == [1, 2 + 3, 2 + 3]
    header, rows = plan_rows(plan(made.run))
    column = [row[header.index("epochs")] for row in rows]
    assert column == ["1", "2", "3", "2", "3", "11"]


AS_PODNET = {"use": "balanced", "epochs": 1, "trains": "directions", "batchnorm": "always"}


@pytest.mark.parametrize("trains", ["directions", "classifier"])
def test_a_balanced_phase_as_podnets_code_has_it(trains, tmp_path):
    """Statistics of the backbone follow the batches, its weights stay, and the classifier learns without its factor."""
    before, found = {}, set()

    class Watch(Probe):
        @hookimpl
        def group_parameters(self, phase, model):
            if not phase.main:
                before.update({name: value.clone() for name, value in model.state_dict().items()})

        @hookimpl
        def after_update(self, model):
            if before:
                state = model.state_dict().items()
                found.update(name for name, value in state if not torch.equal(value, before[name]))

        @hookimpl
        def after_training(self, run, model):
            before.clear()
            assert model.batchnorm == "train"
            assert all(p.requires_grad for p in model.parameters())

    phases = [AS_PODNET | {"trains": trains}]
    with_penalty(Watch, SEEN | {"classifier": {"use": "cosine"}, "phases": phases}, tmp_path)
    body = {name for name in found if name.startswith("backbone")}
    assert {name.rpartition(".")[2] for name in body} == {"running_mean", "running_var", "num_batches_tracked"}
    learned = {"classifier.weights.0", "classifier.weights.1", "classifier.weights.2"}
    assert found - body == learned | ({"classifier.scale"} if trains == "classifier" else set())


def test_statistics_of_a_backbone_that_does_not_learn_stay_unless_the_phase_is_to_move_them(tmp_path):
    modes = {}

    class Watch(Probe):
        @hookimpl
        def group_parameters(self, phase):
            self.phase = phase.name

        @hookimpl
        def after_update(self, model):
            modes.setdefault(self.phase, set()).add(model.backbone.training)

    phases = [AS_PODNET | {"as": "always"}, AS_PODNET | {"as": "main-like", "batchnorm": "main"}]
    with_penalty(Watch, SEEN | {"classifier": {"use": "cosine"}, "phases": phases}, tmp_path)
    assert modes == {"main": {True}, "always": {True}, "main-like": {False}}


def test_directions_apart_from_their_factor_need_a_classifier_that_tells_them_apart(tmp_path):
    with pytest.raises(UserError, match=r"balanced needs 'similarities', but the classifier linear offers"):
        tiny_run(SEEN | {"phases": [AS_PODNET]}, tmp_path)


def test_a_balanced_phase_without_penalties_has_the_classification_loss_alone(tmp_path):
    phases = [{"use": "balanced", "epochs": 1, "penalties": False}]
    run = tiny_run(SEEN | {"phases": phases, "penalties": [{"use": "L_D"}]}, tmp_path)
    assert run.terms[2].keys() == {"cross_entropy"}
    assert set((run.path / "metrics.jsonl").read_text().split('"')) >= {"balanced", "L_D"}


def test_a_balanced_phase_needs_exemplars(tmp_path):
    with pytest.raises(UserError, match=r"balanced needs exemplars, but the recipe keeps none; add \[memory\]"):
        tiny_run({"phases": [{"use": "balanced"}]}, tmp_path)


def test_a_phase_has_the_name_of_its_component_so_that_there_can_be_two(tmp_path):
    phases = [{"use": "balanced", "as": name, "epochs": 1} for name in ("a", "b")]
    run = tiny_run(SEEN | {"phases": phases}, tmp_path)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in rows if row["step"] == 2] == ["main", "a", "b"]


def test_two_phases_of_one_name_are_refused_when_the_recipe_is_checked(tmp_path):
    recipe = tiny_recipe(SEEN | {"phases": [{"use": "balanced", "as": "main"}]}, tmp_path)
    with pytest.raises(
        UserError, match=r"^lwmfw .*: main.plan_phases plans phase 'main' in step 2, as \[training\] does; na"
    ):
        assemble(load_recipe(recipe))


def test_attention_of_an_inner_stage_is_distilled_beside_a_frozen_backbone(tmp_path):
    recipe = SEEN | {"penalties": [{"use": "L_AD", "layer": 1}], "phases": [{"use": "balanced", "epochs": 1}]}
    assert "L_AD" in tiny_run(recipe, tmp_path).terms[2]


def test_a_parameter_in_two_groups_is_refused(tmp_path):
    class Twice(Probe):
        @hookimpl
        def group_parameters(self, model):
            return [{"params": list(model.classifier.parameters())}] * 2

    with pytest.raises(LwmfwError, match=r"probe\.group_parameters groups a parameter twice; leave it out once"):
        with_penalty(Twice, SEEN, tmp_path)


def test_data_in_another_order_are_refused(tmp_path):
    class Turn(Probe):
        @hookimpl
        def choose_data(self, step, data):
            return data.select(torch.arange(len(data)).flip(0)) if step.index == 2 else None

    with pytest.raises(LwmfwError, match=r"probe\.choose_data returned images that are not the step's, twice or in"):
        with_penalty(Turn, SEEN, tmp_path)


# nearest mean of exemplars


def test_class_means_are_those_of_normalised_features():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(12, 5, dtype=torch.float64, generator=rng) * torch.arange(1, 13)[:, None]
    labels = torch.tensor([0, 1, 2] * 4)
    means = class_means(features, labels, 3)
    for c in range(3):
        mean = sum(f / f.norm() for f in features[labels == c]) / 4
        torch.testing.assert_close(means[c], mean / mean.norm())
    tests = torch.randn(20, 5, dtype=torch.float64, generator=rng)
    nearest = [min(range(3), key=lambda c: float((f / f.norm() - means[c]).square().sum())) for f in tests]
    assert nearest_mean_scores(tests, means).argmax(1).tolist() == nearest


def test_a_class_without_exemplars_is_never_the_nearest():
    features = -torch.eye(3)
    means = class_means(torch.eye(3)[:2], torch.tensor([0, 1]), 3)
    scores = nearest_mean_scores(features, means)
    assert scores.isinf().tolist() == [[False, False, True]] * 3
    assert scores.argmax(1).tolist() == [1, 0, 0]


def test_exemplars_that_turn_out_larger_leave_one_to_a_class(tmp_path):
    class Growing(Raw):
        size = 10

        def encode(self, pixels):
            return [bytes(self.size)] * len(pixels)

        def decode(self, encoded, shape):
            self.size = 100  # from the second step on
            return torch.zeros(len(encoded), *shape, dtype=torch.uint8)

    memory = MEMORY | {"budget": "400 B", "codec": {"use": "growing"}}
    run = tiny_run(SEEN | {"memory": memory}, tmp_path, components=[Codec("growing", Growing)])
    assert [(s.exemplars, s.memory_bytes) for s in run.results.steps] == [(32, 320), (4, 220), (5, 320)]


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_a_codec_that_fails_is_named(method, tmp_path):
    def fail(self, *given):
        raise ValueError("no bits left")

    failing = type("Failing", (Raw,), {method: fail})
    components = [Codec("failing", failing, provider=Provider("shop", "1"))]
    with pytest.raises(LwmfwError, match=rf"shop 1: .*Failing\.{method} raised ValueError: no bits left"):
        tiny_run(SEEN | {"memory": MEMORY | {"codec": {"use": "failing"}}}, tmp_path, components=components)


def test_a_budget_of_less_than_what_exemplars_share_is_refused(tmp_path):
    memory = MEMORY | {"budget": "600 B", "codec": {"use": "jpeg", "tables": "shared"}}
    with pytest.raises(UserError, match=r"memory\.budget: '600 B' is less than an exemplar for each of 6 classes"):
        tiny_run(SEEN | {"memory": memory}, tmp_path)


class Mirrored(Synthetic):
    """Images that training mirrors."""

    def load(self):
        return replace(super().load(), flip=True)


def cosines_to_means(state, *views):
    """Cosines (N, classes) of the test images to the means of normalised features of exemplars in several views."""
    features = state.features(state.data.test)
    sums = torch.zeros(state.model.classes, features.shape[1])
    for view in views:
        for feature, label in zip(state.features(view), view.labels.tolist(), strict=True):
            sums[label] += feature / feature.norm()
    return torch.stack([torch.stack([f @ s / f.norm() / s.norm() for s in sums]) for f in features])


@pytest.mark.parametrize("data", ["synthetic", "mirrored"])
def test_nme_takes_mirrored_exemplars_too_where_training_mirrors(data, tmp_path):
    tables = SEEN | {"data": SEEN["data"] | {"use": data}, "readouts": [{"use": "nme"}]}
    run = tiny_run(tables, tmp_path, components=[Data("mirrored", Mirrored, SyntheticOptions)])
    state, exemplars = run.run, run.run.memory.images()
    once = cosines_to_means(state, exemplars)
    twice = cosines_to_means(state, exemplars, replace(exemplars, pixels=exemplars.pixels.flip(-1)))
    assert (once - twice).abs().max() > 1e-4, "mirroring has to make a difference here"
    expected = twice if data == "mirrored" else once
    assert_close(state.assembly.of_kind("readout")["nme"].method("scores")(state.features(state.data.test)), expected)
    right = (expected.argmax(1) == state.data.test.labels).sum()
    assert run.results.last_accuracy["nme"] == pytest.approx(int(right) / 48)


def test_nme_has_means_of_the_exemplars_of_every_step(tmp_path):
    run = tiny_run(SEEN | {"readouts": [{"use": "cnn"}, {"use": "nme"}]}, tmp_path)
    assert [set(s.accuracy) for s in run.results.steps] == [{"cnn", "nme"}] * 3
    assert run.results.last_accuracy.keys() == run.results.forgetting.keys() == {"cnn", "nme"}


def test_nme_needs_exemplars(tmp_path):
    with pytest.raises(UserError, match=r"nme needs exemplars, but the recipe keeps none; add \[memory\]"):
        tiny_run({"readouts": [{"use": "cnn"}, {"use": "nme"}]}, tmp_path)


# photographs


@pytest.fixture
def photographs(tmp_path):
    rng = torch.Generator().manual_seed(0)
    for label in range(4):
        folder = tmp_path / "photographs" / f"class {label}"
        folder.mkdir(parents=True)
        for n in range(10):
            width, height = torch.randint(20, 40, (2,), generator=rng).tolist()
            pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=rng)
            pixels[..., label % 3] //= 2 + label
            Image.fromarray(pixels.numpy()).save(folder / f"{n}.png")
    return tmp_path / "photographs"


def test_photographs_are_kept_whole_at_their_size_and_counted(photographs, tmp_path):
    data = {"use": "folder", "root": str(photographs), "size": 16, "decode": "each epoch"}
    batches = []

    class Watch(Probe):
        @hookimpl
        def after_update(self, step, batch):
            batches.append((step.index, int(batch.from_memory.sum()), len(batch.labels)))

    recipe = SEEN | {"data": data, "memory": MEMORY | {"budget": "2 per class"}}
    recipe |= {"readouts": [{"use": "cnn"}, {"use": "nme"}], "scenario": {"first": 2, "increment": 2}}
    run = with_penalty(Watch, recipe, tmp_path)
    assert [s.exemplars for s in run.results.steps] == [4, 8]
    memory = run.run.memory
    assert all(min(s.height, s.width) == 18 for s in memory.exemplars)
    assert len({(s.height, s.width) for s in memory.exemplars}) > 1
    assert run.results.steps[-1].memory_bytes == sum(3 * s.height * s.width + 4 for s in memory.exemplars)
    assert sum(old for step, old, _ in batches if step == 2) == 4


def test_the_console_names_the_phase_and_every_classifier(tmp_path, capsys):
    recipe = SEEN | {"phases": [{"use": "balanced", "epochs": 2}], "observers": [{"use": "console"}]}
    tiny_run(recipe | {"readouts": [{"use": "nme"}, {"use": "cnn"}]}, tmp_path)
    shown = capsys.readouterr().err
    for line in (
        "step 1/3  main  epoch 1/1  ",
        "step 2/3  balanced  epoch 2/2  ",
        "accuracy by nme ",
        "accuracy by cnn ",
    ):
        assert line in shown
    assert "epoch 2/1" not in shown
