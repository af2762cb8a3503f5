"""Decoding in tiles, by diffusers' own `enable_tiling`: always, never, or where the whole video would not fit.

Tiles overlap and are blended: the frames differ a little from those decoded whole. Whether these fit is estimated when
the latents are there: the autoencoder is run on meta tensors of their size, which takes no memory, and the bytes of all
tensors that are alive at a time are added up. What a kernel needs beside its tensors is not among them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from fastvideo_core.app.memory import free_memory
from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.errors import InputError

MARGIN = 1.2
"""By how much a decode may need more than was estimated: what kernels work in, and what cannot be split."""
_SHORT, _LONG = 17, 33
"""Latent frames that are run for an estimate: what more frames need beyond that grows in proportion."""
_LIVE_AT_ONCE = 6
_ONLY_IN_TILES = frozenset({"AutoencoderKLAllegro"})
"""Autoencoders that diffusers runs in tiles alone, whatever their size."""


def check_tiling(info: ModelInfo, wanted: bool | None) -> None:
    """Refuse tiling where diffusers has none for the model's autoencoder, and none where it has nothing else.

    Raises:
        InputError: with the autoencoder's class.
    """
    import diffusers

    kind = getattr(diffusers, info.components.get("vae", ""), None)
    if wanted and kind is not None and not hasattr(kind, "enable_tiling"):
        raise InputError(f"vae_tiling was asked for, but {kind.__name__}, of {info.name}, has none in diffusers")
    if wanted is False and kind is not None and kind.__name__ in _ONLY_IN_TILES:
        raise InputError(
            f"vae_tiling=False was asked for, but {kind.__name__}, of {info.name}, runs in tiles alone in diffusers"
        )


class Tiling:
    """How the autoencoder of a pipeline decodes.

    Args:
        anywhere: tells of something, by its name, whether it is so in any of the processes that decode together; None:
            this one decodes alone.

    Attributes:
        used: whether the latest decode was in tiles.
    """

    def __init__(self, wanted: bool | None, anywhere: Callable[[str, bool], bool] | None = None) -> None:
        self._wanted, self._anywhere = wanted, anywhere
        self._known: dict[tuple[int, ...], int | None] = {}
        self.used = False

    @contextmanager
    def applied(self, pipe: Any) -> Iterator[None]:
        """Decide, and tile, while the context lasts; then it is as it was."""
        vae = getattr(pipe, "vae", None)
        self.used = False
        if vae is None or not hasattr(vae, "enable_tiling"):
            yield
            return
        before, decode = bool(getattr(vae, "use_tiling", False)), vae.decode

        def decided(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._wanted is None and not before and self._is_too_large_anywhere(vae, latents, args, kwargs):
                vae.enable_tiling()
            self.used = bool(getattr(vae, "use_tiling", False))
            return decode(latents, *args, **kwargs)

        own = vars(vae).get("decode")
        if self._wanted:
            vae.enable_tiling()  # from here on, also for what is encoded
        elif self._wanted is False:
            vae.use_tiling = False
        vae.decode = decided
        try:
            yield
        finally:
            vae.use_tiling = before
            if own is None:
                del vae.decode
            else:
                vae.decode = own

    def _is_too_large_anywhere(
        self, vae: Any, latents: torch.Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> bool:
        here = self._too_large(vae, latents, args, kwargs)
        return here if self._anywhere is None else self._anywhere("whether the whole video can be decoded", here)

    def _too_large(self, vae: Any, latents: torch.Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        if type(vae).__name__ in _ONLY_IN_TILES:
            return True
        there = free_memory(str(latents.device))
        if there is None or _bound(vae, latents) <= there:
            return False
        shape = tuple(latents.shape)
        if shape not in self._known:
            self._known[shape] = None
            with suppress(Exception):  # an autoencoder that does not run on meta tensors is left as it is
                self._known[shape] = decode_bytes(vae, shape, args, kwargs)
        needed = self._known[shape]
        return needed is not None and needed * MARGIN > there


def decode_bytes(vae: Any, shape: Sequence[int], args: Sequence[Any] = (), kwargs: Mapping[str, Any] = {}) -> int:
    """The most bytes that a decode of latents, (batch, channels, frames, height, width), has alive at a time.

    Its weights are not among them. Beyond `_LONG` frames it is extrapolated.
    """
    dtype = next(vae.parameters()).dtype
    with torch.device("meta"):
        copy = type(vae).from_config(vae.config).eval()
    copy = copy if dtype == torch.float32 else copy.to(dtype)

    def peak(frames: int) -> int:
        size = (*shape[:2], frames, *shape[3:])
        given = tree_map(_meta, (tuple(args), dict(kwargs)))
        return _peak(lambda: copy.decode(torch.empty(size, dtype=dtype, device="meta"), *given[0], **given[1]))

    if shape[2] <= _LONG:
        return peak(shape[2])
    short, long = peak(_SHORT), peak(_LONG)
    return long + (shape[2] - _LONG) * max(0, long - short) // (_LONG - _SHORT)


def _meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, torch.Tensor) else value


def _bound(vae: Any, latents: torch.Tensor) -> int:
    """More bytes than any decode of these latents needs: as if its widest layers were at full size."""
    spatial, temporal = _compression(vae, "spatial", 32), _compression(vae, "temporal", 8)
    convolutions = [one.out_channels for one in vae.modules() if isinstance(one, torch.nn.Conv2d | torch.nn.Conv3d)]
    _, _, frames, height, width = latents.shape
    pixels = frames * temporal * height * width * spatial**2
    return pixels * max(convolutions, default=1024) * 4 * _LIVE_AT_ONCE


def _compression(vae: Any, axes: str, most: int) -> int:
    """How many pixels or frames become one of the latents: as it is configured, or has worked out; else the most."""
    known = vars(vae) | dict(vae.config)  # not as an attribute: diffusers warns where that is one of the configuration
    return int(known.get(f"{axes}_compression_ratio") or known.get(f"scale_factor_{axes}") or most)


def _peak(run: Callable[[], Any]) -> int:
    """The most bytes of tensors that were made in a call and alive at a time."""
    live = _Live()
    with torch.no_grad(), live:
        run()
    return live.peak


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Adds up the bytes of the storages that are alive, views once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.live = self.peak = 0
        self._owners: dict[int, tuple[int, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor)
        return output

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        owners, size = self._owners.get(storage._cdata, (0, storage.nbytes()))
        if not owners:
            self.live += size
            self.peak = max(self.peak, self.live)
        self._owners[storage._cdata] = (owners + 1, size)
        weakref.finalize(tensor, self._drop, storage._cdata)

    def _drop(self, key: int) -> None:
        owners, size = self._owners[key]
        if owners > 1:
            self._owners[key] = (owners - 1, size)
            return
        self.live -= size
        del self._owners[key]
