"""How much of a feature space images span, and what quality of compression leaves of it (MRDC).

Memory Replay with Data Compression (Wang et al., ICLR 2022, section 4.2) holds the volume that compressed exemplars
span against that of their originals: det(L) of the Gram matrix L of normalised features, per class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_RIDGE = 1e-8  # far above what float32 features round to, far below what an image adds


def log_volume(features: Tensor) -> float:
    """The logarithm of the volume that feature vectors span: half the log-determinant of their Gram matrix.

    More vectors than dimensions span no volume. Then the D x D matrix, of which the Gram matrix has the eigenvalues
    besides zeros, takes its place. A ridge of 1e-8 of the mean eigenvalue keeps repeated vectors finite.

    Args:
        features: (n, D), float64, of length 1 or 0.

    Returns:
        At most 0 for n up to D.
    """
    n, dimensions = features.shape
    gram = features @ features.T if n <= dimensions else features.T @ features
    ridge = _RIDGE * n / len(gram)  # the trace is n
    return float(torch.linalg.slogdet(gram + ridge * torch.eye(len(gram), dtype=gram.dtype)).logabsdet) / 2


def volume_change(originals: Sequence[Tensor], compressed: Sequence[Tensor]) -> float:
    """How much compression changes the mean log-volume of classes, relative to that of the originals.

    Args:
        originals: features of each class, as `log_volume` takes them.
        compressed: of the same images, compressed.
    """
    before, after = (sum(log_volume(own) for own in features if len(own)) for features in (originals, compressed))
    return abs(after - before) / max(abs(before), 1e-12)  # one image to a class spans the same, compressed or not
