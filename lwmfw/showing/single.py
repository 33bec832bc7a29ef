"""What a report says of one run, section by section. One whose data is not there is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lwmfw.errors import shown
from lwmfw.record.reading import RecordedRun
from lwmfw.record.results import Results, StepResult, accuracy, told
from lwmfw.record.tables import result_rows
from lwmfw.showing import charts
from lwmfw.showing.charts import Table, best_readout, class_names, readouts_of
from lwmfw.showing.exemplars import Kept, Strip, kept_exemplars
from lwmfw.showing.files import png_in
from lwmfw.showing.parts import Picture, Section, TableOf, Thumbs, counted, lasting, present, sized

_MISTAKES = 15
_MOST_PICTURES, _MOST_BYTES = 6, 700_000
"""Of components' own pictures that a page holds, and their bytes together."""
_MEASURES = [
    "Accuracy is the share of the images of all classes seen that are assigned their own class. Average: the mean "
    "over the steps. Forgetting: by how much the accuracy on the classes of earlier steps ends below its best. BWT: by "
    "how much it ends above where it began. Task-aware: with the choice among the classes of the image's own step. New "
    "classes: the mean over the steps of the accuracy on the classes that are new."
]
_WORTH = [
    "Exact: what the read-out knows is what all images at once would have given, to the bit. Carried over: the "
    "backbone has changed since, and drift is by how much the transported sums miss, as a share."
]


def headline(run: RecordedRun) -> list[str]:
    """The figures that a reader looks for first, in words."""
    results, who = run.results, best_readout([run])
    if not results.steps or results.last_accuracy[who] is None:
        return []
    last, steps = results.steps[-1], len(results.steps)
    ends = [(name, value) for name, value in results.last_accuracy.items() if name != who and value is not None]
    said = [
        f"After {counted(steps, 'step')} and {counted(last.seen, 'class', 'classes')}, {who} names the right class for "
        f"{results.last_accuracy[who]:.1%} of the {_tested_on(run)} of all classes seen"
        f"{''.join(f', {name} for {value:.1%}' for name, value in ends)}."
    ]
    average, forgotten = results.average_incremental_accuracy[who], results.forgetting[who]
    if average is not None and forgotten is not None:
        points = f"{abs(forgotten) * 100:.1f} points {'below' if forgotten >= 0 else 'above'} its best"
        said.append(f"Over all steps it averages {average:.1%}; on the classes of earlier steps it ends {points}.")
    epochs = sum(step.epochs for step in results.steps)
    time = lasting(sum(step.train_seconds for step in results.steps)) + f" in {counted(epochs, 'epoch')}" * bool(epochs)
    kept = f"{counted(last.exemplars, 'exemplar')} in {sized(last.memory_bytes)}" if last.exemplars else "no exemplars"
    return [*said, f"The run was trained for {time} and keeps {kept}."]


def _tested_on(run: RecordedRun) -> str:
    held_out = run.tables.get("evaluation", {}).get("validation", 0)
    return "images held out from training" if held_out else "test images"


def sections(run: RecordedRun) -> list[Section]:
    """All sections, some of which may be empty."""
    measured = [_accuracy(run), _by_class(run)] if run.results.steps else []
    made = [_certificates(run), _cost(run)] if run.results.steps else []
    return [
        *measured,
        _training(run),
        _memory(run),
        *made,
        _pictures(run),
        _origin(run),
        _recipe(run),
        _environment(run),
    ]


def _accuracy(run: RecordedRun) -> Section:
    results, several = run.results, len(run.results.steps) > 1
    measures: dict[str, Mapping[str, float | None]] = {
        "last": results.last_accuracy,
        "average": results.average_incremental_accuracy,
        "forgetting": results.forgetting,
        "BWT": results.backward_transfer,
        "task-aware": results.task_aware_accuracy,
        "new classes": results.new_class_accuracy,
        "top 5": results.steps[-1].accuracy_top5,
    }
    measures = {name: each for name, each in measures.items() if any(value is not None for value in each.values())}
    rows = [[who, *(told(each.get(who)) for each in measures.values())] for who in readouts_of([run])]
    tables = [TableOf("After the last step, by read-out", ["read-out", *measures], rows)]
    tables += [TableOf("After each step, by read-out", *result_rows(results), folded=True)]
    others = [who for who in readouts_of([run]) if several and who != best_readout([run])]
    matrices = [chart for who in others if (chart := charts.matrix([run], who)) and chart.table]
    tables += [TableOf(chart.title, *chart.table, folded=True) for chart in matrices if chart.table]
    makers = (charts.accuracy, charts.forgetting, charts.matrix) if several else ()
    return Section("accuracy", "Accuracy", _MEASURES, present([run], *makers), tables)


