"""What is checked when a component is attached: every fault is one line that names the provider and what is offered."""

import re

import pytest
import torch
from helpers.plugin_files import ANGLES, penalty_file

from lwmfw import Objective, Observer, Options, Penalty, hookimpl
from lwmfw.assembly.assemble import assemble
from lwmfw.components import Backbone, Provider
from lwmfw.errors import RunFailed, UserError
from lwmfw.hookspecs import RUN_HOOKS, SPECS
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw.testing.tiny import beside_installed

PROBE = {"plugins": ["probe.py"], "penalties": [{"use": "probe"}]}

FAULTS = {
    "unknown hook": (
        "@hookimpl\ndef compute_penalti(self, new): pass",
        "probe.py: Probe.compute_penalti is marked @hookimpl, but the loop has no such hook; "
        "did you mean 'compute_penalty'?",
    ),
    "no marker": (
        "def compute_penalty(self, new): pass",
        "probe.py: Probe.compute_penalty has a hook's name but no @hookimpl; it would never be called",
    ),
    "unknown argument": (
        "@hookimpl\ndef compute_penalty(self, old_output): pass",
        "probe.py: Probe.compute_penalty asks for 'old_output', which is not offered; "
        "offered: step, batch, new, old, model, rng, name",
    ),
    "misspelled argument": (
        "@hookimpl\ndef compute_penalty(self, btach): pass",
        "probe.py: Probe.compute_penalty asks for 'btach', which is not offered; did you mean 'batch'? "
        "offered: step, batch, new, old, model, rng, name",
    ),
    "default": (
        "@hookimpl\ndef compute_penalty(self, new, old=None): pass",
        "probe.py: Probe.compute_penalty gives 'old' a default; hook arguments take none",
    ),
    "star": (
        "@hookimpl\ndef compute_penalty(self, **outputs): pass",
        "probe.py: Probe.compute_penalty takes '**outputs'; a hook names its arguments: "
        "step, batch, new, old, model, rng, name",
    ),
    "call order": (
        "@hookimpl(tryfirst=True)\ndef compute_penalty(self, new): pass",
        "probe.py: Probe.compute_penalty: @hookimpl(tryfirst=...) is refused; the order is that of the recipe",
    ),
    "no hook at all": (
        "def penalty(self, new): pass",
        "probe.py: Probe: a penalty needs a hook; define one with @hookimpl",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_malformed_hook_is_refused_in_one_line(fault, tmp_path):
    method, message = FAULTS[fault]
    penalty_file(tmp_path, method)
    with pytest.raises(UserError) as refused:
        assemble(load_recipe(tiny_recipe(PROBE, tmp_path)))
    assert str(refused.value) == message


def test_old_has_to_be_needed_to_be_asked_for(tmp_path):
    penalty_file(tmp_path, "@hookimpl\ndef compute_penalty(self, new, old): pass", needs="()")
    with pytest.raises(UserError, match=r"asks for 'old' but does not need it; add \"old\" to needs"):
        assemble(load_recipe(tiny_recipe(PROBE, tmp_path)))


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ('{"olds"}', "probe.py: probe needs 'olds', which nothing can offer; did you mean 'old'?"),
        (
            '{"maps"}',
            "probe.py: probe needs 'maps', but the backbone blind offers features; choose another backbone, "
            "such as podnet32",
        ),
    ],
)
def test_a_need_that_is_not_offered_is_refused(needs, message, tmp_path):
    penalty_file(tmp_path, "@hookimpl\ndef compute_penalty(self, new): pass", needs=needs)

    class Blind:
        offers = frozenset({"features"})

        def __init__(self, options):
            pass

        def build(self, channels):
            raise AssertionError("refused before it is built")

    catalogue = beside_installed([Backbone("blind", Blind, provider=Provider("blind"))], [tmp_path / "probe.py"])
    recipe = tiny_recipe(PROBE | {"backbone": {"use": "blind"}}, tmp_path)
    with pytest.raises(UserError) as refused:
        assemble(load_recipe(recipe, catalogue=catalogue))
    assert str(refused.value) == message


def test_a_class_in_place_of_an_instance_is_refused(tmp_path):
    catalogue = beside_installed([Penalty("classy", lambda options: Options, provider=Provider("mine"))])
    with pytest.raises(UserError, match="mine: classy: the factory returned a class; return an instance"):
        assemble(load_recipe(tiny_recipe({"penalties": [{"use": "classy"}]}, tmp_path), catalogue=catalogue))


