"""How well a model does that is trained from scratch on nothing but the exemplars of a run.

    python benchmarks/exemplars_alone.py RUN... [--epochs 40] [--repeats 2]

For each run directory: as many fresh models as repeats, of the run's own backbone and classifier, are trained on the
exemplars as they are stored (SGD, rate 0.1 falling to 0 as a cosine, momentum 0.9, weight decay 5e-4, 32 a batch, the
run's augmentation; softmax cross-entropy), then judged on the run's test images. Initial weights, order and
augmentation are functions of the repeat and the recipe's seed, so that runs can be compared pair by pair.
"""

import argparse
import statistics
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from lwmfw import Images, Model, open_run
from lwmfw.data.loader import EpochShape
from lwmfw.engine.run import Run
from lwmfw.rng import generator

BATCH = 32


def trained(run: Run, exemplars: Images, epochs: int, repeat: int) -> Model:
    """A fresh model after so many epochs of the exemplars."""
    model = run.fresh_model(generator(repeat, "weights"))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4)
    shape = EpochShape(len(exemplars), 0, BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * shape.batches)
    model.train()
    for epoch in range(epochs):
        for batch in run.loader.training_batches(exemplars, shape, generator(repeat, "epoch", epoch)):
            loss = cross_entropy(model(batch.images).logits, batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


@torch.no_grad()
def judged(run: Run, model: Model) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on the test images."""
    model.eval()
    logits = torch.cat([model(images).logits for images, _ in run.loader.evaluation_batches(run.data.test)])
    labels = run.data.test.labels
    return float(cross_entropy(logits, labels)), float((logits.argmax(1) == labels).float().mean())


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    for path in given.runs:
        run = open_run(path).prepared()
        assert run.memory is not None
        exemplars = run.memory.images()
        assert isinstance(exemplars, Images)
        found = [judged(run, trained(run, exemplars, given.epochs, repeat)) for repeat in range(given.repeats)]
        losses, accuracies = zip(*found, strict=True)
        each = " ".join(f"{loss:.3f}/{accuracy:.3f}" for loss, accuracy in found)
        print(
            f"{path}  {len(exemplars)} exemplars  loss {statistics.mean(losses):.3f}  "
            f"accuracy {statistics.mean(accuracies):.3f}  ({each})",
            flush=True,
        )


if __name__ == "__main__":
    main()
