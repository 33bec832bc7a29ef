"""A shop whose classes come by the month: folders of pictures, and runs that are extended by them."""

import json

import lwmfw as framework
from helpers.command import lwmfw
from helpers.pictures import noise, save
from lwmfw.engine.evaluate import digest

CLASSES = {"months": ("ant", "bee", "cat"), "april": ("dog",), "may": ("elk", "fox")}
READOUTS = [{"use": "ridge"}, {"use": "ncm"}, {"use": "fecam", "covariance": "class"}, {"use": "cnn"}]


def pictures(folder, names, count=10, first=0):
    for name in names:
        for n in range(first, first + count):
            save(noise(20 + n, 24, 100 * ord(name[0]) + n), folder / name / f"{n}.png")


def extend(run, data, out, *options):
    done = lwmfw("extend", run, "--data", data, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def statistics(run):
    """Digest by read-out, as results.json has it, which is that of what the checkpoint holds."""
    last = json.loads((run / "results.json").read_text())["steps"][-1]
    said = {name: said["statistics"] for name, said in last["readouts"].items()}
    kept = framework.open_run(run).checkpoint().components
    assert said == {name: digest(state) for name, state in kept.items()}
    return said


def counts(run):
    return framework.open_run(run).checkpoint().components["ncm"]["counts"].tolist()
