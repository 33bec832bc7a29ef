"""Texts of plug-in files that tests write to disk, and distributions of them."""

import sys

ANGLES = '''
"""Keep the angles between feature vectors as the old model had them."""
from torch.nn.functional import normalize
from lwmfw import Field, Options, Penalty, hookimpl

class AngleOptions(Options):
    weight: float = Field(1.0, ge=0, description="factor of the term")

class Angles:
    needs = {"old", "features"}

    def __init__(self, options: AngleOptions):
        self.weight = options.weight

    @hookimpl
    def compute_penalty(self, new, old):
        a, b = normalize(new.features), normalize(old.features)
        return {"angles": self.weight * (a @ a.T - b @ b.T).square().mean()}

@hookimpl
def register_components():
    yield Penalty("angles", Angles, AngleOptions)
'''

PENALTY = """
import torch
from lwmfw import Penalty, hookimpl

class Probe:
    needs = {needs}

    def __init__(self, options):
        pass

{method}

@hookimpl
def register_components():
    yield Penalty("probe", Probe)
"""


def penalty_file(folder, method, needs='{"old"}', name="probe.py"):
    """Write a plug-in file whose penalty `probe` has the given method."""
    indented = "\n".join(f"    {line}" if line else "" for line in method.strip("\n").splitlines())
    path = folder / name
    path.write_text(PENALTY.format(needs=needs, method=indented))
    return path


def distribution(folder, monkeypatch, name, module, text, version="1.2", group="lwmfw"):
    """Put an installed distribution with one entry point on the path, as pip would."""
    site = folder / f"site-{name}"
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nanything = {module}\n")
    (site / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, module, raising=False)
