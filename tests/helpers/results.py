"""Results as runs leave them, and such runs, without training."""

from lwmfw.record.reading import RecordedRun
from lwmfw.record.results import Results, StepResult


def results_of(by_step, *, recipe="lwm", seed=1, complete=True, who=("cnn",)):
    """Results of steps of 2 balanced classes, row t: accuracy on the classes of each step so far."""
    steps = [
        StepResult(
            step=index,
            new_classes=[2 * index - 2, 2 * index - 1],
            seen=2 * index,
            accuracy=dict.fromkeys(who, sum(row) / len(row)),
            accuracy_top5=dict.fromkeys(who, 1.0),
            accuracy_by_step={name: list(row) for name in who},
            confusion={name: [[1] * 2 * index] * 2 * index for name in who},
            parameters=10,
            model_bytes=40,
            exemplars=0,
            memory_bytes=0,
            train_seconds=1.5,
        )
        for index, row in enumerate(by_step, 1)
    ]
    order = list(range(2 * len(by_step)))
    return Results(recipe, seed, order, [f"class {c}" for c in order], {"L_D": "lwmfw 1"}, complete, steps)


THREE = [[0.9], [0.6, 0.8], [0.7, 0.5, 0.9]]


def named(*runs, settings=None):
    settings = settings or [{}] * len(runs)
    recorded = [RecordedRun(f"run{n}") for n in range(1, len(runs) + 1)]
    for each, results, own in zip(recorded, runs, settings, strict=True):
        each.results, each.settings = results, own
    return recorded
