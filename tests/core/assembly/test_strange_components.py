"""Strange components: what they say of themselves, raise where nothing is asked, and mark as hooks."""

from functools import partialmethod

import pytest
import torch
from helpers.strangers import KIND, Flatten, Stranger, recipe_with, told

from lwmfw import Images, LwmfwError, Selection, hookimpl
from lwmfw.testing import tiny_run


class Leaving(Stranger):
    """Ends the program, quietly, when it is made."""

    def __init__(self, options=None):
        raise SystemExit(0)


class Hiding(Stranger):
    """Cannot even be asked what it has."""

    def __dir__(self):
        raise ValueError("no")


class Moody(Stranger):
    """A trait that cannot be read."""

    @property
    def spares_first_step(self):
        raise SystemExit(0)


class Vain(Stranger):
    """Says it has what it has not."""

    def __dir__(self):
        return [*super().__dir__(), "needs"]

    def __getattr__(self, name):
        raise AttributeError(name)


class UnpronounceableError(Exception):
    def __str__(self):
        raise ValueError("no")


@pytest.mark.parametrize("stranger", [Leaving, Hiding, Moody, Vain], ids=lambda stranger: stranger.__name__)
@pytest.mark.parametrize("kind", KIND)
def test_what_cannot_be_made_or_asked_is_refused(kind, stranger, tmp_path):
    assert told(kind, type(stranger.__name__, (stranger,), {}), tmp_path)


def test_an_attribute_of_any_name_that_is_none_is_no_trait(tmp_path):
    class Agreeable(Stranger):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)

    assert told("penalty", Agreeable, tmp_path) == ""


def test_a_trait_of_data_is_held_to_its_type(tmp_path):
    message = told("data", type("Counting", (Stranger,), {"class_count": "ten"}), tmp_path)
    assert "class_count = 'ten' is no number or None; classes, where" in message


def test_a_text_that_cannot_be_made_does_not_hide_who_raised_it(tmp_path):
    class Raising(Stranger):
        @hookimpl
        def before_step(self):
            raise UnpronounceableError

    assert "Raising.before_step raised UnpronounceableError; the run stopped in step 1" in told(
        "penalty", Raising, tmp_path
    )


def test_errors_of_ours_are_not_for_strangers_to_raise(tmp_path):
    class Raising(Stranger):
        @hookimpl
        def before_step(self):
            raise LwmfwError("boom")

    assert "raised LwmfwError: boom" in told("penalty", Raising, tmp_path)


def test_a_hook_that_is_set_on_the_instance_is_refused(tmp_path):
    class Late(Stranger):
        def __init__(self, options=None):
            self.before_step = hookimpl(lambda: None)

    assert "sets before_step on the instance; define it in the class" in told("penalty", Late, tmp_path)


def test_a_hook_made_of_another_method_is_called(tmp_path):
    seen = []

    class Partial(Stranger):
        def noted(self, word, step):
            seen.append((word, step.index))

        before_step = hookimpl(partialmethod(noted, "began"))

    class Static(Stranger):
        @hookimpl
        @staticmethod
        def before_step(step):
            seen.append(("static", step.index))

    assert told("penalty", Static, tmp_path) == ""
    assert ("static", 2) in seen
    assert "takes 'word'" in told("penalty", Partial, tmp_path) or ("began", 2) in seen


def yielding(count):
    """A refiner that yields so often."""

    class Yielding(Stranger):
        @hookimpl(wrapper=True)
        def select_memory(self):
            selection = None
            for _ in range(count):
                selection = yield
            return selection

    return Yielding


@pytest.mark.parametrize(("count", "fault"), [(0, "returned before its yield"), (2, "yields more than once")])
def test_a_refiner_yields_once(count, fault, tmp_path):
    assert f"stranger.select_memory {fault}" in told("refiner", yielding(count), tmp_path)
    assert told("refiner", yielding(1), tmp_path) == ""


def choosing(change):
    """A penalty that changes the data of the second step."""

    class Choosing(Stranger):
        @hookimpl
        def choose_data(self, step, data):
            return change(data) if step.index == 2 else None

    return Choosing


def swapped(data):
    index = torch.arange(len(data))
    index[:2] = torch.tensor([1, 0])
    return data.select(index)


