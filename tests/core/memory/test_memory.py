"""Exemplar memory: what is kept, what is trained on again, and what an interruption leaves of it."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lwmfw import Images, Observer, Penalty, Selection, hookimpl
from lwmfw.data.images import ImageFiles, StoredImage
from lwmfw.errors import Interrupted
from lwmfw.memory.store import Memory
from lwmfw.recipe.budget import Budget
from lwmfw.testing import tiny_run
from lwmfw_plugins.codecs.raw import Raw

SEEN = {"objective": {"use": "cross_entropy", "over": "seen"}}
RANDOM = SEEN | {"memory": {"budget": "12 exemplars", "select": {"use": "random"}}}
THREE_STEPS = {
    "data": {"use": "synthetic", "classes": 6, "train_per_class": 16, "test_per_class": 8},
    "scenario": {"first": 2, "increment": 2},
}


# what is kept


def numbered(counts):
    """One-pixel images of classes 0, 1, ... whose pixels are their numbers."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Images(torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1), labels)


def test_the_memory_keeps_what_is_selected_in_its_order():
    candidates = numbered([3, 4])
    memory = Memory(Budget("per class", 2), Raw(None), candidates)
    assert (memory.exemplars, memory.labels.tolist(), memory.bytes) == ([], [], 0)
    memory.store(candidates, Selection({1: torch.tensor([6, 3]), 0: torch.tensor([1])}))
    assert memory.images().pixels.flatten().tolist() == [1, 6, 3]
    assert memory.images().labels.tolist() == [0, 1, 1]
    assert memory.bytes == 3


class Counting(Raw):
    """A codec of images of so many bytes as their first pixel says, which are encoded once."""

    def encode(self, pixels):
        return [bytes([image[0, 0, 0]]) * int(image[0, 0, 0]) for image in pixels]

    def decode(self, encoded, shape):
        return torch.tensor([e[0] for e in encoded], dtype=torch.uint8).view(-1, 1, 1, 1)

    def shared_bytes(self, shape):
        return 10


