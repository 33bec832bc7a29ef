"""Fewer grey levels: a lossless codec needs fewer bytes for them, so a budget in bytes holds more exemplars."""

from lwmfw import Field, Options, Refiner, Selection, hookimpl


class PosteriseOptions(Options):
    bits: int = Field(5, ge=1, le=8, description="of 8 that a value keeps")


class Posterise:
    """Exemplars in fewer grey levels."""

    def __init__(self, options: PosteriseOptions):
        self.step = 2 ** (8 - options.bits)

    @hookimpl(wrapper=True)
    def select_memory(self, candidates):
        selection = yield
        images = selection.images(candidates)  # as the refiners before this one left them
        pixels = images.pixels // self.step * self.step + self.step // 2
        return Selection(selection.indices, {label: pixels[images.labels == label] for label in selection.indices})


@hookimpl
def register_components():
    yield Refiner("posterise", Posterise, PosteriseOptions)
