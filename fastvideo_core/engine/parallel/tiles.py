"""Tiles of the autoencoder, decoded by all processes, with the autoencoder's own code.

Its tiled decoding runs twice. The first time each process computes its own tiles alone; of the others it only asks the
decoder for their shapes, on the meta device. Then all give one another what they have, and the second time the decoder
is a list of what it returned: what lies between the tiles is blended as in one process, equal in every bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from typing import Any

import torch

from fastvideo_core.engine.parallel.peers import Peers
from fastvideo_core.engine.watch import set_attribute


def share_tiles(vae: Any, everyone: Callable[[], Peers], undo: ExitStack) -> None:
    """Have the tiles of a video decoded by all processes, until `undo` is closed; where it decodes in tiles at all.

    Args:
        everyone: the processes, asked for when a video is decoded.
    """
    own = getattr(vae, "tiled_decode", None)
    if own is None or not isinstance(getattr(vae, "decoder", None), torch.nn.Module):
        return

    def tiled_decode(z: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        peers = everyone()
        z = peers.broadcast(z)
        calls = _Calls(vae.decoder, peers)
        _with_decoder(vae, calls.compute, lambda: own(z, *args, **kwargs))
        results = calls.given_to_all()
        return _with_decoder(vae, lambda *a, **k: next(results), lambda: own(z, *args, **kwargs))

    set_attribute(vae, "tiled_decode", tiled_decode, undo)


class _Calls:
    """The calls of a decoder in one tiled decoding."""

    def __init__(self, decoder: torch.nn.Module, peers: Peers) -> None:
        self._decoder, self._peers = decoder, peers
        self._shapes = deepcopy(decoder).to("meta")
        self._tile = -1
        self._made: list[tuple[int, Any]] = []

    def compute(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """In the place of the decoder: its result, or something of the same shape."""
        # A tile is decoded a few frames at a time, with a cache between them.
        if kwargs.get("first_chunk", "feat_cache" not in kwargs) and kwargs.get("conv_cache") is None:
            self._tile += 1
        owner = self._tile % self._peers.size
        if owner == self._peers.index:
            result = self._decoder(hidden, *args, **kwargs)
        else:
            on_meta = [one.to("meta") if isinstance(one, torch.Tensor) else one for one in args]
            result = _mapped(
                self._shapes(hidden.to("meta"), *on_meta, **kwargs),
                lambda tensor: torch.zeros(tensor.shape, dtype=tensor.dtype, device=hidden.device),
            )
        self._made.append((owner, _mapped(result, torch.clone)))  # some autoencoders blend within what they are given
        return result

    def given_to_all(self) -> Iterator[Any]:
        """What the decoder returned, call by call."""
        for owner, result in self._made:
            yield _mapped(result, lambda tensor, owner=owner: self._peers.broadcast(tensor, owner))


def _mapped(result: Any, function: Callable[..., torch.Tensor]) -> Any:
    """The decoder's result with another tensor; the cache that may be beside it is of no use to others."""
    return (function(result[0]), *result[1:]) if isinstance(result, tuple) else function(result)


class _InPlaceOf(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)


def _with_decoder(vae: Any, function: Callable[..., Any], decode: Callable[[], Any]) -> Any:
    """What is decoded with a function in the place of the decoder."""
    decoder = vae.decoder
    vae._modules["decoder"] = _InPlaceOf(function)
    try:
        return decode()
    finally:
        vae._modules["decoder"] = decoder