def _by_class(run: RecordedRun) -> Section:
    results, who, tables = run.results, best_readout([run]), []
    pairs = charts.confused(results, who)[:_MISTAKES]
    if pairs:
        rows = [[true, taken, str(count), f"{share:.3f}"] for true, taken, count, share in pairs]
        tables.append(TableOf(f"Most frequent mistakes of {who}", ["class", "taken for", "images", "share"], rows))
    if charts.counts_of(results, who):
        tables.append(TableOf("Accuracy of each class after the last step", *_classes(results), folded=True))
    return Section("classes", "Which classes are confused", charts=present([run], charts.confusion), tables=tables)


def _classes(results: Results) -> Table:
    confusion = {who: counts for who in results.last_accuracy if (counts := charts.counts_of(results, who))}
    step_of = [step.step for step in results.steps for _ in step.new_classes]
    rows = [
        [name, str(step), *(told(accuracy(found, range(place, place + 1))) for found in confusion.values())]
        for place, (name, step) in enumerate(zip(class_names(results), step_of, strict=False))
    ]
    return ["class", "step", *confusion], rows


def _training(run: RecordedRun) -> Section:
    return Section("training", "Training", charts=present([run], charts.loss, charts.rate))


def _memory(run: RecordedRun) -> Section:
    kept, drawn = kept_exemplars(run), present([run], charts.exemplars, charts.memory)
    if kept is None:
        return Section("memory", "Memory", charts=drawn)
    names = class_names(run.results)
    words = [f"The exemplars cannot be read: {kept.fault}"] if kept.fault else []
    if kept.strips:
        words.append("Below are exemplars as they come out of the memory, the most important of each class first.")
    if any(strip.original for strip in kept.strips):
        words.append(
            "Above them are the images that they were: those of their class that differ least, pixel by pixel."
        )
    return Section("memory", "Memory", words, drawn, _quotas(kept, names), [_thumbs(s, names) for s in kept.strips])


def _thumbs(strip: Strip, names: Sequence[str]) -> Thumbs:
    name = names[strip.label]
    stored = Picture(f"{counted(strip.count, 'exemplar')} of {name} as stored", strip.stored, strip.times)
    original = Picture(f"The training images of {name} that they were", strip.original, strip.times)
    return Thumbs(name, [original, stored] if strip.original else [stored])


def _quotas(kept: Kept, names: Sequence[str]) -> list[TableOf]:
    rows = [[names[label], str(count), str(kept.sizes[label])] for label, count in sorted(kept.counts.items())]
    return [TableOf("Exemplars of each class", ["class", "exemplars", "bytes"], rows, folded=True)] if rows else []


def _certificates(run: RecordedRun) -> Section:
    last = run.results.steps[-1]
    rows = [
        [who, _worth(said), sized(last.readout_bytes.get(who, 0)), str(said.get("statistics", ""))[:16]]
        for who, said in last.readouts.items()
    ]
    if not rows:
        return Section("readouts", "Read-outs")
    table = TableOf("After the last step", ["read-out", "what it is", "size", "SHA-256 of its statistics"], rows)
    return Section("readouts", "Read-outs", _WORTH, tables=[table])


def _worth(said: Mapping[str, Any]) -> str:
    if "exact" not in said:
        return "made from features as its own steps gave them"
    if said["exact"]:
        return "exact"
    return f"carried over, drift {said['drift']:.3f}" if isinstance(said.get("drift"), float) else "not exact"


