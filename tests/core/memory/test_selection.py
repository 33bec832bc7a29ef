"""Which exemplars are kept: what a selection has to be, who is asked for it, and from what it is made."""

import pytest
import torch

from lwmfw import Images, Penalty, Selection, Selector, hookimpl
from lwmfw.components import Provider
from lwmfw.data.images import ImageFiles
from lwmfw.errors import RunFailed
from lwmfw.memory.selection import at_most, selection_fault
from lwmfw.testing import tiny_run

SEEN = {"objective": {"use": "cross_entropy", "over": "seen"}}


def test_a_selection_is_told_class_by_class_whatever_order_it_was_made_in():
    selection = Selection({1: torch.tensor([6, 3, 5]), 0: torch.tensor([1])})
    assert selection.order.tolist() == [1, 6, 3, 5]
    assert selection.ranks.tolist() == [0, 0, 1, 2]


def test_photographs_in_their_files_cannot_be_changed():
    files = ImageFiles(["a.png", "b.png"], torch.tensor([0, 1]), 8, 8)
    selection = Selection({0: torch.tensor([0])}, {0: torch.zeros(1, 3, 8, 8, dtype=torch.uint8)})
    said = 'changes pixels of photographs that stay in their files; set data.decode = "once"'
    assert selection_fault(selection, files, {0: 1}) == said
    assert selection_fault(Selection(selection.indices), files, {0: 1}) == ""


def test_a_quota_is_at_most_what_there_is():
    assert at_most(
        {0: 3, 1: 3, 2: 1}, Images(torch.zeros(7, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 0, 1, 1, 1, 1, 1]))
    ) == {0: 2, 1: 3, 2: 0}


def chosen_by(select, tmp_path):
    """Run with a selector that is a function of candidates and quota."""

    class Select:
        def __init__(self, options):
            pass

        @hookimpl
        def select_memory(self, candidates, quota):
            return select(candidates, quota)

    recipe = SEEN | {"memory": {"budget": "3 per class", "select": {"use": "chosen"}}}
    return tiny_run(recipe, tmp_path, components=[Selector("chosen", Select, provider=Provider("shop", "1"))])


def first(candidates, quota):
    return {c: (candidates.labels == c).nonzero().flatten()[:n] for c, n in quota.items()}


@pytest.mark.parametrize(
    ("select", "fault"),
    [
        (lambda c, q: first(c, q), "returned dict; return a Selection"),
        (lambda c, q: None, "returned None; return a Selection"),
        (
            lambda c, q: Selection({"b": torch.tensor([0]), 1: torch.tensor([1])}),
            r"selects from classes \[1, 'b'\], the",
        ),
        (lambda c, q: Selection({}), r"selects from classes \[\], the quota names \[0, 1\]"),
        (
            lambda c, q: Selection({k: v.repeat(2) for k, v in first(c, q).items()}),
            "selects 6 images of class 0",
        ),
        (
            lambda c, q: Selection({k: v.float() for k, v in first(c, q).items()}),
            r"selects by torch.float32 of shape \(3,\) for class 0; give torch.int64 of shape \(K,\) on cpu",
        ),
        (
            lambda c, q: Selection({k: v[:, None] for k, v in first(c, q).items()}),
            r"selects by torch.int64 of shape \(3, 1\) for class 0; give torch.int64 of shape \(K,\) on cpu",
        ),
        (lambda c, q: Selection([1]), "returned a Selection whose indices hold list; give class -> tensor"),
        (lambda c, q: Selection({k: v[[0, 0]] for k, v in first(c, q).items()}), "selects an image of class 0 twice"),
        (lambda c, q: Selection(dict.fromkeys(q, torch.tensor([0]))), "selects for class 1 what is no image of it"),
        (lambda c, q: Selection(dict.fromkeys(q, torch.tensor([-1]))), "selects for class 0 what is no image of it"),
        (lambda c, q: Selection(dict.fromkeys(q, torch.tensor([32]))), "selects for class 0 what is no image of it"),
        (lambda c, q: Selection(dict.fromkeys(q, torch.tensor([99]))), "selects for class 0 what is no image of it"),
    ],
)
def test_a_selection_that_cannot_be_kept_names_the_selector(select, fault, tmp_path):
    with pytest.raises(RunFailed, match=f"^shop 1: chosen.select_memory {fault}.*; the run stopped in step 1"):
        chosen_by(select, tmp_path)


def test_later_steps_choose_from_what_is_held_and_what_is_new(tmp_path):
    offered = []

    def note(candidates, quota):
        offered.append((candidates.labels.bincount().tolist(), dict(quota)))
        return Selection(first(candidates, quota))

    chosen_by(note, tmp_path)
    assert offered == [([16, 16], {0: 3, 1: 3}), ([3, 3, 16, 16], dict.fromkeys(range(4), 3))]


def test_who_selects_is_offered_the_run_its_step_and_its_model(tmp_path):
    offered = []

    class Select:
        def __init__(self, options):
            pass

        @hookimpl
        def before_memory(self, run, step, model, candidates, rng):
            offered.append((run, step.index, model, len(candidates), type(rng)))

        @hookimpl
        def select_memory(self, run, step, model, candidates, quota, rng):
            offered.append((run, step.index, model, len(candidates), type(rng)))
            return Selection(first(candidates, quota))

    memory = {"budget": "3 per class", "select": {"use": "chosen"}}
    run = tiny_run(SEEN | {"memory": memory}, tmp_path, components=[Selector("chosen", Select)]).run
    expected = [(run, step, run.model, count, torch.Generator) for step, count in ((1, 32), (2, 38))]
    assert offered == [each for each in expected for _ in range(2)]


@pytest.mark.parametrize(
    ("memory", "held"), [({}, []), ({"memory": {"budget": "12 exemplars", "select": {"use": "random"}}}, [6, 6])]
)
def test_exemplars_that_a_step_leaves_out_stay_candidates_and_new_images_do_not(memory, held, tmp_path):
    seen = []

    class Choose:
        def __init__(self, options):
            pass

        @hookimpl
        def choose_data(self, step, data):
            kept = [(data.labels == label).nonzero().flatten()[label % 2 + 1 :] for label in step.seen_classes]
            return data.select(torch.cat(kept)) if step.index == 2 else None

        @hookimpl
        def after_training(self, data):
            seen.append(data.labels.bincount().tolist())

        @hookimpl
        def before_memory(self, candidates):
            seen.append(candidates.labels.bincount().tolist())

        @hookimpl
        def compute_penalty(self):
            return None

    tables = SEEN | memory | {"penalties": [{"use": "choose"}]}
    tiny_run(tables, tmp_path, components=[Penalty("choose", Choose)])
    trained = [5, 4, 15, 14] if held else [0, 0, 15, 14]
    assert seen == [[16, 16]] * (1 + bool(held)) + [trained, *([[*held, 15, 14]] if held else [])]
