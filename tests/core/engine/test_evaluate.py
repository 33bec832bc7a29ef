"""What is measured after a step, against counting image by image."""

import hashlib
import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.runs import THREE_STEPS
from torch.nn.functional import one_hot

from lwmfw import Readout, hookimpl
from lwmfw.data.loader import EVALUATION_BATCH
from lwmfw.engine.evaluate import _certificates, digest, evaluate
from lwmfw.errors import RunFailed
from lwmfw.model.growing import Model
from lwmfw.recipe.scenario import Step
from lwmfw.testing import tiny_run


def scoring(score):
    """A read-out whose scores are a function of the labels of the images that are asked about and of the classes."""

    class Scoring:
        def __init__(self, options):
            pass

        @hookimpl
        def before_run(self, run):
            self.run = run

        @hookimpl
        def after_training(self):
            self.given = 0

        def scores(self, features):
            classes = self.run.model.classes
            self.given += len(features)
            scores = score(self.run.data.test.of_classes(range(classes)).labels, classes)
            return scores[self.given - len(features) : self.given]

    return Scoring


def scored(score, folder, tables):
    """An untrained run with such a read-out."""
    tables = tables | {"training": {"epochs": 0}, "readouts": [{"use": "scoring"}]}
    return tiny_run(tables, folder, components=[Readout("scoring", scoring(score))])


def muddled(labels, classes):
    """Scores in an order that has little to do with the labels, no two of an image alike."""
    rng = torch.Generator().manual_seed(classes)
    return torch.rand(len(labels), classes, generator=rng) + 0.3 * one_hot(labels, classes)


def test_accuracies_and_confusion_are_what_counting_gives(tmp_path):
    more_than_a_batch = {"train_per_class": 4, "test_per_class": 40, "size": 4}
    data = {"use": "synthetic", "classes": 7, **more_than_a_batch}
    run = scored(muddled, tmp_path, {"data": data, "scenario": {"first": 3, "increment": 2}})
    groups = [range(3), range(3, 5), range(5, 7)]
    for result in run.results.steps:
        steps, seen = groups[: result.step], groups[result.step - 1].stop
        labels = run.run.data.test.of_classes(range(seen)).labels
        confusion, top5, aware = [[0] * seen for _ in range(seen)], 0, 0
        for label, scores in zip(labels.tolist(), muddled(labels, seen).tolist(), strict=True):
            ranked = sorted(range(seen), key=lambda c: -scores[c])
            confusion[label][ranked[0]] += 1
            top5 += label in ranked[:5]
            own = next(classes for classes in steps if label in classes)
            aware += max(own, key=lambda c: scores[c]) == label
        assert result.confusion["scoring"] == confusion
        assert {type(count) for row in result.confusion["scoring"] for count in row} == {int}
        assert result.accuracy_top5["scoring"] == top5 / len(labels)
        assert result.accuracy_task_aware["scoring"] == aware / len(labels)
        assert result.accuracy["scoring"] == sum(confusion[c][c] for c in range(seen)) / len(labels)
        by_step = [sum(confusion[c][c] for c in classes) / (40 * len(classes)) for classes in steps]
        assert result.accuracy_by_step["scoring"] == pytest.approx(by_step)
    assert result.accuracy_task_aware["scoring"] > result.accuracy["scoring"] > 1 / 7
    assert result.accuracy_top5["scoring"] < 1


def test_a_model_is_shown_batches_of_one_shape_however_many_images_a_step_tests(tmp_path, monkeypatch):
    """Kernels are made for every shape, and kept; and with another shape a convolution may round otherwise."""
    shapes, forward = [], Model.forward

    def noted(model, images):
        if not model.training:
            shapes.append(tuple(images.shape))
        return forward(model, images)

    monkeypatch.setattr(Model, "forward", noted)
    tested = tiny_run(THREE_STEPS, tmp_path)
    assert len({step.seen for step in tested.results.steps}) == 3
    assert len(shapes) >= 3
    assert set(shapes) == {(EVALUATION_BATCH, *tested.run.data.test.pixels.shape[1:])}


def test_a_right_class_within_its_step_is_right_whatever_the_other_steps_say(tmp_path):
    def first_step_first(labels, classes):
        scores = one_hot(labels, classes).float()
        scores[:, :2] += 2
        return scores

    run = scored(first_step_first, tmp_path, THREE_STEPS)
    last = run.results.steps[-1]
    assert last.accuracy["scoring"] == pytest.approx(2 / 6)
    assert last.accuracy_task_aware["scoring"] == 1.0
    assert run.results.task_aware_accuracy == {"scoring": 1.0}
    assert run.results.steps[0].accuracy_task_aware == run.results.steps[0].accuracy


def test_scores_of_other_classes_than_are_seen_are_the_readouts_fault(tmp_path):
    said = r"^test: scoring\.scores returned scores of 3 classes; 2 are seen, return one for each; .* in step 1"
    with pytest.raises(RunFailed, match=said):
        scored(lambda labels, classes: torch.zeros(len(labels), classes + 1), tmp_path, {})


