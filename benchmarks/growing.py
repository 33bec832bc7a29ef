"""What one update of DER costs beside its floor: a plain network that learns beside plain frozen ones.

    python benchmarks/growing.py [--steps 3] [--precision fp32|bf16] [--pairs 30] [--threads N]

Images of 3x32x32, batch 128, ResNet-32 branches of width 16, two classes a step. As in update.py the two sides
alternate in one process, what both would share is left out, and the floor has nothing of lwmfw but weights and a batch:
the frozen branches in evaluation mode without gradients, one linear layer on all features and another on the new ones.
"""

import argparse
import contextlib
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.testing import assert_close
from update import PlainNetwork, compared

from lwmfw.assembly.assemble import assemble
from lwmfw.data.loader import EpochShape
from lwmfw.engine.build import grow
from lwmfw.engine.optimizer import build_optimizer
from lwmfw.engine.prepare import prepare
from lwmfw.engine.run import Run
from lwmfw.loop import compute_terms
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe
from lwmfw.testing.tiny import TINY

RECIPE = {
    "data": {"use": "synthetic", "train_per_class": 64, "test_per_class": 1, "size": 32},
    "backbone": {"use": "der", "blocks": 5, "width": 16},
    "objective": {"use": "cross_entropy", "over": "seen"},
    "memory": {"budget": "4 per class", "select": {"use": "random"}},
    "training": {"batch_size": 128},
}


class Floor:
    """The plain loop of DER on one batch, with the weights of a run's model and its auxiliary classifier."""

    def __init__(self, run: Run, auxiliary: nn.Module, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels, self.bf16 = images, labels, run.model.bf16
        self.bodies = [self._body(branch) for branch in run.model.backbone.branches]
        for old in self.bodies[:-1]:
            old.eval().requires_grad_(False)
        self.head = nn.Linear(64 * len(self.bodies), run.model.classes)
        self.head.load_state_dict(run.model.classifier.state_dict())
        self.auxiliary = copy.deepcopy(auxiliary)
        self.known = run.model.classes - 2
        parameters = [p for part in (self.bodies[-1], self.head, self.auxiliary) for p in part.parameters()]
        settings = run.recipe.training
        self.optimizer = torch.optim.SGD(
            parameters, settings.lr, settings.momentum, weight_decay=settings.weight_decay, fused=True
        )

    def _body(self, branch: nn.Module) -> PlainNetwork:
        body = PlainNetwork(relu=True, final_relu=True)
        body.load_state_dict(dict(zip(body.state_dict(), branch.state_dict().values(), strict=True)))
        return body.to(memory_format=torch.channels_last)

    def features(self) -> Tensor:
        """(B, D), float32."""
        *old, new = self.bodies
        with torch.autocast("cpu", torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            with torch.no_grad():
                known = [body(self.images) for body in old]
            return torch.cat([*known, new(self.images)], 1).float()

    def update(self) -> None:
        """Train once."""
        features = self.features()
        told_apart = linear(features[:, -64:], self.auxiliary.weight, self.auxiliary.bias)
        loss = cross_entropy(self.head(features), self.labels)
        loss = loss + cross_entropy(told_apart, (self.labels - (self.known - 1)).clamp(min=0))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def both_sides(steps: int, precision: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """The update of the last of some steps, and its floor."""
    recipe = {**RECIPE, "data": RECIPE["data"] | {"classes": 2 * steps}, "scenario": {"first": 2, "increment": 2}}
    TINY["backbone"] = {"use": "der"}  # whose options are others than those of the tiny recipe's network
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_recipe(recipe, Path(folder))
        run = prepare(assemble(load_recipe(path, {"training.precision": precision})), "cpu")
    for step in run.steps:
        grow(run.assembly, run.model, step)
    phase = run.phases(step)[0]
    run.assembly.hook.group_parameters(step=step, phase=phase, model=run.model, rng=run.rng)
    run.model.train()
    images = run.data.train.of_classes(step.new_classes)
    batch = next(run.loader.training_batches(images, EpochShape(len(images), 0, 128), torch.Generator().manual_seed(0)))
    optimizer = build_optimizer(phase, run.model, (), run.assembly)

    def update() -> None:
        terms = compute_terms(run, step, phase, batch, None)
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        optimizer.step()

    floor = Floor(run, run.model.extras["der"], batch.images, batch.labels)
    tolerance = {"rtol": 0.05, "atol": 0.05} if precision == "bf16" else {"rtol": 1e-4, "atol": 1e-4}
    with torch.no_grad():
        ours = copy.deepcopy(run.model)(batch.images).features
        assert_close(copy.deepcopy(floor).features(), ours, **tolerance)
    return update, floor.update


def main() -> None:
    """Print medians and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    method, floor = both_sides(arguments.steps, arguments.precision)
    print(f"{arguments.precision}, {arguments.threads} threads, {arguments.pairs} pairs, {arguments.steps} branches")
    print(f"der {compared(method, floor, arguments.pairs)}")


if __name__ == "__main__":
    main()