def test_a_constructor_that_fails_is_refused_with_its_reason(tmp_path):
    catalogue = beside_installed([Penalty("picky", lambda: None, provider=Provider("mine"))])
    with pytest.raises(
        UserError, match=r"mine: picky cannot be built: TypeError: .*takes the options and nothing else"
    ):
        assemble(load_recipe(tiny_recipe({"penalties": [{"use": "picky"}]}, tmp_path), catalogue=catalogue))


def test_a_component_of_any_kind_may_implement_any_hook(tmp_path):
    calls = []

    class Loud:
        def __init__(self, options):
            pass

        def loss(self, logits, labels):
            return logits.square().mean()

        @hookimpl
        def before_step(self, step):
            calls.append(step.index)

    tiny_run({"objective": {"use": "loud"}}, tmp_path, components=[Objective("loud", Loud, provider=Provider("mine"))])
    assert calls == [1, 2]


@pytest.mark.parametrize("hook", RUN_HOOKS)
def test_an_exception_in_any_hook_names_file_hook_and_place(hook, tmp_path):
    kind, choice = "Observer", {"observers": [{"use": "failing"}]}
    memory = {"budget": "1 per class", "select": {"use": "random"}}
    if hook == "select_memory":  # asked of the selector first, which answers
        kind, memory = "Selector", memory | {"select": {"use": "failing"}}
        choice = {"memory": memory, "objective": {"over": "seen"}}
    elif hook == "allocate_memory":
        kind, memory = "Rate", memory | {"rate": {"use": "failing"}}
        choice = {"memory": memory, "objective": {"over": "seen"}}
    elif hook == "before_memory":
        choice |= {"memory": memory, "objective": {"over": "seen"}}
    file = tmp_path / "failing.py"
    file.write_text(
        f"from lwmfw import {kind}, hookimpl\n"
        "class Failing:\n"
        "    def __init__(self, options): pass\n"
        "    @hookimpl\n"
        f"    def {hook}(self): raise ValueError('too\\nmany')\n"
        "@hookimpl\n"
        f"def register_components(): yield {kind}('failing', Failing)\n"
    )
    recipe = {"plugins": ["failing.py"], **choice}
    with pytest.raises(RunFailed) as failed:
        tiny_run(recipe, tmp_path)
    place = {
        "before_run": "before the first step",
        "grow_model": "in step 1",
        "before_step": "in step 1",
        "compute_penalty": "in step 2, epoch 1, batch 1",
        "after_update": "in step 1, epoch 1, batch 1",
        "after_epoch": "in step 1, epoch 1",
        "choose_data": "in step 1",
        "plan_phases": "before the first step",
        "group_parameters": "in step 1",
        "after_training": "in step 1",
        "before_memory": "in step 1",
        "allocate_memory": "in step 1",
        "select_memory": "in step 1",
        "after_step": "in step 1",
        "after_run": "in step 2",
    }[hook]
    assert str(failed.value) == f"failing.py:5: Failing.{hook} raised ValueError: too many; the run stopped {place}"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("{'t': new.logits.sum() * torch.nan}", "term 't' is not finite; the run stopped in step 2, epoch 1, batch 1"),
        (
            "{'bce': new.logits.sum()}",
            "probe.compute_penalty returned term 'bce', which is a term of the objective already",
        ),
    ],
)
def test_what_a_penalty_returns_is_checked(returned, message, tmp_path):
    penalty_file(tmp_path, f"@hookimpl\ndef compute_penalty(self, new): return {returned}")
    with pytest.raises(RunFailed, match=message):
        tiny_run(PROBE, tmp_path)


def test_an_error_inside_a_strangers_network_names_the_stranger(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\nfrom lwmfw import Backbone, Features, hookimpl\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        f = x.mean((2, 3))\n"
        "        if self.training: raise ValueError('no training')\n"
        "        return Features(f, [], [], None)\n"
        "class Body:\n"
        "    offers = {'features'}\n"
        "    def __init__(self, options): pass\n"
        "    def build(self, channels): return Net()\n"
        "@hookimpl\n"
        "def register_components(): yield Backbone('body', Body)\n"
    )
    with pytest.raises(RunFailed, match=r"net.py:6: body raised ValueError: no training; the run stopped in step 1"):
        tiny_run({"plugins": ["net.py"], "backbone": {"use": "body"}}, tmp_path)


