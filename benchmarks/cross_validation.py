"""How good a penalty generalised cross-validation chooses for the read-out `ridge`, from its sums alone.

    python benchmarks/cross_validation.py

In several feature spaces of the shipped images: accuracy on a held-out quarter of the training images with the penalty
that the sums choose, beside the best of the same grid on these images, which no method can know. The test images are
not read. About two minutes on one core.
"""

import tempfile

import torch

import lwmfw
from lwmfw_plugins.readouts._sums import LEVELS, Sums, generalised_cross_validation, lift_matrix, rounded
from lwmfw_plugins.readouts.ridge import ridge_weights

GRID = torch.logspace(-6, 6, 49, dtype=torch.float64)
"""The grid of the read-out, in units of features of length 1."""

RECIPE = "fashion-mnist-mini/finetune"


def spaces(run):
    """Name -> features of training images and of held-out ones, rounded."""
    train, held_out = run.data.train, run.data.test

    def both(compute):
        return tuple(rounded(compute(images)) for images in (train, held_out))

    drawn = run.fresh_model(torch.Generator().manual_seed(0))
    found = {
        "pixels": both(lambda images: images.pixels.flatten(1).float()),
        "network as drawn": both(lambda images: run.features(images, model=drawn)),
        "network of five classes": both(run.features),
    }
    for name in list(found):
        lift = lift_matrix(found[name][0].shape[1], 1000, seed=0)
        found[f"{name}, lift 1000"] = tuple((h @ lift).relu().round().clamp(max=LEVELS) for h in found[name])
    return found


def accuracy(sums, h, labels, penalty):
    """Of the ridge regression with a penalty, on other images."""
    return float(((h @ ridge_weights(sums, penalty)).argmax(1) == labels).double().mean())


def main():
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "evaluation.validation": 0.25,
            "training.epochs": 0,
            "training.first": {"epochs": 12},
            "observers": [],
        }
        lwmfw.run(RECIPE, settings, seed=1, out=f"{folder}/run")
        run = lwmfw.open_run(f"{folder}/run").prepared()
    print(f"{'features':32}{'chosen':>10}{'accuracy':>10}{'best':>10}{'accuracy':>10}")
    for name, (train, held_out) in spaces(run).items():
        sums = Sums.of_images(train, run.data.train.labels, 10)
        grid, labels = GRID * LEVELS**2, run.data.test.labels
        chosen = generalised_cross_validation(sums.gram, sums.moments, float(len(train)), grid)
        reached = [accuracy(sums, held_out, labels, float(penalty)) for penalty in grid]
        best = max(range(len(grid)), key=reached.__getitem__)
        own = accuracy(sums, held_out, labels, chosen)
        print(f"{name:32}{chosen / LEVELS**2:10.2g}{own:10.3f}{float(GRID[best]):10.2g}{reached[best]:10.3f}")


if __name__ == "__main__":
    main()
