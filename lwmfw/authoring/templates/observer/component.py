"""Accuracy of every class after every step, as a table and in results.json."""

from lwmfw import Observer, hookimpl


class ByClass:
    """Accuracy of every class after every step."""

    def __init__(self, options):
        self.lines = ["step,class,accuracy"]

    @hookimpl
    def after_step(self, run, step, result, name):
        names = run.results.class_names
        recall = {names[c]: row[c] / sum(row) for c, row in enumerate(result.confusion["cnn"])}
        self.lines += [f'{step.index},"{label}",{value:.4f}' for label, value in recall.items()]
        result.extra[name] = {"worst": min(recall, key=recall.get)}
        if run.directory:
            run.directory.write(f"{name}.csv", "\n".join(self.lines).encode())

    def state(self):
        return {"lines": self.lines}

    def restore(self, state):
        self.lines = state["lines"]


@hookimpl
def register_components():
    yield Observer("by-class", ByClass)