def test_what_is_held_keeps_its_bytes_and_is_never_encoded_again():
    candidates = numbered([3, 4])
    memory = Memory(Budget("per class", 2), Counting(None), candidates)
    memory.store(candidates, Selection({0: torch.tensor([2]), 1: torch.tensor([4])}))
    assert memory.bytes == 2 + 4 + 10
    joined = memory.join(Images(torch.tensor([9, 8], dtype=torch.uint8).view(-1, 1, 1, 1), torch.tensor([2, 2])))
    assert joined.pixels.flatten().tolist() == [2, 4, 9, 8]
    memory.codec.encode = lambda pixels: [b"new" for _ in pixels]
    memory.store(joined, Selection({0: torch.tensor([0]), 1: torch.tensor([1]), 2: torch.tensor([3])}))
    assert [stored.encoded for stored in memory.exemplars] == [bytes([2]) * 2, bytes([4]) * 4, b"new"]


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=12), amount=st.integers(10, 300))
def test_bytes_are_never_exceeded_and_the_least_important_go_first(sizes, amount):
    labels = torch.arange(len(sizes)) // 3
    candidates = Images(torch.tensor(sizes, dtype=torch.uint8).view(-1, 1, 1, 1), labels)
    memory = Memory(Budget("bytes", amount), Counting(None), candidates)
    indices = {c: (labels == c).nonzero().flatten() for c in labels.unique().tolist()}
    memory.store(candidates, Selection(indices))
    assert memory.bytes <= max(amount, 10)
    by_rank = sorted(range(len(sizes)), key=lambda i: (i % 3, i // 3))
    kept, left = [], amount - 10
    for i in by_rank:
        if sizes[i] > left:
            break
        kept, left = [*kept, i], left - sizes[i]
    assert [len(s.encoded) for s in memory.exemplars] == [sizes[i] for i in sorted(kept)]


def test_what_is_new_is_encoded_whether_a_refiner_changed_it_or_not():
    candidates, black = numbered([3, 4]), torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    memory = Memory(Budget("per class", 2), Raw(None), candidates)
    memory.store(candidates, Selection({0: torch.tensor([2]), 1: torch.tensor([4, 6])}, {0: black}))
    assert memory.images().pixels.flatten().tolist() == [0, 4, 6]


def test_a_memory_that_holds_nothing_has_nothing_decoded():
    memory = Memory(Budget("all", 0), Raw(None), numbered([3]))
    memory.codec.decode = None
    assert memory.join(numbered([2, 1])).pixels.flatten().tolist() == [0, 1, 2]


def test_images_are_seen_as_they_would_be_stored():
    images = numbered([3, 4])
    memory = Memory(Budget("all", 0), Raw(None), images)
    memory.codec.encode = lambda pixels: [bytes([2 * image[0, 0, 0]]) for image in pixels]
    seen = memory.as_stored(images)
    assert seen.pixels.flatten().tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert (seen.labels.tolist(), memory.exemplars) == (images.labels.tolist(), [])


@pytest.mark.parametrize("counts", [[3, 4], [0, 0]], ids=["some", "none"])
def test_what_a_checkpoint_keeps_is_taken_up_as_it_was(counts):
    memory, other = (Memory(Budget("all", 0), Counting(None), numbered([3, 4])) for _ in range(2))
    candidates = numbered(counts)
    memory.store(candidates, Selection({c: (candidates.labels == c).nonzero().flatten() for c in (1, 0)}))
    state = memory.state()
    assert {name: value.dtype for name, value in state.items()} == {
        "encoded": torch.uint8, "lengths": torch.int64, "sizes": torch.int64, "labels": torch.int64,
    }  # fmt: skip
    other.restore(state)
    assert (other.exemplars, other.labels.tolist()) == (memory.exemplars, [0] * counts[0] + [1] * counts[1])
    assert other.state().keys() == state.keys()


def test_photographs_of_any_shape_are_taken_up_with_their_heights_and_widths():
    none = ImageFiles([], torch.empty(0, dtype=torch.int64), 16, 18)
    memory, other = (Memory(Budget("all", 0), Raw(None), none) for _ in range(2))
    memory.exemplars = [StoredImage(b"wide", 18, 24), StoredImage(b"upright", 30, 18)]
    memory.labels = torch.tensor([0, 1])
    other.restore(memory.state())
    assert other.exemplars == memory.exemplars


def test_the_cost_of_an_exemplar_is_measured():
    candidates = numbered([3, 4])
    assert Memory(Budget("all", 0), Counting(None), candidates).cost(candidates.select(torch.tensor([2, 4, 6]))) == 4


def test_the_cost_is_that_of_what_is_held_and_of_512_others_from_the_first_to_the_last():
    count = 1025
    others = Images(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))
    others.pixels[:, 0, 0, 0] = torch.arange(count) // 5
    memory, asked = Memory(Budget("all", 0), Counting(None), others), []
    memory.exemplars = [StoredImage(bytes(300), 1, 1)]
    memory.codec.encode = lambda pixels: asked.extend(pixels.flatten().tolist()) or [b"12"] * len(pixels)
    assert memory.cost(others) == (300 + 512 * 2) / 513
    assert (len(asked), asked[0], asked[-1]) == (512, 0, 204)
    assert asked == sorted(asked)
    asked.clear()
    assert memory.cost(others.select(torch.arange(7))) == (300 + 6 * 2) / 7
    assert asked == [0, 0, 0, 0, 1, 1], "what is held is not encoded again, and of few all others are"


# what is trained on


def test_exemplars_are_trained_on_beside_new_images_and_counted(tmp_path):
    seen = []

    class Watch:
        def __init__(self, options):
            pass

        @hookimpl
        def after_update(self, step, batch):
            seen.append((step.index, batch.labels.clone(), batch.from_memory.clone()))

        @hookimpl
        def after_step(self, step, data):
            seen.append((step.index, data.labels, data.labels < step.new_classes.start))

        @hookimpl
        def compute_penalty(self):
            return None

    components = [Penalty("watch", Watch)]
    run = tiny_run(THREE_STEPS | RANDOM | {"penalties": [{"use": "watch"}]}, tmp_path, components=components)
    for step, held in ((1, {}), (2, {0: 6, 1: 6}), (3, {0: 3, 1: 3, 2: 3, 3: 3})):
        batches = [rest for index, *rest in seen if index == step]
        *trained, at_the_end = batches
        for labels, from_memory in (torch.cat([p[0] for p in trained]), torch.cat([p[1] for p in trained])), at_the_end:
            counts = {c: int((labels == c).sum()) for c in labels.unique().tolist()}
            assert counts == held | dict.fromkeys(range(2 * step - 2, 2 * step), 16)
            assert torch.equal(from_memory, labels < 2 * step - 2)
    assert [s.exemplars for s in run.results.steps] == [12, 12, 12]
    assert [s.memory_bytes for s in run.results.steps] == [12 * 3 * 8 * 8] * 3


def test_what_is_planned_is_what_happens(tmp_path):
    run = tiny_run(THREE_STEPS | RANDOM, tmp_path).run
    assert [run.planned_shape(step, run.phases(step)[0]).count for step in run.steps] == [32, 32 + 12, 32 + 12]
    assert [run.updates(step) for step in run.steps] == [2, 3, 3]


def test_all_images_are_kept_where_the_budget_says_so(tmp_path):
    run = tiny_run({"memory": RANDOM["memory"] | {"budget": "all"}} | SEEN, tmp_path)
    assert [step.exemplars for step in run.results.steps] == [32, 64]


def test_a_recipe_without_memory_has_none(tmp_path):
    run = tiny_run({}, tmp_path)
    assert run.run.memory is None
    assert [(s.exemplars, s.memory_bytes) for s in run.results.steps] == [(0, 0)] * 2


# an interruption


def test_a_run_resumed_with_exemplars_has_the_bits_of_an_uninterrupted_one(tmp_path):
    class Stop:
        def __init__(self, options):
            pass

        @hookimpl
        def before_step(self, step):
            if step.index == 3 and self.stops.pop():
                raise KeyboardInterrupt

    def three_steps(name, stops):
        (tmp_path / name).mkdir(exist_ok=True)
        Stop.stops = stops
        recipe = THREE_STEPS | RANDOM | {"observers": [{"use": "stop"}]}
        return tiny_run(recipe, tmp_path / name, components=[Observer("stop", Stop)])

    whole = three_steps("whole", [False])
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        three_steps("halved", [True])
    resumed = three_steps("halved", [False])
    a, b = whole.run, resumed.run
    assert a.memory.exemplars == b.memory.exemplars
    assert torch.equal(a.memory.labels, b.memory.labels)
    for name, value in a.model.state_dict().items():
        assert torch.equal(value, b.model.state_dict()[name]), name
    assert [s.accuracy for s in a.results.steps] == [s.accuracy for s in b.results.steps]


def test_the_resolved_recipe_holds_the_memory(tmp_path):
    run = tiny_run(RANDOM, tmp_path)
    text = (run.path / "resolved.toml").read_text()
    assert '[memory]\nbudget = "12 exemplars"\nrefine = []\nreplay = 0.0\n\n[memory.select]\nuse = "random"\n' in text
    assert '[memory.rate]\nuse = "even"\n\n[memory.codec]\nuse = "raw"\n' in text
    assert json.loads((run.path / "results.json").read_text())["providers"]["random"].startswith("lwmfw ")
