"""Refiners: what they are asked, in which order, what is stored of their answer, and what is refused."""

import pytest
import torch
from helpers.shop import RECIPE, refusal

from lwmfw import Images, Options, Refiner, Selection, Selector, UserError, hookimpl
from lwmfw.components import Provider
from lwmfw.errors import RunFailed
from lwmfw.memory.store import Memory
from lwmfw.recipe.budget import Budget
from lwmfw.testing import tiny_run
from lwmfw.testing.tiny import beside_installed
from lwmfw_plugins.codecs.raw import Raw

MEMORY = {"budget": "3 per class", "select": {"use": "random"}}
SEEN = {"objective": {"use": "cross_entropy", "over": "seen"}}
SHOP = Provider("shop", "1")


class Refining:
    """A refiner of one line."""

    def __init__(self, options):
        pass

    def change(self, candidates, selection):
        return selection

    @hookimpl(wrapper=True)
    def select_memory(self, candidates):
        selection = yield
        return self.change(candidates, selection)


def doing(change):
    """A refiner that is a function of candidates and selection."""
    return type("Doing", (Refining,), {"change": lambda self, candidates, selection: change(candidates, selection)})


def per_class(images, change):
    return {c: change(images.pixels[images.labels == c]) for c in images.labels.unique().tolist()}


