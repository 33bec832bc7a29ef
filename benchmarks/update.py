"""What one update of a method costs beside its floor: the best plain loop for its network, and a bare old forward.

    python benchmarks/update.py [--method lwm|efc|ucir|podnet] [--precision fp32|bf16] [--pairs 50] [--threads N]

Images of 3x32x32, batch 128; LwM and EFC (its penalty, with a matrix of ours) with two classes a step, UCIR and PODNet
with 50 and then 10. The two sides alternate in one process and only the ratio of each pair counts, as the machine's
speed drifts. The method's side takes its terms from the loop's `compute_terms`; what both sides would share (batches,
schedule, hooks, the sums of terms for the log) is left out, and on both sides all rows of the classifier learn.

The floor has nothing of lwmfw but weights and a batch. It trains a network of plain layers with cross-entropy, or with
PODNet's published loss, and asks a copy of it in evaluation mode for its logits, as it is: BatchNorm not folded. It is
the fastest of what was tried: channels-last throughout, sums and ReLUs in place, pooling layers in the place of strided
slices and of the mean, whose gradients are channels-last too, a fused optimiser. Before anything is timed, both sides
compute the same logits, in training and in evaluation mode.
"""

import argparse
import contextlib
import copy
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, linear, normalize, pad
from torch.testing import assert_close

from lwmfw.assembly.assemble import assemble
from lwmfw.data.loader import EpochShape
from lwmfw.engine.going_on import old_model
from lwmfw.engine.optimizer import build_optimizer
from lwmfw.engine.prepare import prepare
from lwmfw.engine.run import Run
from lwmfw.loop import compute_terms
from lwmfw.model.growing import Model
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe

FIFTY_AND_TEN = {
    "data": {"use": "synthetic", "classes": 60, "train_per_class": 13, "test_per_class": 1, "size": 32},
    "scenario": {"first": 50, "increment": 10},
    "memory": {"budget": "4 per class", "select": {"use": "random"}},
    "training": {"batch_size": 128},
}
METHODS = {
    "lwm": {
        "data": {"use": "synthetic", "classes": 4, "train_per_class": 64, "test_per_class": 1, "size": 32},
        "backbone": {"use": "resnet32", "width": 16},
        "penalties": [{"use": "L_D"}, {"use": "L_AD"}],
        "training": {"batch_size": 128},
    },
    "efc": {
        "data": {"use": "synthetic", "classes": 4, "train_per_class": 64, "test_per_class": 1, "size": 32},
        "backbone": {"use": "resnet32", "width": 16},
        "objective": {"use": "cross_entropy"},
        "penalties": [{"use": "efc"}],
        "training": {"batch_size": 128},
    },
    "ucir": FIFTY_AND_TEN
    | {
        "backbone": {"use": "resnet32", "width": 16, "final_relu": False},
        "classifier": {"use": "cosine"},
        "objective": {"use": "cross_entropy", "over": "seen"},
        "penalties": [{"use": "less-forget"}, {"use": "margin-ranking"}],
    },
    "podnet": FIFTY_AND_TEN
    | {
        "backbone": {"use": "podnet32", "width": 16},
        "classifier": {"use": "proxies"},
        "objective": {"use": "nca", "legacy_margin": True},
        "penalties": [{"use": "POD"}, {"use": "POD-flat"}],
    },
}