CHOICES = {
    "exemplars swapped": (swapped, "not the step's, twice or in another order"),
    "other pixels": (lambda d: Images(d.pixels ^ 1, d.labels), "not the step's"),
    "new ones changed": (lambda d: Images(torch.cat([d.pixels[:4], d.pixels[4:] ^ 1]), d.labels), "not the step's"),
    "twice": (lambda d: d.select(torch.tensor([*range(len(d)), len(d) - 1])), "not the step's, twice"),
    "none new": (lambda d: d.select(torch.arange(4)), "left out every new image; leave some"),
    "grey": (lambda d: Images(d.pixels[:, :1], d.labels), "not the step's"),
    "cropped": (lambda d: Images(d.pixels[:, :, 1:, 1:], d.labels), "not the step's"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_chosen_data_are_exemplars_and_new_images_as_they_are(case, tmp_path):
    change, fault = CHOICES[case]
    message = told("penalty", choosing(change), tmp_path)
    assert "stranger.choose_data " in message
    assert fault in message


def test_some_new_images_can_be_left_out(tmp_path):
    assert told("penalty", choosing(lambda d: d.select(torch.arange(len(d) - 2))), tmp_path) == ""


def test_an_exemplar_that_is_left_out_is_not_trained_on_and_stays_in_the_memory(tmp_path):
    trained, held = [], []

    class Leaving(Stranger):
        @hookimpl
        def choose_data(self, step, data):
            return data.select(torch.arange(1, len(data) - 1)) if step.index == 2 else None

        @hookimpl
        def after_step(self, run, step, data):
            trained.append(len(data))
            held.append(run.memory.images())

    assert told("penalty", Leaving, tmp_path) == ""
    assert trained == [8, 4 + 8 - 2]
    assert torch.equal(held[1].pixels[:4], held[0].pixels)


def test_each_chooses_of_what_the_one_before_has_left(tmp_path):
    given = []

    class First:
        def __init__(self, options):
            pass

        @hookimpl
        def choose_data(self, data):
            given.append(len(data))
            return data.select(torch.arange(len(data) - 1))

    class Second(First):
        pass

    records = [KIND["penalty"](name, made) for name, made in (("first", First), ("second", Second))]
    recipe = recipe_with("penalty") | {"penalties": [{"use": "first"}, {"use": "second"}]}
    tiny_run(recipe, tmp_path, components=[*records, KIND["backbone"]("flat", Flatten)])
    assert given == [8, 7, 12, 11]


def test_a_phase_of_balanced_images_selects_of_those_that_are_trained_on(tmp_path):
    candidates_of = []

    class Leaving(Stranger):
        @hookimpl
        def choose_data(self, step, data):
            return data.select(torch.arange(1, len(data))) if step.index == 2 else None

        @hookimpl
        def select_memory(self, step, candidates, quota):
            candidates_of.append((step.index, len(candidates)))
            return Selection({c: (candidates.labels == c).nonzero().flatten()[:n] for c, n in quota.items()})

    assert told("selector", Leaving, tmp_path) == ""
    assert candidates_of == [(1, 8), (2, 11), (2, 12)]


def adding(change):
    class Adding(Stranger):
        @hookimpl
        def after_step(self, result):
            change(result)

    return Adding


RESULTS = {
    "a key that is no text": (
        lambda r: r.extra.update({(1, 2): 3}),
        "added (1, 2) to result.extra; name it",
    ),
    "a key in a dict": (lambda r: r.extra.update(a={1: 2}), "keys of a dict have to be strings"),
    "not a number": (lambda r: r.extra.update(a=float("nan")), "added 'a', which cannot be kept"),
    "accuracy": (
        lambda r: r.accuracy.update(mine=1.0),
        "changed result.accuracy; add what was",
    ),
    "seconds": (lambda r: setattr(r, "train_seconds", None), "changed result.train_seconds"),
}


@pytest.mark.parametrize("case", RESULTS)
def test_results_are_added_to_and_not_changed(case, tmp_path):
    change, fault = RESULTS[case]
    message = told("penalty", adding(change), tmp_path)
    assert "shop 1: stranger.after_step " in message
    assert fault in message


STATES = {
    "keys that are numbers": {"seen": {1: 1}},
    "sparse": {"a": torch.eye(2).to_sparse()},
    "without values": {"a": torch.zeros(1, device="meta")},
    "set": {"a": {1}},
}


@pytest.mark.parametrize("case", STATES)
def test_a_state_that_would_not_come_back_is_refused(case, tmp_path):
    methods = {"state": lambda self: STATES[case], "restore": lambda self, state: None}
    assert "shop 1: stranger.state " in told("penalty", type("Keeping", (Stranger,), methods), tmp_path)


def test_messages_end(tmp_path):
    class Endless(Stranger):
        @hookimpl
        def allocate_memory(self):
            return {f"class {n}": n for n in range(100_000)}

    class Long(Stranger):
        @hookimpl
        def select_memory(self, quota):
            return Selection({**dict.fromkeys(range(50_000), torch.arange(0)), "a": torch.arange(0)})

    class Loud(Stranger):
        @hookimpl
        def before_step(self):
            raise ValueError("so " * 100_000)

    for kind, stranger in (("rate", Endless), ("selector", Long), ("penalty", Loud)):
        assert 0 < len(told(kind, stranger, tmp_path)) < 900
