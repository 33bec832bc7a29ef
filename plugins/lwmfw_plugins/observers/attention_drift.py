"""attention-drift: how far a model's eyes wander from what it looked at first (Dhar et al., CVPR 2019, section 3).

A model forgets a class when it stops looking at what told the class apart. The attention of every step's model for an
image and its true class is held against that of the first step's model for the same image and class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lwmfw import Component, Field, Observer, Options, attention_drift, hookimpl
from lwmfw_plugins._attention import pooled_attention

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import ImageSet, Model, Run, Step, StepResult

EPS = 1e-6  # as in L_AD
ROWS = 8  # of the picture


class DriftOptions(Options):
    """Options of attention-drift."""

    images: int = Field(10, ge=1, le=10_000, description="test images of each class of the first step, in stored order")
    picture: bool = Field(
        True, description="whether the run leaves a picture of the images and of attention to them, step by step"
    )


class AttentionDrift:
    """Measures how far attention to the first step's classes has moved; saves the maps and a picture of them.

    results.json gets, per step, in `extra` under the observer's name: `l1` and `l2`, the distances of the L2-normalised
    Grad-CAM maps to those of step 1, mean over the images (0..sqrt(2 H W) and, Euclidean, 0..sqrt(2)), and the same
    `l1_by_class` and `l2_by_class`, in class order. Models look in evaluation mode, at the map that the classifier
    pools.

    `NAME/step-N.safetensors`, NAME being the observer's, holds `maps` (images, H, W), float16, `labels`, positions in
    the class order, and `indices`, positions among the test images in class order. `NAME.png` is the picture.
    """

    needs = frozenset({"pooled"})

    def __init__(self, options: DriftOptions) -> None:
        self.options = options
        self.maps: list[Tensor] = []  # of each step

    def state(self) -> dict[str, Any]:
        """The maps of all steps so far, (steps, images, H, W)."""
        import torch

        return {"maps": torch.stack(self.maps)} if self.maps else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.maps = list(state.get("maps", []))

    @hookimpl
    def after_step(self, run: Run, step: Step, model: Model, result: StepResult, name: str) -> None:
        """Measure, and keep the maps."""
        indices = self._indices(run)
        if run.known_steps or not len(indices):  # the images of the first step are not there any more, or never were
            return
        images = run.data.test.select(indices)
        self.maps.append(look(run, model, images))
        labels = images.labels.cpu()
        result.extra[name] = summary(*attention_drift(self.maps[-1], self.maps[0]), labels)
        if run.directory:
            from safetensors.torch import save

            tensors = {"maps": self.maps[-1].half(), "labels": labels, "indices": indices.cpu()}
            run.directory.write(f"{name}/step-{step.index}.safetensors", save(tensors))

    @hookimpl
    def after_run(self, run: Run, name: str) -> None:
        """Draw the first images of each class."""
        if not (self.options.picture and run.directory and self.maps):
            return
        import torch

        if run.known_steps or not len(self._indices(run)):
            return

        from lwmfw_plugins._pictures import attention_sheet

        indices = self._indices(run)
        labels = run.data.test.labels[indices].tolist()
        begins: dict[int, int] = {}
        rank = [i - begins.setdefault(label, i) for i, label in enumerate(labels)]  # first of its class, second, ...
        rows = sorted(sorted(range(len(labels)), key=lambda i: (rank[i], labels[i]))[:ROWS])
        images = run.data.test.select(indices[rows])
        batches = [batch for batch, _ in run.loader.evaluation_batches(images)]
        pixels = (torch.cat(batches) * run.loader.std + run.loader.mean).round().clamp(0, 255).byte().cpu()
        maps = torch.stack(self.maps, 1)[rows]
        captions = [drift_captions(each) for each in maps]
        names = [run.results.class_names[labels[i]] for i in rows]
        run.directory.write(f"{name}.png", attention_sheet(pixels, maps, names, captions))

    def _indices(self, run: Run) -> Tensor:
        """Positions of the watched images among the test images."""
        import torch

        of_class = [(run.data.test.labels == c).nonzero().flatten() for c in run.steps[0].new_classes]
        return torch.cat([members[: self.options.images] for members in of_class])


def look(run: Run, model: Model, images: ImageSet) -> Tensor:
    """Attention to each image for its own class, (N, H, W) on the host; of length 1, or 0 where ReLU leaves none."""
    import torch

    from lwmfw import evaluating

    maps = []
    with evaluating(model):
        for batch, labels in run.loader.evaluation_batches(images):
            outputs = model(batch)
            vectors = pooled_attention(outputs, labels, EPS)
            maps.append(vectors.view(-1, *outputs.pooled.shape[2:]).cpu())
    return torch.cat(maps)


def drift_captions(maps: Tensor) -> list[str]:
    """How far the maps of one image, (steps, H, W), are from the first; a dead one has no place to be far from.

    A map is dead where the ReLU leaves nothing: zero everywhere.
    """
    l1, _ = attention_drift(maps, maps[:1])
    dead = (maps == 0).all((1, 2)).tolist()
    return [
        "no attention" if gone else "no first map" if dead[0] else f"l1 {far:.2f}"
        for gone, far in zip(dead, l1.tolist(), strict=True)
    ]


def summary(l1: Tensor, l2: Tensor, labels: Tensor) -> dict[str, Any]:
    """What results.json says of the distances: means over all images, and over those of each class."""
    classes = labels.unique().tolist()
    return {
        "l1": l1.mean().item(),
        "l2": l2.mean().item(),
        "l1_by_class": [l1[labels == c].mean().item() for c in classes],
        "l2_by_class": [l2[labels == c].mean().item() for c in classes],
    }


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Observer("attention-drift", AttentionDrift, DriftOptions)
