import torch
from lwmfw.testing import check, outputs_pair, tiny_run
from lwmfw_retrain import Retrain, RetrainOptions, register_components

(RECORD,) = register_components()
RECIPE = {
    "phases": [{"use": "retrain", "epochs": 3}],
    "memory": {"budget": "4 per class", "select": {"use": "random"}},
}


def test_keeps_the_contract():
    check(RECORD)


def test_follows_the_main_phase_from_the_second_step_on():
    run = tiny_run(RECIPE, components=[RECORD]).run
    plans = [[(phase.name, phase.epochs) for phase in run.phases(step)] for step in run.steps]
    assert plans == [[("main", 1)], [("main", 1), ("retrain", 3)]]


def test_draws_the_classifier_anew_and_leaves_the_backbone():
    run = tiny_run(RECIPE, components=[RECORD]).run
    phase, model = run.phases(run.steps[1])[1], outputs_pair().model
    before = model.classifier.weight.detach().clone()
    component = Retrain(RetrainOptions())
    component.group_parameters(phase, model, "retrain", torch.Generator().manual_seed(0))
    assert not any(weight.requires_grad for weight in model.backbone.parameters())
    assert (model.classifier.weight != before).all()
