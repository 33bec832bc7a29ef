"""Draw docs/fashion-mnist-mini.svg, docs/cifar100.svg and docs/cifar100-b50.svg from the measured results beside them.

    python docs/figure.py

Reads docs/measured/, whose files are results.json of the runs that README and
docs/lwm.md and docs/exemplars.md name.
"""

from pathlib import Path
from statistics import mean

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update({"svg.hashsalt": "lwmfw", "svg.fonttype": "none", "font.size": 11, "axes.spines.top": False})
mpl.rcParams.update({"axes.spines.right": False, "font.family": "sans-serif"})

import matplotlib.pyplot as plt  # noqa: E402 - after the settings
from matplotlib.axes import Axes  # noqa: E402

from lwmfw.record.reading import RecordedRun  # noqa: E402
from lwmfw.record.results import Results  # noqa: E402

HERE = Path(__file__).parent
COLOURS = {"finetune": "#8c8c8c", "lwf-mc": "#3b75af", "c-lad": "#c9a227", "lwm": "#c03d3e", "joint": "#2f2f2f"}

WITH_EXEMPLARS = {"icarl": "#8c8c8c", "ucir": "#3b75af", "podnet": "#c9a227", "podnet-cbam-mem": "#c03d3e"}


def measured(folder: str, names: dict[str, str] = COLOURS) -> dict[str, list[Results]]:
    """Recipe -> its runs, in the order of names."""
    runs = [RecordedRun(path).results for path in sorted((HERE / "measured" / folder).glob("*.json"))]
    return {name: [run for run in runs if run.recipe == name] for name in names}


def bars(axes: Axes, place: float, values: list[float], colour: str, alpha: float, width: float) -> None:
    """A bar at the mean and a dot for every seed."""
    axes.bar(place, mean(values), width, color=colour, alpha=alpha)
    axes.scatter([place] * len(values), values, s=14, color="black", zorder=3)


def mini() -> None:
    """The recipes on the shipped images: accuracy at the end, and on the classes of each step."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
    runs = measured("fashion-mnist-mini")
    for index, (name, colour) in enumerate(COLOURS.items()):
        last = [run.last_accuracy["cnn"] for run in runs[name]]
        bars(left, index, last, colour, 1.0, 0.7)
        left.annotate(f"{mean(last):.2f}", (index, 0.03), ha="center", color="white", fontweight="bold")
        if name != "joint":
            for offset, group, alpha in ((-0.2, 0, 1.0), (0.2, 1, 0.45)):
                values = [run.steps[-1].accuracy_by_step["cnn"][group] for run in runs[name]]
                bars(right, index + offset, values, colour, alpha, 0.38)
    left.set_title("accuracy on all 10 classes after the last step", fontsize=11)
    right.set_title("of these: classes of step 1 (full) and of step 2 (pale)", fontsize=11)
    left.set(xticks=range(len(COLOURS)), xticklabels=list(COLOURS), ylim=(0, 1))
    right.set(xticks=range(len(COLOURS) - 1), xticklabels=list(COLOURS)[:-1])
    figure.savefig(HERE / "fashion-mnist-mini.svg", metadata={"Date": None})


NAMES = {"finetune": "fine-tuning", "c-lad": "L_AD alone", "lwf-mc": "LwF-MC", "lwm": "LwM"}


def cifar100() -> None:
    """Accuracy after each step on CIFAR-100, on all seen classes and on the first ten: by method, and LwM's by lda."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
    lines = [(runs[0], "cnn", COLOURS[name], "o-", NAMES[name]) for name, runs in measured("cifar100", NAMES).items()]
    solved = RecordedRun(HERE / "measured" / "readouts" / "cifar100-ten-lwm-1993.json").results
    lines.append((solved, "lda", COLOURS["lwm"], "o--", "LwM, solved (lda)"))
    for run, who, colour, style, label in reversed(lines):
        seen = [step.seen for step in run.steps]
        left.plot(seen, [s.accuracy[who] for s in run.steps], style, ms=3, color=colour, label=label)
        right.plot(seen, [s.accuracy_by_step[who][0] for s in run.steps], style, ms=3, color=colour)
    left.set_title("accuracy on all classes so far", fontsize=11)
    right.set_title("accuracy on the first ten classes", fontsize=11)
    left.set(ylim=(0, 0.8), xlabel="classes so far")
    right.set(xlabel="classes so far")
    left.legend(frameon=False)
    figure.savefig(HERE / "cifar100.svg", metadata={"Date": None})


def cifar100_b50() -> None:
    """Accuracy after each step of 50 + 5 x 10 with exemplars, by the classifier and by the nearest mean."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
    for name, runs in measured("cifar100-b50", WITH_EXEMPLARS).items():
        for run in runs:
            seen = [step.seen for step in run.steps]
            for axis, who in zip(axes, ("cnn", "nme"), strict=True):
                values = [step.accuracy[who] for step in run.steps]
                axis.plot(seen, values, "o-", ms=3, color=WITH_EXEMPLARS[name], label=name)
    axes[0].set_title("accuracy on all seen classes, by the classifier", fontsize=11)
    axes[1].set_title("by the nearest mean of exemplars", fontsize=11)
    axes[0].set(ylim=(0, 0.8), xlabel="seen classes")
    axes[1].set(xlabel="seen classes")
    axes[0].legend(frameon=False)
    figure.savefig(HERE / "cifar100-b50.svg", metadata={"Date": None})


if __name__ == "__main__":
    mini()
    cifar100()
    cifar100_b50()
