"""fashion-mnist and fashion-mnist-mini: photographs of clothes, 28x28, 10 classes (Xiao et al. 2017).

The mini set, the first 320 training and 100 test images of each class, is shipped with its MIT licence;
tools/make_fashion_mnist_mini.py made it from the originals.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from lwmfw import Component, Data, Field, Folder, Options, UserError, hookimpl

if TYPE_CHECKING:
    from lwmfw import DataSet

NAMES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip
FILES = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}
ORIGINAL_SHA256 = {
    "train images": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train labels": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "test images": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "test labels": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MINI_SHA256 = {
    "train images": "c0286200b288c682ecd29ca78994df2559948945ca8a8ce046c40cde953f26ed",
    "train labels": "050aeeef2dcf8a39105d2f6565969b6a60261a9d19f177ad79e92b21dc9eb081",
    "test images": "7cee33c3c6414b1b86c25e665a6c4f41584269de3b7cc9768b1d351922845eef",
    "test labels": "3128d790775889812b73c4f13923559c8b9e281d112c6ea7862acf60a206a909",
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SHIPPED = Path(__file__).parent / "fashion_mnist_mini"


class ClothesOptions(Options):
    """Options of both sets."""

    padding: int = Field(
        2,
        ge=0,
        le=28,
        description="width of the border of zeros around a training image before it is cropped at random",
    )
    flip: bool = Field(True, description="whether training images are mirrored at random")


class MiniOptions(ClothesOptions):
    """Options of fashion-mnist-mini."""

    root: Literal[""] = Field("", description="always empty: the images are shipped")


class FashionMnistOptions(ClothesOptions):
    """Options of fashion-mnist."""

    root: Folder = Field("", description="folder in torchvision's layout; empty: where Debian's package puts it")
    download: bool = Field(False, description="whether to fetch a missing set into root")


class FashionMnistMini:
    """320 training and 100 test images per class of Fashion-MNIST, shipped with lwmfw."""

    class_count: ClassVar[int] = 10
    class_names: ClassVar[list[str]] = NAMES

    def __init__(self, options: MiniOptions) -> None:
        self.options = options

    def load(self) -> DataSet:
        """Read the shipped files."""
        return read_folder(SHIPPED, MINI_SHA256, self.options)


class FashionMnist:
    """All 60,000 training and 10,000 test images of Fashion-MNIST."""

    class_count: ClassVar[int] = 10
    class_names: ClassVar[list[str]] = NAMES

    def __init__(self, options: FashionMnistOptions) -> None:
        self.options = options
        if options.download and not options.root:
            raise UserError("data.download: needs a place; set data.root to a folder")

    def load(self) -> DataSet:
        """Read Debian's files, or those under root; download only if the recipe says so."""
        root = Path(self.options.root)
        folders = [root / "FashionMNIST" / "raw", root] if self.options.root else [DEBIAN]
        folder = _complete(folders)
        if folder is None and self.options.download:
            from torchvision.datasets import FashionMNIST

            try:
                FashionMNIST(str(root), download=True)
            except (OSError, RuntimeError) as error:
                raise UserError(f"download into {root} failed: {error}; try again") from error
            folder = _complete(folders)
        if folder is None:
            looked = ", ".join(str(path) for path in folders)
            raise UserError(
                f"not found; looked for {FILES['train images']}[.gz] and companions in {looked}; "
                "install Debian's package dataset-fashion-mnist, or set data.root (--set data.root=DIR; "
                "data.download = true fetches it)"
            )
        return read_folder(folder, ORIGINAL_SHA256, self.options)


def read_folder(folder: Path, sha256: dict[str, str], options: ClothesOptions) -> DataSet:
    """The data set of four IDX files, each plain or gzipped."""
    from lwmfw import DataSet, Images
    from lwmfw_plugins.data._idx import read_idx

    arrays = {part: read_idx(_file(folder, name), sha256[part]) for part, name in FILES.items()}
    train, test = (
        Images(arrays[f"{split} images"].unsqueeze(1), arrays[f"{split} labels"].long()) for split in ("train", "test")
    )
    # mean and deviation of the 60,000 training images
    return DataSet(train, test, NAMES, [0.2860], [0.3530], options.padding, options.flip)


def _complete(folders: list[Path]) -> Path | None:
    return next((path for path in folders if all(_file(path, name).is_file() for name in FILES.values())), None)


def _file(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_file() else folder / f"{name}.gz"


@hookimpl
def register_components() -> Iterator[Component]:
    """The components of this file."""
    yield Data("fashion-mnist-mini", FashionMnistMini, MiniOptions)
    yield Data("fashion-mnist", FashionMnist, FashionMnistOptions)
