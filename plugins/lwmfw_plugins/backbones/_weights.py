"""Weights that a person brings: a safetensors file with the names that the library of the network gives them."""

from __future__ import annotations

from collections.abc import Sequence

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from lwmfw import UserError


def load_weights(network: nn.Module, file: str, without: Sequence[str]) -> None:
    """Fill a network, and all of it, from a file.

    Args:
        network: its classifier cut off.
        file: a .safetensors file.
        without: paths of the classifier; the file may hold it, for any number of classes.

    Raises:
        UserError: the file cannot be read, or holds the weights of another network.
    """
    try:
        given = load_file(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"backbone.weights: {file}: cannot be read ({error}); name a file as written by "
            "safetensors.torch.save_file(model.state_dict(), file)"
        ) from error
    given = {name: value for name, value in given.items() if not name.startswith(tuple(f"{p}." for p in without))}
    own = network.state_dict()
    # a counter that no computation reads; older files lack it
    wrong = [f"lacks {name}" for name in own if name not in given and not name.endswith("num_batches_tracked")]
    wrong += [f"holds {name}, which is none of its names" for name in sorted(given) if name not in own]
    wrong += [
        f"{name} is {list(value.shape)} rather than {list(own[name].shape)}"
        for name, value in sorted(given.items())
        if name in own and value.shape != own[name].shape
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(
            f"backbone.weights: {file}: does not fit the model: {', '.join(wrong[:3])}{more}; name this model's"
        )
    network.load_state_dict(given, strict=False)