class PlainBlock(nn.Module):
    """Two convolutions beside a shortcut without parameters."""

    def __init__(self, channels: int, out: int, stride: int, relu: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(out)
        self.stride, self.added, self.relu = stride, out - channels, relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_norm(self.second(self.first_norm(self.first(x)).relu_()))
        if self.stride > 1:
            x = avg_pool2d(x, 1, self.stride)
        if self.added:
            x = pad(x, (0, 0, 0, 0, self.added // 2, self.added // 2))
        y += x
        return y.relu_() if self.relu else y


class PlainNetwork(nn.Module):
    """A ResNet-32 of width 16 whose parameters stand in the order that lwmfw's have.

    Args:
        relu: whether a ReLU follows the additions,
        final_relu: and the last one.
    """

    def __init__(self, *, relu: bool, final_relu: bool) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [16] * 6 + [32] * 5 + [64] * 5
        blocks = [PlainBlock(a, b, b // a, relu) for a, b in itertools.pairwise(widths)]
        blocks[-1].relu = final_relu
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(self.stem_norm(self.stem(images)).relu_())
        return avg_pool2d(x, x.shape[2]).flatten(1)


class PlainCosine(nn.Module):
    """A learned factor times the cosines."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.weight = nn.Parameter(torch.empty(classes, features))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * linear(normalize(features), normalize(self.weight))


class PlainProxies(PlainCosine):
    """Ten directions a class, minus their squared distances weighted by their softmax."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, 10 * classes)

    def forward(self, features: Tensor) -> Tensor:
        nearness = (2 * linear(normalize(features), normalize(self.weight)) - 2).unflatten(1, (-1, 10))
        return self.scale * (nearness * nearness.softmax(2)).sum(2)


def published_nca(logits: Tensor, labels: Tensor) -> Tensor:
    """PODNet's loss as its code has it: the positive of the denominator is the row's maximum."""
    positions = labels[:, None]
    others = logits.scatter(1, positions, logits.amax(1, keepdim=True))
    return (others.logsumexp(1) - logits.gather(1, positions)[:, 0]).mean()


class Floor:
    """The plain loop of a method on one batch, with the weights of a run's model.

    Args:
        method: of METHODS.
        run: its model has rows for the classes of both steps.
        images: (B, 3, 32, 32), channels-last.
        labels: (B,).
    """

    def __init__(self, method: str, run: Run, images: Tensor, labels: Tensor) -> None:
        kinds = {"ucir": (True, PlainCosine), "podnet": (False, PlainProxies)}
        relu, head = kinds.get(method, (True, nn.Linear))
        self.loss = published_nca if method == "podnet" else cross_entropy
        self.images, self.labels, self.bf16 = images, labels, run.model.bf16
        self.body = PlainNetwork(relu=relu, final_relu=method in ("lwm", "efc"))
        self.head = head(64, run.model.classes)
        self.load(run.model)
        self.body.to(memory_format=torch.channels_last)
        self.old_body, self.old_head = (copy.deepcopy(m).eval().requires_grad_(False) for m in (self.body, self.head))
        parameters = [*self.body.parameters(), *self.head.parameters()]
        settings = run.recipe.training
        self.optimizer = torch.optim.SGD(
            parameters, settings.lr, settings.momentum, weight_decay=settings.weight_decay, fused=True
        )

    def load(self, model: Model) -> None:
        """Take over the model's weights, as many and in the same order."""
        body = list(model.backbone.state_dict().values())
        self.body.load_state_dict(dict(zip(self.body.state_dict(), body, strict=True)))
        head = dict(model.classifier.named_parameters())
        weight = head["weight"] if "weight" in head else model.classifier.directions.flatten(0, -2)
        self.head.load_state_dict({name: head.get(name, weight) for name in self.head.state_dict()})
        counts = [sum(p.numel() for m in side for p in m.parameters()) for side in ([self.body, self.head], [model])]
        assert counts[0] == counts[1]

    def logits(self, body: nn.Module, head: nn.Module) -> Tensor:
        """(B, N), the classifier in float32."""
        with torch.autocast("cpu", torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            features = body(self.images)
        return head(features.float())

    def update(self) -> None:
        """Train once, and ask the old network."""
        loss = self.loss(self.logits(self.body, self.head), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.logits(self.old_body, self.old_head)

    def check(self, model: Model) -> None:
        """The same logits as the model's, whose statistics are left as they are."""
        tolerance = {"rtol": 0.05, "atol": 0.05} if self.bf16 else {"rtol": 1e-4, "atol": 1e-4}
        for training in (True, False):
            theirs, body = copy.deepcopy(model).train(training), copy.deepcopy(self.body).train(training)
            with torch.no_grad():
                assert_close(self.logits(body, self.head), theirs(self.images).logits, **tolerance)


def prepared(method: str, precision: str) -> Run:
    """A run of two steps whose model has seen the first."""
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_recipe(METHODS[method], Path(folder))
        run = prepare(assemble(load_recipe(path, {"training.precision": precision})), "cpu")
    run.model.grow(len(run.steps[0].new_classes))
    if method == "efc":  # which takes it from a trained step
        run.assembly.only("penalty").method("restore")({"matrix": torch.eye(64)})
    return run


def both_sides(method: str, precision: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """The update of the method, and its floor."""
    run = prepared(method, precision)
    old, step = old_model(run), run.steps[1]
    run.model.grow(len(step.new_classes))
    run.model.train()
    images = run.data.train.of_classes(step.new_classes)
    batches = run.loader.training_batches(images, EpochShape(len(images), 0, 128), torch.Generator().manual_seed(0))
    batch, phase = next(batches), run.phases(step)[0]
    optimizer = build_optimizer(phase, run.model, (), run.assembly)

    def update() -> None:
        terms = compute_terms(run, step, phase, batch, old)
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        optimizer.step()

    floor = Floor(method, run, batch.images, batch.labels)
    floor.check(run.model)
    return update, floor.update


def compared(method: Callable[[], None], floor: Callable[[], None], count: int) -> str:
    """Medians of alternating updates of both sides, and the median ratio, in words."""

    def seconds(update: Callable[[], None]) -> float:
        started = time.perf_counter()
        update()
        return time.perf_counter() - started

    for _ in range(5):
        method(), floor()
    pairs = [(seconds(method), seconds(floor)) for _ in range(count)]
    ours, theirs = (statistics.median(side) * 1000 for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    return f"update {ours:.1f} ms, floor {theirs:.1f} ms, median ratio {ratio:.3f}"


def main() -> None:
    """Print medians and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="lwm")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    method, floor = both_sides(arguments.method, arguments.precision)
    print(f"{arguments.precision}, {arguments.threads} threads, {arguments.pairs} pairs")
    print(f"{arguments.method} {compared(method, floor, arguments.pairs)}")


if __name__ == "__main__":
    main()
