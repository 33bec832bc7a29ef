"""What `import lwmfw` gives, and what it costs."""

import subprocess
import sys
from importlib import import_module

import pytest

import lwmfw


def test_dir_shows_what_is_public_and_all_of_it_is_there():
    assert dir(lwmfw) == sorted(lwmfw.__all__)
    assert {"run", "Outputs", "Step", "Penalty", "hookimpl", "__version__"} <= set(dir(lwmfw))
    starred = {}
    exec("from lwmfw import *", starred)  # noqa: S102 - what a notebook does
    assert starred.keys() - {"__builtins__"} == set(dir(lwmfw))


@pytest.mark.parametrize("name", [name for name in lwmfw.__all__ if name != "__version__"])
def test_a_public_name_is_that_of_its_home(name):
    home = lwmfw._homes()[name]
    assert getattr(lwmfw, name) is getattr(import_module(home), name)


def test_what_is_not_public_is_said_to_be_missing():
    with pytest.raises(AttributeError, match="module 'lwmfw' has no attribute 'Penalties'"):
        lwmfw.Penalties  # noqa: B018
    with pytest.raises(ImportError, match="Penalties"):
        from lwmfw import Penalties  # noqa: F401


def test_importing_it_and_asking_for_records_does_not_import_torch():
    ask = "import sys, lwmfw; dir(lwmfw); lwmfw.Penalty, lwmfw.Options, lwmfw.Phase; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", ask], check=False).returncode == 0
