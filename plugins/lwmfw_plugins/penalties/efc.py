"""efc: features held where the classifier feels them move (elastic feature consolidation, Magistri et al., ICLR 2024).

In place of a spring for each parameter (ewc), one quadratic form on the features: a direction in which no logit changes
is nearly free, one that moves the prediction is stiff. The empirical feature matrix is the Fisher information of the
features under the model's own prediction. It is that of the step before alone, as in the paper; nothing adds up.

The published code sums the matrix up class by class, which is the same; here any classifier has one, not a linear head
alone. The rest of the paper's method is not this penalty: its heads are trained on Gaussian prototypes of old classes
beside the new images, prototypes follow the drift of features, BatchNorm keeps its statistics from the second step on
(`training.batchnorm`), and the first step learns rotations too (`self-rotation`). The paper trains with Adam: SGD
diverges on a form as stiff as this but at small learning rates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lwmfw import Component, Field, Options, Penalty, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import ImageSet, Model, Outputs, Run

_VALUES = 2**24  # of the gradients that are held at a time, 64 MB


def feature_matrix(head: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """The empirical feature matrix: the mean over images of J^T (diag p - p p^T) J.

    J (N, D) is the gradient of an image's logits by its features, the weights W where the head is linear; p is the
    softmax of the logits. It is computed as the expectation over y ~ p of g g^T, with g the gradient of log p(y), which
    is the same and cannot have an eigenvalue below 0 but by rounding.

    Args:
        head: features (B, D) -> logits (B, N), each image by itself.
        features: (B, D).

    Returns:
        (D, D), symmetric.
    """
    from torch import no_grad
    from torch.func import jacrev, vmap

    def log_odds(image: Tensor) -> tuple[Tensor, Tensor]:
        found = head(image[None])[0].log_softmax(0)
        return found, found

    slopes = vmap(jacrev(log_odds, has_aux=True))
    with no_grad():
        classes, width = head(features[:1]).shape[1], features.shape[1]
        total = features.new_zeros(width, width)
        for some in features.split(max(1, _VALUES // (classes * max(classes, width)))):
            gradients, logs = slopes(some)
            rows = ((logs / 2).exp()[:, :, None] * gradients).flatten(0, 1)
            total += rows.T @ rows
    return total / len(features)


def elastic_distance(new: Tensor, old: Tensor, matrix: Tensor, weight: float, plain: float) -> Tensor:
    """(f - f*)^T (lambda E + eta I) (f - f*), averaged over the batch.

    Args:
        new: (B, D), f, features of the model being trained.
        old: (B, D), f*, features of its predecessor.
        matrix: (D, D), E.
        weight: lambda.
        plain: eta.

    Returns:
        A scalar, not negative, zero for equal features.
    """
    moved = new - old
    return (weight * (moved @ matrix * moved).sum(1) + plain * moved.square().sum(1)).mean()


class EfcOptions(Options):
    """Options of efc."""

    weight: float = Field(
        10.0,
        ge=0,
        le=1e6,
        description="factor of the distance as the classifier is sensitive to it (lambda); the paper's is 10",
    )
    plain: float = Field(
        0.1, ge=0, le=1e6, description="factor of the plain squared distance beside it (eta); the paper's is 0.1"
    )


class Efc:
    """Hold each image's features in place, weighted by the last step's feature matrix (elastic feature consolidation).

    The matrix is taken when a step has ended, over its training images as they are, exemplars included, with the
    softmax over all classes seen so far.
    """

    needs = frozenset({"old", "features"})
    spares_first_step = True

    def __init__(self, options: EfcOptions) -> None:
        self.options = options
        self.least_classes = 1 if options.plain else 2  # of a softmax over one class features feel nothing
        self.matrix: Tensor | None = None

    @hookimpl
    def before_step(self, run: Run) -> None:
        """Have the matrix where the model is; from a checkpoint it comes elsewhere."""
        if self.matrix is not None:
            self.matrix = self.matrix.to(run.device)

    @hookimpl
    def compute_penalty(self, new: Outputs, old: Outputs) -> dict[str, Tensor] | None:
        """The term efc; none before a step has ended."""
        if self.matrix is None:
            return None
        options = self.options
        return {"efc": elastic_distance(new.features, old.features, self.matrix, options.weight, options.plain)}

    @hookimpl
    def after_step(self, run: Run, model: Model, data: ImageSet) -> None:
        """Take the matrix for the next step."""
        from lwmfw import evaluating

        with evaluating(model):
            self.matrix = feature_matrix(model.classifier, run.features(data))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {} if self.matrix is None else {"matrix": self.matrix}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.matrix = state.get("matrix")


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("efc", Efc, EfcOptions)
