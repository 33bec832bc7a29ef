"""bic: two numbers correct what new classes score too much (bias correction, Wu et al., CVPR 2019).

After a step, logits o of the new classes become alpha o + beta, those of the old ones stay; alpha and beta minimise
the cross-entropy of images that were held out of the training, as many of every class: they show what an image scores
that was not learned by heart. Before that, a step learns by the distillation of `_blend.py`.

The paper learns alpha and beta by gradient descent. The loss is convex in both, so here L-BFGS finds its minimum in
float64. Images that a pair separates without fault have none, so beside the sum of their losses there is half the
squared distance to (1, 0): as much as one image's word, and a choice of ours.

The paper keeps every step's pair beside the classifier, which goes on uncorrected into the next step, and applies them
all to its scores. Here it is folded into the rows, w <- alpha w and b <- alpha b + beta: the same scores after a step,
of everything that asks the classifier, the next step's distillation among it; but that step trains on from the
corrected rows, whose lengths its gradients and its weight decay then see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lwmfw import Component, Field, Options, Penalty, UserError, hookimpl
from lwmfw_plugins.penalties._blend import blended_distillation, rows

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from lwmfw import ImageSet, Model, Outputs, Run, Step, StepResult


def held_out(labels: Tensor, share: float, rng: Generator) -> Tensor:
    """Which images are held out: as many of every class, the share of the class that has fewest, drawn at random.

    Args:
        labels: (N,), int64, on the CPU, 0..classes-1.
        share: above 0, at most 0.5.
        rng: draws them.

    Returns:
        (N,), bool: at least one of each class, and of one with two images or more not all.
    """
    import torch

    counts = torch.bincount(labels)
    each = max(1, round(share * int(counts.min())))
    out = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(len(counts)):
        members = (labels == label).nonzero().flatten()
        out[members[torch.randperm(len(members), generator=rng)[:each]]] = True
    return out


def correction_loss(correction: Tensor, logits: Tensor, labels: Tensor, known: int) -> Tensor:
    """Mean cross-entropy of corrected logits, and 1/2N of the squared distance of the correction to (1, 0).

    Args:
        correction: (2,), alpha and beta.
        logits: (N, classes), old classes first.
        labels: (N,), int64.
        known: how many of the classes are old.

    Returns:
        A scalar, strictly convex in the correction.
    """
    import torch
    from torch.nn.functional import cross_entropy

    alpha, beta = correction
    corrected = torch.cat([logits[:, :known], alpha * logits[:, known:] + beta], 1)
    loss: Tensor = cross_entropy(corrected, labels) + ((alpha - 1).square() + beta.square()) / (2 * len(labels))
    return loss


def fitted_correction(logits: Tensor, labels: Tensor, known: int) -> tuple[float, float]:
    """The alpha and beta that minimise `correction_loss`, which says what it takes; in float64, on the CPU."""
    import torch

    logits, labels = logits.detach().cpu().double(), labels.cpu()
    correction = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [correction], max_iter=200, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        found = correction_loss(correction, logits, labels, known)
        found.backward()
        return found

    search.step(loss)
    alpha, beta = correction.tolist()
    return alpha, beta


def fold(weight: Tensor, bias: Tensor, known: int, alpha: float, beta: float) -> None:
    """Have the rows of new classes score alpha o + beta where they scored o; in place.

    Args:
        weight: (N, D), a row per class, old classes first.
        bias: (N,).
        known: how many of the classes are old.
        alpha: factor of the logits.
        beta: what is added to them.
    """
    weight[known:] *= alpha
    bias[known:] = alpha * bias[known:] + beta


class CorrectionOptions(Options):
    """Options of bic."""

    held_out: float = Field(
        0.1,
        gt=0,
        le=0.5,
        description="images of every class held out of a step: this share of the smallest class, at least one; the "
        "paper's split is 1:9",
    )
    temperature: float = Field(
        2.0, gt=0, le=1000, description="temperature of the distillation's softmaxes; the paper's is 2"
    )


class BiasCorrection:
    """Distil the old classes' scores, then correct the bias towards new ones on held-out images (BiC).

    Exemplars that are held out stay in the memory, and others are drawn in the next step; new images that are held out
    are no candidates for it. alpha and beta of each step are in its results.
    """

    needs = frozenset({"old", "memory", "rows"})
    least_classes = 2  # a softmax over one class is 1
    spares_first_step = True

    def __init__(self, options: CorrectionOptions) -> None:
        self.options = options
        self.held: ImageSet | None = None
        self.correction = (1.0, 0.0)

    @hookimpl
    def choose_data(self, run: Run, step: Step, data: ImageSet, rng: Generator) -> ImageSet | None:
        """What is left when images are held out.

        Raises:
            UserError: nothing of a class would be left, or it has no image at all.
        """
        import torch

        if step.index == 1:
            return None
        labels = data.labels.cpu()
        counts = torch.bincount(labels, minlength=len(step.seen_classes))
        fewest = int(counts.argmin())
        if counts[fewest] < 2:
            raise UserError(
                f"class '{run.results.class_names[fewest]}' has {int(counts[fewest])} of the images of step "
                f"{step.index}, and one to learn from and one to hold out are needed; keep more exemplars, or leave "
                "the component out"
            )
        out = held_out(labels, self.options.held_out, rng).to(data.labels.device)
        self.held = data.select(out.nonzero().flatten())
        return data.select((~out).nonzero().flatten())

    @hookimpl
    def compute_penalty(self, step: Step, new: Outputs, old: Outputs) -> dict[str, Tensor]:
        """The term bic: the distillation."""
        return {"bic": blended_distillation(step, new, old, self.options.temperature)}

    @hookimpl
    def after_training(self, run: Run, step: Step, model: Model) -> None:
        """Fit the correction and fold it into the classifier."""
        import torch

        if self.held is None:
            return
        known = len(step.old_classes)
        with torch.no_grad():
            logits = model.classifier(run.features(self.held))
        self.correction = fitted_correction(logits, self.held.labels, known)
        fold(*rows(model), known, *self.correction)
        self.held = None

    @hookimpl
    def after_step(self, step: Step, result: StepResult, name: str) -> None:
        """Note alpha and beta."""
        if step.index > 1:
            alpha, beta = self.correction
            result.extra[name] = {"alpha": alpha, "beta": beta}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the last correction, which its step has still to note."""
        return {"correction": list(self.correction)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        alpha, beta = state["correction"]
        self.correction = (alpha, beta)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("bic", BiasCorrection, CorrectionOptions)
