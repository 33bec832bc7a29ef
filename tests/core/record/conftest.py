"""A run that tests of what lies in its directory spoil."""

import shutil

import pytest

from lwmfw.testing import tiny_run


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run."""
    return tiny_run({}, tmp_path_factory.mktemp("done")).path


@pytest.fixture
def copy(done):
    """A copy of it, to be spoilt."""
    shutil.copytree(done, "run")
