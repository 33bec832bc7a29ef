"""Files of weights that mean harm: nothing in them is executed, and they take no more memory than their bytes allow."""

import builtins
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.command import lwmfw
from helpers.growth import Taken

from lwmfw import UserError, read_weights
from lwmfw.using.weights import unwrapped_weights


class Calls:
    """What calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def saved(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def tensors(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(first, last, *shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def rewritten(change, compression=zipfile.ZIP_STORED):
    """An archive as torch writes it, its records changed."""
    stream = io.BytesIO()
    source = zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(10)})))
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for record in source.infolist():
            archive.writestr(record.filename, change(record.filename, source.read(record)))
    return stream.getvalue()


def bomb(part):
    return rewritten(lambda name, content: bytes(2**24) if part in name else content, zipfile.ZIP_DEFLATED)


def claiming_size():
    """An archive whose directory says that a record of few bytes has 2 GiB."""
    raw = bytearray(rewritten(lambda name, content: content))
    struct.pack_into("<II", raw, raw.rfind(b"PK\1\2") + 20, 2**31, 2**31)
    return bytes(raw)


def tape():
    """The oldest format of torch, an archive whose members name places outside."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages", "../canary"):
            content = pickle.dumps(Calls(os.system, "touch canary"))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


CALLS = {
    "os.system": Calls(os.system, "touch canary"),
    "eval": Calls(builtins.eval, "open('canary', 'w')"),
    "exec": Calls(builtins.exec, "open('canary', 'w')"),
    "nested": {"state_dict": [Calls(dict, [("a", Calls(os.system, "touch canary"))])]},
    "partial": Calls(partial(os.system, "touch canary")),
    "a tensor beside it": {"a.weight": torch.ones(2), "b": Calls(os.mkdir, "canary")},
}
HOSTILE = {
    **{f"pickle, {name}": pickle.dumps(call) for name, call in CALLS.items()},
    **{f"pickle of protocol 0, {name}": pickle.dumps(call, 0) for name, call in CALLS.items()},
    **{f"torch, {name}": saved(call) for name, call in CALLS.items()},
    "a whole module": saved(torch.nn.Linear(2, 2)),
    "tape": tape(),
    "a bomb of data": bomb("data/0"),
    "a bomb of a pickle": bomb("data.pkl"),
    "a directory that claims more": claiming_size(),
    "a string that claims more": rewritten(lambda n, c: b"\x80\2X\xff\xff\xff\x7faaaa." if "data.pkl" in n else c),
    "one value as 2^33": saved({"a.weight": torch.zeros(1).expand(2**31, 4)}),
    "a thousand names of one tensor": saved(dict.fromkeys(map(str, range(1000)), torch.zeros(1000))),
    "no device": saved({"a.weight": torch.empty(2**40, device="meta")}),
    "half an archive": saved({"a": torch.zeros(1000)})[:3000],
    "a header that claims more": tensors(b'{"a":1}', length=2**62),
    "overlapping": tensors({"a": entry(0, 16, 4), "b": entry(8, 24, 4)}, bytes(24)),
    "beyond the end": tensors({"a": entry(0, 2**42, 2**40)}, bytes(24)),
    "a hole": tensors({"a": entry(8, 12, 1)}, bytes(12)),
    "too large to count": tensors({"a": entry(0, 0, 2**62, 4)}),
    "of negative size": tensors({"a": entry(0, 4, -1)}, bytes(4)),
    "brackets": tensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "names that are paths": tensors({"../../canary": entry(0, 4, 1), "/canary": entry(4, 8, 1)}, b"\xff" * 8),
    "names that are escapes": tensors({"\x1b[31m\u202e": entry(0, 4, 1)}, b"\xff" * 4),
}
LARGE = {
    "a header of 100 MB": lambda: tensors(b"{" + b" " * (100 * 2**20 - 2) + b"}"),
    "a name of 90 MB": lambda: tensors({"a" * (90 * 2**20): entry(0, 4, 1)}, b"\xff" * 4),
    "100,000 tensors": lambda: tensors({f"t{n}": entry(n, n + 1, 1, dtype="U8") for n in range(100_000)}, bytes(10**5)),
    "a bomb of 2 GiB": lambda: rewritten(
        lambda name, content: bytes(2**31) if "data/0" in name else content, zipfile.ZIP_DEFLATED
    ),
}


@pytest.mark.parametrize("read", [unwrapped_weights, read_weights])
@pytest.mark.parametrize("case", HOSTILE)
def test_it_is_refused_in_a_line_and_nothing_is_executed(case, read, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(HOSTILE[case])
    with Taken() as taken, pytest.raises(UserError) as refused:
        read(file)
    assert str(refused.value).startswith(f"{file}: ")
    assert str(refused.value).isprintable()
    assert taken.peak < 100
    assert taken.seconds < 2
    assert os.listdir(tmp_path) == ["weights.pth"]
    assert "canary" not in os.listdir(tmp_path.parent)


def test_the_canary_would_sing(tmp_path):
    pickle.loads(HOSTILE["pickle, os.system"])  # noqa: S301 - what must not happen elsewhere
    assert os.listdir(tmp_path) == ["canary"]


@pytest.mark.parametrize("read", [unwrapped_weights, read_weights])
def test_what_is_no_regular_file_is_not_waited_for(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match=": is no regular file; name a file of weights"):
            read(path)


def test_a_value_may_have_two_names(tmp_path):
    """As tied layers share theirs."""
    weight = torch.ones(100, 100)
    torch.save({"a.weight": weight, "b.weight": weight}, tmp_path / "weights.pth")
    assert len(unwrapped_weights(tmp_path / "weights.pth")[0]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("case", LARGE)
def test_a_large_one_takes_seconds_and_twice_its_size_at_most(case, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(LARGE[case]())
    size = file.stat().st_size / 2**20
    with Taken() as taken, pytest.raises(UserError):
        unwrapped_weights(file)
    print(f"\n{case}: {size:.0f} MiB, {taken.seconds:.2f} s, {taken.peak:.0f} MiB more")
    assert taken.peak <= 2 * size + 200
    assert taken.seconds <= 30, "5 s on a quiet machine"


@pytest.mark.parametrize("case", ["torch, os.system", "a bomb of data", "overlapping", "one value as 2^33"])
def test_adopt_and_a_backbone_s_weights_exit_with_2(case, tmp_path):
    (tmp_path / "hostile.pth").write_bytes(HOSTILE[case])
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    done = lwmfw("adopt", "--weights", "hostile.pth", "--model", "resnet18", "--classes", "names.txt", "--out", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hostile.pth: ")
    assert sorted(os.listdir(tmp_path)) == ["hostile.pth", "names.txt"]
