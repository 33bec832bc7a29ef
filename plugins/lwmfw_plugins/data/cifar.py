"""cifar10 and cifar100: photographs of 32x32 pixels, 10 and 100 classes (Krizhevsky 2009).

torchvision reads the published files. They are pickles, and a pickle can run code: none is opened before its MD5 is the
published one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import field_validator

from lwmfw import Component, Data, Field, Folder, Options, UserError, hookimpl
from lwmfw_plugins.data._orders import PODNET, numpy_order

if TYPE_CHECKING:
    from lwmfw import DataSet, Images


class CifarOptions(Options):
    """Options of cifar10 and cifar100."""

    root: Folder = Field("", description="folder in torchvision's layout")
    download: bool = Field(False, description="whether to fetch a missing set into root")
    padding: int = Field(
        4,
        ge=0,
        le=32,
        description="width of the border of zeros around a training image before it is cropped at random",
    )
    flip: bool = Field(True, description="whether training images are mirrored at random")
    brightness: float = Field(
        0.0,
        ge=0,
        le=1,
        description="training images are multiplied by 1 - brightness to 1 + brightness at random; PODNet: 63/255",
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        [],
        description="deviation of each channel, of pixels scaled to 0..1; []: that of all training images; UCIR's "
        "code: [0.2009, 0.1984, 0.2023], the mean of each image's own",
    )

    @field_validator("std")
    @classmethod
    def _for_each_channel(cls, std: list[float]) -> list[float]:
        if len(std) not in (0, 3):
            raise ValueError("input should have 3 deviations, one per channel, or none")
        return std


class Cifar100:
    """50,000 training and 10,000 test images of 100 classes."""

    name: ClassVar[str] = "cifar100"
    torchvision_name: ClassVar[str] = "CIFAR100"
    class_count: ClassVar[int] = 100
    # of the 50,000 training images, pixels scaled to [0, 1]
    mean: ClassVar[list[float]] = [0.5071, 0.4866, 0.4409]
    std: ClassVar[list[float]] = [0.2673, 0.2564, 0.2762]

    def __init__(self, options: CifarOptions) -> None:
        self.options = options

    @property
    def orders(self) -> dict[str, list[int]]:
        """seed1993; PODNet's three, of which the first is what iCaRL's own script produced (Rebuffi et al. 2017)."""
        return {"seed1993": numpy_order(self.class_count), **PODNET, "icarl": PODNET["podnet1"]}

    def load(self) -> DataSet:
        """Read the files under root; download only if the recipe says so."""
        import torchvision

        from lwmfw import DataSet

        published = getattr(torchvision.datasets, self.torchvision_name)
        if not self.options.root:
            raise UserError(
                "the images are not shipped; set data.root (--set data.root=DIR) to the folder that holds "
                f"{published.base_folder} (with data.download = true, to where it shall come)"
            )
        folder = Path(self.options.root) / published.base_folder
        if self.options.download and not folder.exists():
            try:
                published(self.options.root, download=True)
            except (OSError, RuntimeError) as error:
                raise UserError(f"download into {self.options.root} failed: {error}; try again") from error
        _verify(folder, published)
        train, test = (published(self.options.root, train=train) for train in (True, False))
        options = self.options
        return DataSet(
            _images(train),
            _images(test),
            list(train.classes),
            self.mean,
            options.std or self.std,
            options.padding,
            options.flip,
            brightness=options.brightness,
        )


class Cifar10(Cifar100):
    """50,000 training and 10,000 test images of 10 classes."""

    name = "cifar10"
    torchvision_name = "CIFAR10"
    class_count = 10
    mean: ClassVar[list[float]] = [0.4914, 0.4822, 0.4465]
    std: ClassVar[list[float]] = [0.2470, 0.2435, 0.2616]

    @property
    def orders(self) -> dict[str, list[int]]:
        """seed1993."""
        return {"seed1993": numpy_order(self.class_count)}


def _verify(folder: Path, published: Any) -> None:
    """Compare the MD5 of every file with torchvision's list, which is the authors'."""
    from torchvision.datasets.utils import calculate_md5

    meta = published.meta["filename"], published.meta["md5"]
    for file, wanted in (*published.train_list, *published.test_list, meta):
        path = folder / file
        if not path.is_file():
            raise UserError(
                f"not found; looked for {path}; unpack {published.filename} from its authors' page into "
                f"{folder.parent}, or set data.download = true"
            )
        actual = calculate_md5(path)
        if actual != wanted:
            raise UserError(f"{path}: md5 is {actual}, not {wanted}: damaged or another file; fetch it again")


def _images(published: Any) -> Images:
    """torchvision's array (N, 32, 32, 3) and list of labels."""
    import torch

    from lwmfw import Images

    return Images(torch.from_numpy(published.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(published.targets))


@hookimpl
def register_components() -> Iterator[Component]:
    """The components of this file."""
    yield Data("cifar10", Cifar10, CifarOptions)
    yield Data("cifar100", Cifar100, CifarOptions)
