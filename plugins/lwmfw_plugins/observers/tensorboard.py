"""tensorboard: event files in the run directory, for TensorBoard and whatever reads them.

`pip install "lwmfw[tensorboard]"`, then `tensorboard --logdir runs` shows every run below a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Observer, Options, hookimpl
from lwmfw_plugins._installed import require
from lwmfw_plugins.observers._tracked import Point, Tracked, Tracker, settings

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Tracker):
    """Writes event files for TensorBoard (needs the extra lwmfw[tensorboard])."""

    writer: SummaryWriter

    def __init__(self, options: Options) -> None:
        super().__init__()
        require("tensorboard")

    def begin(self, tracked: Tracked) -> None:
        """A new event file in place of those of an earlier start."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        for earlier in tracked.folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        # a TensorBoard that has read those already drops what they said
        self.writer = SummaryWriter(str(tracked.folder), purge_step=0)
        files = self.writer._get_file_writer()  # `add_hparams` would write them into another folder
        for summary in hparams(dict(settings(tracked.tables)), {}):
            files.add_summary(summary)

    def put(self, point: Point) -> None:
        """Write a scalar for each tag, and see that it is in the file."""
        for tag, value in point.values.items():
            self.writer.add_scalar(tag, value, point.at)
        self.writer.flush()

    def end(self, complete: bool) -> None:
        """Close the file."""
        self.writer.close()


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Observer("tensorboard", TensorBoard)