def test_a_backbone_that_cannot_take_the_images_is_refused(tmp_path):
    class Fixed:
        offers = frozenset({"features"})

        def __init__(self, options):
            pass

        def build(self, channels):
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(224 * 224 * 3, 2))

    components = [Backbone("fixed", Fixed, provider=Provider("mine", "1.0"))]
    message = r"^mine 1.0: fixed cannot take images of 3x8x8 \(.*mat1 and mat2 .*\); choose another backbone or"
    with pytest.raises(UserError, match=message):
        tiny_run({"backbone": {"use": "fixed"}}, tmp_path, components=components)


@pytest.mark.parametrize("installed", [False, True], ids=["by name", "as a function"])
def test_an_error_in_a_method_that_a_kind_requires_names_its_component(installed, tmp_path):
    def loss(logits, labels):
        raise ValueError("no")

    class Wrong:
        def __init__(self, options):
            if installed:
                self.loss = loss

        def loss(self, logits, labels):
            raise ValueError("no")

    components = [Objective("wrong", Wrong, provider=Provider("mine", "1.0"))]
    expected = (
        r"mine 1.0: test_assemble.py:\d+: Wrong.loss raised ValueError: no; the run stopped in step 1, epoch 1, b"
    )
    with pytest.raises(RunFailed, match=expected):
        tiny_run({"objective": {"use": "wrong"}}, tmp_path, components=components)


def test_none_is_no_term(tmp_path):
    penalty_file(tmp_path, "@hookimpl\ndef compute_penalty(self, new): return None")
    assert list(tiny_run(PROBE, tmp_path).terms[2]) == ["bce"]


def test_a_component_used_twice_prefixes_its_terms(tmp_path):
    (tmp_path / "angles.py").write_text(ANGLES)
    twice = [{"use": "angles"}, {"use": "angles", "as": "strong", "weight": 5.0}]
    terms = tiny_run({"plugins": ["angles.py"], "penalties": twice}, tmp_path).terms
    assert list(terms[2]) == ["bce", "angles.angles", "strong.angles"]
    assert terms[2]["strong.angles"] == pytest.approx(5 * terms[2]["angles.angles"])


def test_every_hook_describes_every_argument():
    from lwmfw import hookspecs

    for name, arguments in SPECS.items():
        text = getattr(hookspecs, name).__doc__
        for argument in arguments:
            assert argument == "rng" or re.search(rf"^ +{argument}: ", text, re.MULTILINE), f"{name}: {argument}"


def test_rng_is_a_function_of_seed_step_phase_and_component(tmp_path):
    draw = "@hookimpl\ndef compute_penalty(self, new, rng):\n    return {'t': torch.rand((), generator=rng)}"

    def drawn(folder, **overrides):
        (tmp_path / folder).mkdir()
        penalty_file(tmp_path / folder, draw)
        return tiny_run(PROBE | overrides, tmp_path / folder).terms[2]["t"]

    beside = [{"use": "probe", "as": "other"}, {"use": "probe"}]
    first = drawn("first")
    assert drawn("again") == first
    assert drawn("seed", seed=2) != first
    (tmp_path / "beside").mkdir()
    penalty_file(tmp_path / "beside", draw)
    both = tiny_run(PROBE | {"penalties": beside}, tmp_path / "beside").terms[2]
    assert both["probe.t"] == first  # another component beside it changes nothing
    assert both["other.t"] != first


def test_observers_need_a_hook(tmp_path):
    catalogue = beside_installed([Observer("mute", lambda options: object(), provider=Provider("mine"))])
    with pytest.raises(UserError, match="mine: object: an observer needs a hook; define one with @hookimpl"):
        assemble(load_recipe(tiny_recipe({"observers": [{"use": "mute"}]}, tmp_path), catalogue=catalogue))


