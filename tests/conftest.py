"""One thread for every test: the fast set runs in parallel processes, and results are those of one thread."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # what else runs beside a test fails none


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    """No test writes into the checkout, and none is affected by where it was started."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bare(monkeypatch):
    """The tiny recipe without the width of its backbone, which a table that is merged in cannot take away."""
    from lwmfw.testing import tiny

    monkeypatch.setitem(tiny.TINY, "backbone", {"use": "resnet20"})
