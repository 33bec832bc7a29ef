"""Make fashion-mnist-mini from the original files: the first images of each class, in their original order.

    python tools/make_fashion_mnist_mini.py [FOLDER]

FOLDER holds the four published .gz files; by default it is where Debian's package dataset-fashion-mnist puts them.
Prints the SHA-256 of each file's content, for plugins/lwmfw_plugins/data/fashion_mnist.py.
"""

import gzip
import hashlib
import sys
from pathlib import Path

import torch

from lwmfw_plugins.data._idx import read_idx, write_idx
from lwmfw_plugins.data.fashion_mnist import DEBIAN, FILES, ORIGINAL_SHA256, SHIPPED

PER_CLASS = {"train": 320, "test": 100}


def main() -> None:
    """Write the four files and print their digests."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEBIAN
    for split, count in PER_CLASS.items():
        parts = [f"{split} images", f"{split} labels"]
        images, labels = (read_idx(folder / f"{FILES[part]}.gz", ORIGINAL_SHA256[part]) for part in parts)
        chosen = torch.cat([(labels == c).nonzero().flatten()[:count] for c in range(10)]).sort().values
        for part, array in zip(parts, (images, labels), strict=True):
            content = write_idx(array[chosen].contiguous())
            (SHIPPED / f"{FILES[part]}.gz").write_bytes(gzip.compress(content, 9, mtime=0))
            print(f'    "{part}": "{hashlib.sha256(content).hexdigest()}",')


if __name__ == "__main__":
    main()
