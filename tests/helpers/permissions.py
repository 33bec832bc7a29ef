"""Files and folders that a person may not read or enter."""

import ctypes
import os
import sys
from contextlib import contextmanager

import pytest

_VERSION = 0x20080522
"""Of the form in which Linux has capabilities: for each half of them a word of those in effect, two of others."""
_OVERRIDE = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root reads whatever it likes."""


@contextmanager
def as_anybody():
    """Inside, permissions hold for this thread, also where it is root's."""
    if sys.platform != "linux" or os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    head, words = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(head, words):
        pytest.skip("capabilities cannot be asked for")
    before = words[0]
    words[0] &= ~_OVERRIDE
    if libc.capset(head, words):
        pytest.skip("root's override cannot be put down")
    try:
        yield
    finally:
        words[0] = before
        libc.capset(head, words)
