"""Weights in files of others: what they hold is examined, and what they are instead of weights is said."""

import pytest
import torch
from safetensors.torch import save, save_file

from lwmfw import UserError, read_weights
from lwmfw.model.weights import read_checkpoint
from lwmfw.using.weights import unwrapped_weights

SOUND = {
    "conv.weight": torch.ones(2, 1, 3, 3),
    "bn.running_var": torch.zeros(2),
    "bn.num_batches_tracked": torch.tensor(7),
    "attn.relative_position_index": torch.arange(4),
    "mask": torch.tensor([True, False]),
    "half.bias": torch.ones(2, dtype=torch.bfloat16),
}
WEIGHT = torch.ones(2, 2)


@pytest.mark.parametrize("wrap", [save_file, torch.save], ids=["safetensors", "torch"])
def test_what_a_trained_network_has_is_read_in_every_type(wrap, tmp_path):
    wrap(SOUND, tmp_path / "any name")  # the format is known by the content
    found, _ = unwrapped_weights(tmp_path / "any name")
    assert found.keys() == SOUND.keys()
    assert all(found[name].float().equal(value.float()) for name, value in SOUND.items())
    if wrap is save_file:
        assert read_weights(tmp_path / "any name").keys() == SOUND.keys()


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("a.weight", WEIGHT * torch.nan, "has 4 of 4 values that are not finite in float32"),
        ("a.weight", torch.tensor([1.0, -torch.inf]), "has 1 of 2 values that are not finite in float32"),
        ("a.weight", WEIGHT.double() * 1e300, "has 4 of 4 values that are not finite in float32"),
        ("a.gate", (WEIGHT * torch.nan).to(torch.float8_e4m3fn), "has 4 of 4 values that are not finite in float32"),
        ("a.weight", WEIGHT.to(torch.int8), "is torch.int8, as quantised weights are"),
        ("a.gate", WEIGHT.to(torch.uint8), "is torch.uint8, as quantised weights are"),
        ("a.bias", WEIGHT.to(torch.int32), "is torch.int32, as quantised weights are"),
        ("running_mean", WEIGHT.to(torch.int64), "is torch.int64, as quantised weights are"),
        ("a.weight", WEIGHT.to(torch.complex64), "is torch.complex64"),
        ("a.running_var", torch.tensor([1.0, -0.5]), "has a variance of -0.5, and none is below 0"),
        ("a.running_var", (-WEIGHT).to(torch.float8_e4m3fn), "has a variance of -1, and"),
        ("a.weight", torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "is torch.float4_e2m1fn_x2, as q"),
    ],
)
def test_what_no_trained_network_has_is_refused_by_file_tensor_and_fault(name, value, fault, tmp_path):
    file = tmp_path / "w.safetensors"
    save_file(SOUND | {name: value}, file)
    for read in (read_weights, unwrapped_weights):
        with pytest.raises(UserError) as refused:
            read(file)
        assert str(refused.value).startswith(f"{file}: {name} {fault}")
        assert "; name " in str(refused.value)


@pytest.mark.parametrize("small", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu])
def test_variances_of_eight_bits_are_weighed_like_any(small, tmp_path):
    save_file({"a.running_var": WEIGHT.to(small)}, tmp_path / "w")
    assert unwrapped_weights(tmp_path / "w")[0]["a.running_var"].equal(WEIGHT)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_refused_in_words(layout, tmp_path):
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)
    torch.save({"a.weight": nested}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"a\.weight is torch\.float32, nested on cpu; name a file of ordinary"):
        unwrapped_weights(tmp_path / "w.pth")


WHOLE = save(SOUND)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty; download or copy it anew"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a pointer of Git LFS and not the file"),
        (b"\xef\xbb\xbf\r\n <!DOCTYPE html>\n<html>404", "is a web page, as a download gives that was refused"),
        (b"<html><body>", "is a web page"),
        (b'{"weight_map": {}}', "is a text of JSON, such as an index"),
        (WHOLE[:-1], "cannot be read (SafetensorError: "),
        (WHOLE[:40], "cannot be read (SafetensorError: "),
        (save({}), "holds no tensors"),
    ],
)
def test_what_is_no_file_of_weights_is_told_as_what_it_is(content, fault, tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    for read in (read_weights, unwrapped_weights):
        with pytest.raises(UserError) as refused:
            read(file)
        assert str(refused.value).startswith(f"{file}: {fault}")


def test_half_a_file_of_torch_is_told_in_a_line(tmp_path):
    torch.save(SOUND, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"w\.pth: cannot be read \(.*; if it is cut off, download or copy it anew"):
        read_checkpoint(tmp_path / "w.pth")
    with pytest.raises(UserError, match="is a folder; name the file in it"):
        read_weights(tmp_path)


def test_a_header_whose_length_begins_like_a_text_is_read(tmp_path):
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(ord("{"))
    (tmp_path / "w").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert (tmp_path / "w").read_bytes()[:1] == b"{"
    assert len(read_weights(tmp_path / "w")) == 1


def test_tensors_that_share_their_values_are_adopted_apart(tmp_path):
    shared = torch.arange(6.0)
    torch.save({"a.weight": shared[:4], "b.weight": shared}, tmp_path / "w.pth")
    found, _ = unwrapped_weights(tmp_path / "w.pth")
    save_file(found, tmp_path / "apart")
    assert found["a.weight"].equal(shared[:4])
