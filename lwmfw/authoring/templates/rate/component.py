"""More exemplars for the classes that came last."""

import sys
from lwmfw import Field, Options, Rate, hookimpl


class NewestOptions(Options):
    favour: float = Field(2.0, gt=0, le=1000, description="exemplars of a new class for one of an old class")


class Newest:
    """The budget shared out so that new classes have more than old ones."""

    def __init__(self, options: NewestOptions):
        self.favour = options.favour

    @hookimpl
    def allocate_memory(self, step, budget, classes, cost):
        total = budget.total(len(classes), cost)
        if total is None:  # the budget is "all"
            return dict.fromkeys(classes, sys.maxsize)
        shares = {label: self.favour if label in step.new_classes else 1.0 for label in classes}
        return {label: int(total * share / sum(shares.values())) for label, share in shares.items()}


@hookimpl
def register_components():
    yield Rate("newest", Newest, NewestOptions)