MISSPELT = {
    "need": ({"need": {"old"}}, "has 'need', which nothing reads; did you mean 'needs'?"),
    "spare": ({"spare_first_step": True}, "has 'spare_first_step', which nothing reads; did you mean"),
    "state": ({"states": lambda self: {}}, "has 'states', which nothing reads; did you mean 'state'?"),
    "type": ({"needs": 5}, "needs = 5 is no set of names; what must be there"),
    "flag": ({"spares_first_step": "yes"}, "spares_first_step = 'yes' is no bool; its hooks change nothing"),
    "half": ({"state": lambda self: {}}, "has state and no restore; define both"),
    "pauses": (
        {"pauses": True},
        "says pauses and has no state, which a run could go on from; define state and restore",
    ),
}


@pytest.mark.parametrize("fault", MISSPELT)
def test_a_trait_that_nothing_would_read_is_refused(fault, tmp_path):
    attributes, message = MISSPELT[fault]
    probe = type(
        "Probe", (), {"__init__": lambda self, options: None, "compute_penalty": hookimpl(no_term)} | attributes
    )
    catalogue = beside_installed([Penalty("probe", probe, provider=Provider("mine"))])
    with pytest.raises(UserError) as refused:
        assemble(load_recipe(tiny_recipe({"penalties": [{"use": "probe"}]}, tmp_path), catalogue=catalogue))
    assert str(refused.value).startswith(f"mine: Probe: {message}")


AT_ODDS = {
    "old": ({"needs": {"old"}}, "needs the old model, which the first step has not; leave one out"),
    "old_graph": ({"needs": "old_graph"}, "needs the old model, which the first step has not; leave one out"),
    "spares": ({"spares_first_step": True}, "spares_first_step; leave one out"),
}


@pytest.mark.parametrize("fault", AT_ODDS)
def test_what_acts_in_the_first_step_neither_spares_it_nor_needs_the_old_model(fault, tmp_path):
    attributes, message = AT_ODDS[fault]
    own = {"__init__": lambda self, options: None, "compute_penalty": hookimpl(no_term), "acts_first": True}
    catalogue = beside_installed([Penalty("probe", type("Probe", (), own | attributes), provider=Provider("mine"))])
    with pytest.raises(UserError) as refused:
        assemble(load_recipe(tiny_recipe({"penalties": [{"use": "probe"}]}, tmp_path), catalogue=catalogue))
    assert str(refused.value) == f"mine: Probe: says acts_first and {message}"


def no_term(self):
    return None


@pytest.mark.parametrize("attribute", ["growth", "states_of", "offering", "stated", "order", "class_counts"])
def test_an_attribute_of_its_own_is_none_of_our_business(attribute, tmp_path):
    own = {"__init__": lambda self, options: None, "compute_penalty": hookimpl(no_term), attribute: 1}
    catalogue = beside_installed([Penalty("probe", type("Probe", (), own), provider=Provider("mine"))])
    parts = assemble(load_recipe(tiny_recipe({"penalties": [{"use": "probe"}]}, tmp_path), catalogue=catalogue))
    assert "probe" in parts.components


def test_every_component_is_offered_its_name_in_the_recipe(tmp_path):
    named = []

    class Named:
        def __init__(self, options):
            pass

        @hookimpl
        def before_run(self, name):
            named.append(name)

    components = [Observer("named", Named, provider=Provider("mine"))]
    tiny_run({"observers": [{"use": "named"}, {"use": "named", "as": "other"}]}, tmp_path, components=components)
    assert named == ["named", "other"]


def test_a_refusal_in_a_hook_names_provider_and_component(tmp_path):
    class Picky:
        def __init__(self, options):
            pass

        @hookimpl
        def before_run(self):
            raise UserError("layer: 9 wanted; choose another")

    components = [Penalty("picky", Picky, provider=Provider("mine", "2"))]
    with pytest.raises(UserError, match=r"^mine 2: mine-too: layer: 9 wanted; choose another$"):
        tiny_run({"penalties": [{"use": "picky", "as": "mine-too"}]}, tmp_path, components=components)


def test_an_offer_that_nobody_can_need_is_refused(tmp_path):
    class Body:
        offers = frozenset({"features", "map"})

        def __init__(self, options):
            pass

        def build(self, channels):
            raise AssertionError("refused before it is built")

    recipe = tiny_recipe({"backbone": {"use": "body"}}, tmp_path)
    body = Backbone("body", Body, provider=Provider("mine"))
    with pytest.raises(UserError, match=r"^mine: Body: offers 'map', which nobody can need; did you mean 'maps'\?$"):
        assemble(load_recipe(recipe, catalogue=beside_installed([body])))
