"""Weights that a person brings: a safetensors file with the names that the library of the network gives them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lwmfw import UserError, read_weights


def load_weights(network: nn.Module, file: str, without: Sequence[str]) -> None:
    """Fill a network, and all of it, from a file.

    Args:
        network: its classifier cut off.
        file: a .safetensors file.
        without: paths of the classifier; the file may hold it, for any number of classes.

    Raises:
        UserError: the file cannot be read, or holds what are no weights, or those of another network.
    """
    try:
        given = read_weights(file)
    except UserError as error:
        raise UserError(f"backbone.weights: {error}") from error
    given = {name: value for name, value in given.items() if not name.startswith(tuple(f"{p}." for p in without))}
    own = network.state_dict()
    # a counter that no computation reads; older files lack it
    wrong = [f"lacks {name}" for name in own if name not in given and not name.endswith("num_batches_tracked")]
    wrong += [f"holds {name}, which is none of its names" for name in sorted(given) if name not in own]
    both = [(name, value, own[name]) for name, value in sorted(given.items()) if name in own]
    wrong += [f"{name} is {[*g.shape]} rather than {[*o.shape]}" for name, g, o in both if g.shape != o.shape]
    wrong += [
        f"{name} is {g.dtype} rather than {o.dtype}"
        for name, g, o in both
        if g.is_floating_point() != o.is_floating_point()
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(
            f"backbone.weights: {file}: does not fit the model: {', '.join(wrong[:3])}{more}; name this model's"
        )
    network.load_state_dict(given, strict=False)
