"""Weights in files that others have written: read without pickle, and examined before anything is made of them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError  # what torch raises; nothing is unpickled here
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from lwmfw.errors import UserError, describe, shown

_PARAMETERS = ("weight", "bias", "running_mean", "running_var")
"""Last parts of names whose values are never counted or looked up by, but computed with."""

_WHOLE = (torch.int64, torch.int32, torch.bool)
"""Types of counters and of tables of places, which networks keep beside their weights."""

_SHARED = 2
"""How many names a value in a file may have, as tied layers share theirs."""

_WRITE = "write it with safetensors.torch.save_file(model.state_dict(), file)"


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file by name, examined.

    Raises:
        UserError: it cannot be read, is another sort of file, or holds what no trained network has: values that are
            not finite, quantised ones, variances below 0.
    """
    with _read_in_words(Path(file)):
        if not _is_safetensors(Path(file)):
            raise UserError(f"{file}: is no .safetensors file; {_WRITE}")
        tensors = safetensors.torch.load_file(file)
    examine(file, tensors)
    return tensors


def read_checkpoint(file: Path) -> Any:
    """What a file of torch.save holds, or a .safetensors file: of torch's, nothing but tensors and plain values.

    The one place where a file of torch's own format is read.

    Raises:
        UserError: it cannot be read, or is another sort of file.
    """
    with _read_in_words(file):
        if _is_safetensors(file):
            return safetensors.torch.load_file(file)
        _check_archive(file)
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_archive(file: Path) -> None:
    """Refuse an archive that becomes larger than it is when it is read, as none does that torch has written.

    Raises:
        UserError: it is one.
    """
    if not _beginning(file).startswith(b"PK"):
        return
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
    packed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
    if packed or sum(record.file_size for record in records) > file.stat().st_size:
        raise UserError(f"{file}: is compressed or holds more than its size, and no file of torch.save is; {_WRITE}")


def examine(file: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """See that tensors are what a trained network can have.

    Raises:
        UserError: one is not; names the file and the tensor.
    """
    if not tensors:
        raise UserError(f"{file}: holds no tensors; name the file of a trained network's weights")
    size = Path(file).stat().st_size
    if sum(value.numel() * value.element_size() for value in tensors.values()) > _SHARED * size:
        raise UserError(f"{file}: its tensors have more values than {size} bytes hold; {_WRITE}")
    for name, value in tensors.items():
        if fault := _fault(name.rpartition(".")[2], value):
            raise UserError(f"{file}: {shown(name)} {fault}")


def _fault(kind: str, value: Tensor) -> str:
    if value.device.type != "cpu" or value.layout != torch.strided or _is_of_another_sort(value):
        sort = "nested" if value.is_nested else value.layout
        return f"is {value.dtype}, {sort} on {value.device.type}; name a file of ordinary floating weights"
    quantised = f"is {value.dtype}, as quantised weights are; name a file of floating ones"
    if not value.is_floating_point():
        return "" if value.dtype in _WHOLE and kind not in _PARAMETERS else quantised
    try:
        single = value.float()  # types of 8 bits are compared as no other
    except RuntimeError:  # of those of 4 nothing is computed
        return quantised
    wrong = int((~single.isfinite()).sum())
    if wrong:
        what = f"has {wrong} of {value.numel()} values that are not finite in float32"
        return f"{what}; name weights of a training that went well"
    if kind == "running_var" and (single < 0).any():
        return f"has a variance of {single.min():.3g}, and none is below 0; name an undamaged file"
    return ""


def _is_of_another_sort(value: Tensor) -> bool:
    return value.is_quantized or value.is_complex() or value.is_nested


@contextmanager
def _read_in_words(file: Path) -> Iterator[None]:
    """Tell why a file cannot be read, by what it is instead."""
    if fault := _sort_of(file):
        raise UserError(f"{file}: {fault}")
    try:
        yield
    except UnpicklingError as error:
        raise UserError(
            f"{file}: holds more than tensors, which is not read; save model.state_dict() with torch.save, or better "
            "with safetensors.torch.save_file"
        ) from error
    except (UserError, MemoryError):
        raise
    except Exception as error:  # of any kind, as unpickling raises for what is no file of torch's
        raise UserError(
            f"{file}: cannot be read ({describe(error)}); if it is cut off, download or copy it anew, or else {_WRITE}"
        ) from error


def _sort_of(file: Path) -> str:
    """What is wrong with a file that holds no weights whatever follows its beginning; empty: it may."""
    if file.is_dir():
        return "is a folder; name the file in it"
    if file.exists() and not file.is_file():
        return "is no regular file; name a file of weights"
    start = _beginning(file)
    if not start:
        return "is empty; download or copy it anew"
    if b"\0" in start:  # no text
        return ""
    start = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS and not the file itself; run `git lfs pull` where it comes from"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, as a download gives that was refused; download the file itself"
    if start.startswith((b"{", b"[")):
        return "is a text of JSON, such as an index; name the file of weights beside it"
    return ""


def _is_safetensors(file: Path) -> bool:
    return _beginning(file)[8:9] == b"{"  # behind the length of what is said of the tensors, in JSON


def _beginning(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(64)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); name a file of weights") from error
