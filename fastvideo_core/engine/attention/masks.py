"""Reduce an attention mask to the simplest kind that means the same; reading it costs a device sync."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastvideo_core.contract.attention import MaskKind

HIDDEN = -9e3
"""Additive masks hide by minus infinity, the dtype's least number or, in diffusers, -10000 (-9984 in bfloat16)."""


@dataclass(frozen=True)
class ReducedMask:
    """A mask and what it comes down to; `mask` broadcasts to (batch, heads, queries, keys)."""

    kind: MaskKind
    mask: torch.Tensor
    key_lengths: tuple[int, ...] | None = None

    @property
    def common_length(self) -> int | None:
        """The number of keys that all batch entries see, if it is the same for all: the mask is then a slice."""
        return self.key_lengths[0] if self.key_lengths and len(set(self.key_lengths)) == 1 else None


def reduce_mask(mask: torch.Tensor, batch: int, keys: int) -> ReducedMask:
    """Find the kind of a mask as diffusers passes it.

    Args:
        mask: boolean (True is seen) or additive; (batch, keys), or anything that broadcasts to
            (batch, heads, queries, keys).
    """
    if mask.ndim == 2 and mask.shape == (batch, keys):
        mask = mask[:, None, None, :]
    while mask.ndim < 4:
        mask = mask[None]
    seen = _seen(mask)
    if seen is None:
        return ReducedMask(MaskKind.ARBITRARY, mask)
    if bool(seen.all()):
        return ReducedMask(MaskKind.NONE, mask)
    rows = seen[:, :1, :1, :]
    if seen.shape[-1] == keys and bool((seen == rows).all()):
        rows = rows[:, 0, 0, :].expand(batch, keys)
        lengths = rows.sum(dim=1)
        prefix = torch.arange(keys, device=rows.device) < lengths[:, None]
        if bool((rows == prefix).all()) and bool((lengths > 0).all()):
            return ReducedMask(MaskKind.KEY_LENGTH, mask, tuple(lengths.tolist()))
    return ReducedMask(MaskKind.ARBITRARY, mask)


def _seen(mask: torch.Tensor) -> torch.Tensor | None:
    """Which keys are seen at all, or None if the mask weighs them rather than hiding them."""
    if mask.dtype == torch.bool:
        return mask
    hidden = mask <= HIDDEN
    seen = mask == 0
    return seen if bool((hidden | seen).all()) else None
