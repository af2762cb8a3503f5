"""Reduce an attention mask to the simplest kind that means the same; reading it costs a device sync."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import pad

from fastvideo_core.contract.attention import MaskKind, Role, TokenLayout
from fastvideo_core.errors import BackendMismatchError

_KEPT = 16
"""How many masks that are known by their identity alone are kept: a model may make one anew at each call."""

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


def is_of_text(mask: torch.Tensor, keys: int) -> bool:
    """Whether a mask is that of the text alone: (batch, text tokens), for more keys than that."""
    return mask.ndim == 2 and mask.shape[1] < keys


def over_keys(text: torch.Tensor, keys: int) -> torch.Tensor:
    """Which keys are seen, (batch, keys): all that come before the text, and of the text the real ones."""
    return pad(text.bool(), (keys - text.shape[1], 0), value=True)


def square_mask(text: torch.Tensor, tokens: int) -> torch.Tensor:
    """Likewise as HunyuanVideo-1.5's processor makes it, (batch, 1, tokens, tokens): padding sees nothing either."""
    seen = over_keys(text, tokens)
    return seen[:, None, None, :] & seen[:, None, :, None]


def _seen(mask: torch.Tensor) -> torch.Tensor | None:
    """Which keys are seen at all, or None if the mask weighs them rather than hiding them."""
    if mask.dtype == torch.bool:
        return mask
    hidden = mask <= HIDDEN
    seen = mask == 0
    return seen if bool((hidden | seen).all()) else None


class MaskReader:
    """The masks of one run: what each comes down to is read from the device the first time that it is seen."""

    def __init__(self) -> None:
        self.padding = 0
        """How many places of padding the order of the tokens brings that the model does not know of."""
        self._same: dict[object, ReducedMask] = {}
        self._own: OrderedDict[int, tuple[torch.Tensor, ReducedMask]] = OrderedDict()
        self._text: OrderedDict[int, tuple[torch.Tensor, tuple[int, ...]]] = OrderedDict()

    def text_lengths(self, text_mask: torch.Tensor) -> tuple[int, ...]:
        """How many text tokens of each batch entry are real; read once for each mask, (batch, tokens)."""
        known = self._text.get(id(text_mask))
        if known is None:
            known = (text_mask, tuple(text_mask.sum(dim=1, dtype=torch.int).tolist()))
            _keep(self._text, text_mask, known)
        return known[1]

    def read(
        self, mask: torch.Tensor, key: torch.Tensor, layout: TokenLayout | None, role: Role = Role.JOINT
    ) -> ReducedMask:
        """The mask of a call in its simplest form.

        A model that makes its mask anew at every pass, from the text mask, has the same one wherever the layout is the
        same; any other mask is known by its identity.

        Raises:
            BackendMismatchError: it cannot be brought into the token order that the backend asks for.
        """
        ordered = layout is not None and layout.ordered and role.among_video
        padding = self.padding if ordered else 0
        if layout is not None and layout.text_lengths is not None:
            same = (tuple(mask.shape), tuple(key.shape[:2]), layout, role)
            if same not in self._same:
                self._same[same] = _reduce(mask, key.shape[0], key.shape[1] - padding)
            reduced = self._same[same]
        else:
            known = self._own.get(id(mask))
            if known is None:
                known = (mask, _reduce(mask, key.shape[0], key.shape[1] - padding))
                _keep(self._own, mask, known)
            reduced = known[1]
        return _in_order(reduced, padding, role) if ordered else reduced


def _keep(
    known: OrderedDict[int, tuple[torch.Tensor, Any]], tensor: torch.Tensor, value: tuple[torch.Tensor, Any]
) -> None:
    """Keep a value with its tensor, so that the id stays that tensor's own; of too many the oldest goes."""
    known[id(tensor)] = value
    if len(known) > _KEPT:
        known.popitem(last=False)


def _reduce(mask: torch.Tensor, batch: int, keys: int) -> ReducedMask:
    """As `reduce_mask`; a mask of the text alone is stretched over the keys."""
    return reduce_mask(over_keys(mask, keys) if is_of_text(mask, keys) else mask, batch, keys)


def _in_order(mask: ReducedMask, padding: int, role: Role) -> ReducedMask:
    """The mask of a model whose video tokens are in an order, with padding, that the model does not know of.

    One that hides keys behind the video, as JOINT attention hides padded text, hides the same ones still. In SELF
    attention the first keys are others than the model's.
    """
    if mask.kind is MaskKind.NONE:
        return mask
    if role is Role.SELF:
        return replace(mask, kind=MaskKind.ARBITRARY, key_lengths=None)
    if not padding:
        return mask
    if mask.key_lengths is None:
        raise BackendMismatchError(
            f"the model passes an {mask.kind.value} mask of shape {tuple(mask.mask.shape)}, which cannot be brought "
            "into the token order that the attention backend asks for; choose another backend"
        )
    return replace(mask, key_lengths=tuple(length + padding for length in mask.key_lengths))