def test_where_a_class_has_no_test_images_what_is_of_all_classes_is_left_blank(tmp_path):
    run, step = tiny_run({}, tmp_path).run, Step(2, range(2, 4), range(4), 2)
    run.data = replace(run.data, test=run.data.test.of_classes(range(2)))
    found = evaluate(run, step, train_seconds=1.23456, epochs=2)
    assert found.accuracy_top5 == found.accuracy_task_aware == {"cnn": None}
    assert (found.accuracy["cnn"] is None, found.accuracy_by_step["cnn"][1]) == (True, None)
    assert sum(map(sum, found.confusion["cnn"])) == 16
    run.data = replace(run.data, test=run.data.test.of_classes(range(0)))
    assert evaluate(run, step, train_seconds=0.0, epochs=2).confusion["cnn"] == [[0] * 4] * 4
    assert found.train_seconds == 1.235


def test_what_a_step_costs_is_counted(tmp_path):
    memory = {"budget": "5 per class", "select": {"use": "random"}}
    seen = {"scenario": {"first": 2, "increment": 2, "order": [3, 1, 0, 2]}, "objective": {"over": "seen"}}
    for number, table in enumerate(({}, {"memory": memory})):
        (tmp_path / str(number)).mkdir()
        run = tiny_run({"training": {"epochs": 0}} | seen | table, tmp_path / str(number))
        last, parameters = run.results.steps[-1], sum(p.numel() for p in run.run.model.parameters())
        assert (last.step, last.new_classes, last.seen) == (2, [0, 2], 4)
        assert (last.exemplars, last.memory_bytes) == (number * 20, number * 20 * 3 * 8 * 8)
        assert last.parameters == parameters
        assert last.model_bytes == 4 * parameters + sum(b.numel() * b.element_size() for b in run.run.model.buffers())


def certificates(before=(), exact=True, arithmetic=None):
    """What is certified of a read-out `sums` with a state, after steps of which this was certified."""
    backbone = torch.nn.Linear(2, 2)
    run = SimpleNamespace(
        model=SimpleNamespace(backbone=backbone),
        results=SimpleNamespace(steps=[SimpleNamespace(readouts=readouts) for readouts in before]),
        origin=SimpleNamespace(facts={"arithmetic": arithmetic}) if arithmetic else None,
        arithmetic={"threads": 1},
    )
    with torch.no_grad():
        backbone.weight.fill_(1.0)
        backbone.bias.fill_(0.0)
    part = SimpleNamespace(trait=lambda name: name == "exact" and exact)
    return _certificates(run, {"sums": part, "cnn": part}, {"sums": {"n": torch.ones(2), "images": 7}, "cnn": {}})


def test_a_certificate_is_of_what_was_summed_and_of_the_features_it_was_summed_in():
    ((name, said),) = certificates(exact=False).items()
    assert (name, list(said)) == ("sums", ["statistics", "backbone", "images"])
    assert said["statistics"] == digest({"n": torch.ones(2)})
    assert said["backbone"] == digest({"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    assert said["images"] == 7


def test_sums_are_exact_as_long_as_all_were_exact_in_one_backbone_and_one_arithmetic():
    first = certificates()
    other = {"sums": first["sums"] | {"backbone": "another"}}
    inexact = {"sums": first["sums"] | {"exact": False}}
    for before, exact in (([], True), ([first], True), ([other], False), ([inexact], False), ([{}], False)):
        assert certificates(before)["sums"] == first["sums"] | {"exact": exact}, before
    assert certificates([inexact, first])["sums"]["exact"], "the last step speaks for those before it"
    assert certificates(arithmetic={"threads": 1})["sums"]["exact"] is True
    assert certificates(arithmetic={"threads": 2})["sums"]["exact"] is False


def test_the_bytes_of_a_readout_are_those_of_its_tensors(tmp_path):
    class Stateful(scoring(muddled)):
        def state(self):
            return {"rows": torch.zeros(3, 5, dtype=torch.float64), "count": torch.zeros((), dtype=torch.int64), "k": 7}

        def restore(self, state):
            pass

    tables = {"training": {"epochs": 0}, "readouts": [{"use": "cnn"}, {"use": "stateful"}]}
    last = tiny_run(tables, tmp_path, components=[Readout("stateful", Stateful)]).results.steps[-1]
    assert last.readout_bytes == {"cnn": 0, "stateful": 3 * 5 * 8 + 8}
    assert list(last.readouts) == ["stateful"]
    assert last.readouts["stateful"]["k"] == 7


def test_a_digest_is_of_names_types_shapes_and_values_of_tensors():
    one = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.int64), "said": "something"}
    same = {"b": one["b"].clone(), "a": one["a"].T.contiguous().T, "said": "another"}
    assert digest(same) == digest(one)
    text = (
        b"a torch.float32 (2, 3)\n" + struct.pack("<6f", *range(6)) + b"b torch.int64 (2,)\n" + struct.pack("<2q", 1, 1)
    )
    assert digest(one) == hashlib.sha256(text).hexdigest()