def _cost(run: RecordedRun) -> Section:
    columns: dict[str, Callable[[StepResult], str]] = {
        "classes seen": lambda step: str(step.seen),
        "epochs": lambda step: str(step.epochs or ""),
        "seconds of training": lambda step: f"{step.train_seconds:.1f}",
        "parameters": lambda step: str(step.parameters),
        "model": lambda step: sized(step.model_bytes),
        "exemplars": lambda step: str(step.exemplars),
        "their bytes": lambda step: sized(step.memory_bytes),
    }
    rows = [[str(step.step), *(tell(step) for tell in columns.values())] for step in run.results.steps]
    tables = [TableOf("What each step took and left", ["step", *columns], rows)]
    parts = list(dict.fromkeys(part for step in run.results.steps for part in step.part_seconds))
    if parts:
        seconds = [
            [f"{step.part_seconds[p]:.1f}" if p in step.part_seconds else "" for p in parts]
            for step in run.results.steps
        ]
        each = [[str(step.step), *row] for step, row in zip(run.results.steps, seconds, strict=True)]
        tables.append(TableOf("Seconds of each part of a step", ["step", *parts], each))
    return Section("cost", "Time and size", tables=tables)


def _pictures(run: RecordedRun) -> Section:
    """PNG files that components have left in the run directory under their names, the newest of each."""
    found: list[Thumbs] = []
    for name in run.results.providers if run.tables else ():
        by_step = sorted((run.path / name).glob("step-*.png"), key=lambda file: (len(file.name), file.name))
        for file in [run.path / f"{name}.png", *by_step[-1:]]:
            left = _MOST_BYTES - sum(len(each.png) for thumbs in found for each in thumbs.pictures)
            content = png_in(run.path, file, left) if len(found) < _MOST_PICTURES else b""
            if content:
                title = file.relative_to(run.path).as_posix()
                found.append(Thumbs(title, [Picture(f"A picture that the run has left as {title}", content)]))
    return Section("pictures", "Pictures of components", pictures=found)


def _origin(run: RecordedRun) -> Section:
    results = run.results
    rows = list(_facts_of_data(results.data or {}))
    rows += [[f"first step: {key}", shown(str(value), 400)] for key, value in (results.first_step or {}).items()]
    rows += [[f"source {number}", shown(str(each), 400)] for number, each in enumerate(results.sources, 1)]
    rows += [["mended plug-in files", shown(str(each), 400)] for each in results.mended]
    rows += [["went on otherwise", shown(str(each), 400)] for each in results.drift]
    rows += [[f"file of {key}", f"sha256 {digest}"] for key, digest in results.files.items()]
    tables = [TableOf("What it has learned from", ["what", "which"], rows)] if rows else []
    return Section("origin", "Data and origin", tables=tables)


def _facts_of_data(data: Mapping[str, Any]) -> Iterator[list[str]]:
    for part in ("train", "test"):
        images = data[part].get("images") if isinstance(data.get(part), dict) else None
        if isinstance(images, list) and all(isinstance(count, int) for count in images):
            yield [f"{part} images", f"{sum(images)} in {counted(len(images), 'class', 'classes')}"]
    if data.get("sha256"):
        yield ["data set", f"sha256 {data['sha256']}"]


def _recipe(run: RecordedRun) -> Section:
    if not run.tables:
        return Section("recipe", "Recipe")
    import tomli_w

    words = ["Every default written out; saved as a file, `lwmfw run FILE` gives the same bits again."]
    return Section("recipe", "Recipe", words, text=tomli_w.dumps(run.tables))


def _environment(run: RecordedRun) -> Section:
    facts, header = run.environment, ["what", "which"]
    apart = ("packages", "argv")  # a command line says where things lie on somebody's machine
    rows = [[key, _plain(value)] for key, value in facts.items() if key not in apart and value not in (None, [], {})]
    tables = [TableOf("Machine and software", header, rows)] if rows else []
    providers = [[name, provider] for name, provider in run.results.providers.items()]
    if providers:
        tables.append(TableOf("Where each component comes from", ["component", "provider"], providers, folded=True))
    packages = facts.get("packages")
    if isinstance(packages, dict) and packages:
        installed = [[str(name), str(version)] for name, version in packages.items()]
        tables.append(TableOf(f"{len(installed)} installed packages", ["package", "version"], installed, folded=True))
    return Section("environment", "Environment", tables=tables)


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