def darker(candidates, selection):
    return Selection(selection.indices, per_class(selection.images(candidates), lambda pixels: pixels // 2))


def black(candidates, selection):
    return Selection(selection.indices, per_class(selection.images(candidates), torch.zeros_like))


def run_with(tmp_path, *refiners, **tables):
    names = [f"refiner-{n}" for n in range(len(refiners))]
    components = [Refiner(name, factory, provider=SHOP) for name, factory in zip(names, refiners, strict=True)]
    memory = MEMORY | {"refine": [{"use": name} for name in names]}
    tmp_path.mkdir(exist_ok=True)
    return tiny_run(SEEN | {"memory": memory} | tables, tmp_path, components=components).run


def test_the_memory_stores_what_a_refiner_made_of_the_selection(tmp_path):
    plain = run_with(tmp_path / "plain").memory.images()
    kept = run_with(tmp_path / "black", doing(black)).memory.images()
    assert torch.equal(kept.labels, plain.labels)
    assert kept.pixels.shape == plain.pixels.shape
    assert not kept.pixels.any()


def test_refiners_follow_one_another_in_recipe_order(tmp_path):
    saw = []

    def noting(name):
        def change(candidates, selection):
            saw.append((name, int(selection.images(candidates).pixels.max())))
            return black(candidates, selection)

        return doing(change)

    run_with(tmp_path, noting("first"), noting("second"))
    assert [name for name, _ in saw] == ["first", "second"] * 2
    assert saw[0][1] > 0
    assert saw[1][1] == 0, "the second sees what the first made"


def test_other_hooks_of_refiners_come_in_recipe_order_too(tmp_path):
    called = []

    def noting(name):
        class Noting(Refining):
            @hookimpl
            def after_step(self):
                called.append(name)

        return Noting

    run_with(tmp_path, noting("first"), noting("second"))
    assert called == ["first", "second"] * 2


def test_a_phase_of_balanced_images_is_trained_on_what_was_selected(tmp_path):
    calls = []

    def change(candidates, selection):
        calls.append(len(candidates))
        return selection

    run_with(tmp_path, doing(change), phases=[{"use": "balanced", "epochs": 1}])
    assert len(calls) == 2, "once a step, when the memory is filled"


def test_what_is_held_and_not_changed_keeps_its_bytes():
    pixels = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    images = Images(pixels, torch.tensor([0, 0, 1, 1]))
    memory = Memory(Budget("per class", 2), Raw(None), images)
    memory.store(images, Selection({0: torch.tensor([0, 1]), 1: torch.tensor([2, 3])}))
    encode, asked = memory.codec.encode, []
    memory.codec.encode = lambda pixels: asked.append(pixels) or encode(pixels)
    changed = {0: pixels[1:2], 1: torch.stack([100 + pixels[3], pixels[2]])}
    memory.store(memory.images(), Selection({0: torch.tensor([1]), 1: torch.tensor([3, 2])}, changed))
    assert torch.equal(torch.cat(asked), 100 + pixels[3:4]), "what a refiner hands back as it was is not encoded again"
    assert torch.equal(memory.images().pixels, torch.cat([pixels[1:2], 100 + pixels[3:4], pixels[2:3]]))


@pytest.mark.parametrize(
    ("pixels", "fault"),
    [
        ({9: torch.zeros(3, 3, 8, 8, dtype=torch.uint8)}, "changes pixels of class 9, of which it selects nothing"),
        (
            {0: torch.zeros(3, 3, 8, 8)},
            r"has torch.float32 of shape \(3, 3, 8, 8\) for class 0; give torch.uint8 of shape \(3, 3, 8, 8\)",
        ),
        ({0: [1, 2]}, "returned a Selection whose pixels hold list; give class -> tensor"),
        ({0: torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, r"has torch.uint8 of shape \(2, 3, 8, 8\) for class 0; give"),
    ],
)
def test_pixels_that_cannot_be_stored_are_refused(pixels, fault, tmp_path):
    with pytest.raises(RunFailed, match=f"^shop 1: refiner-0.select_memory {fault}.*; the run stopped in step 1"):
        run_with(tmp_path, doing(lambda candidates, selection: Selection(selection.indices, pixels)))


def test_an_error_in_a_refiner_is_its_own_on_both_sides_of_the_selection(tmp_path):
    class Before(Refining):
        @hookimpl(wrapper=True)
        def select_memory(self):
            raise ValueError("before")
            yield

    def after(candidates, selection):
        raise ValueError("after")

    for refiner, what in (
        (Before, "Before.select_memory raised ValueError: before"),
        (doing(after), "Doing.select_mem"),
    ):
        with pytest.raises(RunFailed, match=rf"shop 1: .*{what}.*; the run stopped in step 1"):
            run_with(tmp_path / refiner.__name__, refiner)


def test_an_error_in_the_selector_is_not_the_refiners(tmp_path):
    class Failing:
        def __init__(self, options):
            pass

        @hookimpl
        def select_memory(self):
            raise ValueError("no choice")

    components = [
        Selector("failing", Failing, provider=SHOP),
        Refiner("idle", Refining, provider=Provider("other", "1")),
    ]
    memory = MEMORY | {"select": {"use": "failing"}, "refine": [{"use": "idle"}]}
    with pytest.raises(RunFailed, match=r"^shop 1: .*Failing.select_memory raised ValueError: no choice"):
        tiny_run(SEEN | {"memory": memory}, tmp_path, components=components)


@pytest.mark.parametrize("marker", [hookimpl, hookimpl(wrapper=True, tryfirst=True)])
def test_a_refiner_has_to_wrap(marker, tmp_path):
    class Wrong(Refining):
        @marker
        def select_memory(self, candidates):
            yield

    with pytest.raises(
        UserError,
        match=r"shop 1: Wrong.select_memory of a refiner has to wrap the selector's; "
        r"mark it @hookimpl\(wrapper=True\) and begin it with `selection = yield`",
    ):
        run_with(tmp_path, Wrong)


def test_two_refiners_of_one_name_are_refused():
    message = refusal(
        RECIPE + '\n[memory]\nbudget = "all"\nselect = { use = "s" }\nrefine = [{ use = "r" }, { use = "r" }]'
    )
    assert message.endswith("memory.refine[1]: a second 'r'; give it another name with as = \"...\"")


def test_an_option_of_a_refiner_is_set_by_its_name(tmp_path):
    class Numbered(Options):
        number: int = 1

    from lwmfw.recipe.load import load_recipe
    from lwmfw.testing import tiny_recipe

    catalogue = beside_installed([Refiner("r", Refining, Numbered, SHOP)])
    path = tiny_recipe(SEEN | {"memory": MEMORY | {"refine": [{"use": "r"}]}}, tmp_path)
    resolved = load_recipe(path, {"memory.refine.r.number": 7}, catalogue=catalogue)
    assert resolved.tables()["memory"]["refine"] == [{"use": "r", "as": "r", "number": 7}]
