"""This process's share of a pass: its tokens in the block stack, and around each kernel its heads instead.

After Ulysses (Jacobs and others, 2023): all that works on each token alone is done for the own tokens; attention needs
all of them, so there tokens are given for heads, and heads for tokens again behind the kernel. Text that stands beside
the video is whole everywhere, and only its heads are cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fastvideo_core.errors import ParallelError

if TYPE_CHECKING:
    from fastvideo_core.engine.attention.route import Route
    from fastvideo_core.engine.parallel.peers import Peers


@dataclass(frozen=True)
class Share:
    """What of a pass is this process's.

    Attributes:
        sequence: those that share the tokens; alone where they are not cut.
        halves: those that share the batch; None where it is not cut.
        places: video tokens in all, with the padding of an order.
    """

    sequence: Peers
    halves: Peers | None
    places: int

    def check(self) -> None:
        """Raise ParallelError where there are fewer tokens than processes."""
        if self.places < self.sequence.size:
            raise ParallelError(
                f"the video has {self.places} tokens, which {self.sequence.size} processes cannot share; use fewer"
            )

    def own_tokens(self, whole: torch.Tensor, axis: int) -> torch.Tensor:
        """Its tokens of what has all of them."""
        return self.sequence.own(whole, axis).contiguous() if self.sequence.size > 1 else whole

    def own_entries(self, whole: Any, batch: int) -> Any:
        """Its entries of a tensor, or of those in a tuple, if it has one for each of the batch."""
        if self.halves is None:
            return whole
        if isinstance(whole, tuple | list):
            return type(whole)(self.own_entries(part, batch) for part in whole)
        return self.halves.own(whole, 0) if _is_batched(whole, batch) else whole

    def all_tokens(self, own: torch.Tensor, batch: int) -> torch.Tensor:
        """The video tokens of all processes, for the whole batch."""
        return self.all_entries(self.sequence.gather(own, 1, self.places), batch)

    def all_entries(self, own: torch.Tensor, batch: int) -> torch.Tensor:
        """What each has for its entries of the batch, for all."""
        return own if self.halves is None else self.halves.gather(own, 0, batch)

    def attend(
        self,
        route: Route,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float | None,
        layer: int,
        entry: int | None,
    ) -> torch.Tensor:
        """Attention of all tokens for some of the heads; what comes back is for all heads of the own tokens."""
        peers = self.sequence
        if peers.size == 1:
            return route(query, key, value, mask, scale, layer, entry)
        own = peers.sizes(self.places)[peers.index]
        text = query.shape[1] - own
        before = route.state.layout.text_before if text and route.state.layout else 0
        parts = (before, own, text - before)
        start, stop = peers.bounds(key.shape[2])
        grouped = query.shape[2] // key.shape[2]
        heads = (slice(start * grouped, stop * grouped), slice(start, stop), slice(start, stop))
        pieces = [tensor.split(parts, dim=1) for tensor in (query, key, value)]
        # Groups of query heads go where their key's head goes.
        groups = (grouped, 1, 1)
        packed = [piece[1].unflatten(2, (-1, group)) for piece, group in zip(pieces, groups, strict=True)]
        video = [one.flatten(2, 3) for one in peers.cut_otherwise(packed, 1, 2, self.places)]
        whole = [
            torch.cat([piece[0][:, :, ours], middle, piece[2][:, :, ours]], dim=1) if text else middle
            for piece, middle, ours in zip(pieces, video, heads, strict=True)
        ]
        if mask is not None and mask.ndim == 4 and mask.shape[1] > 1:
            mask = mask[:, heads[0]]
        if stop > start:
            result = route(*whole, mask, scale, layer, entry, heads[0])
        else:  # more processes than heads
            route.pass_by()
            result = whole[0].new_empty((*whole[0].shape[:-1], value.shape[-1]))
        behind = before + self.places
        shape = (stop - start, grouped)
        mine = result[:, before:behind].unflatten(2, shape)
        back = peers.cut_otherwise([mine], 2, 1, key.shape[2])[0].flatten(2, 3)
        if not text:
            return back
        said = torch.cat([result[:, :before], result[:, behind:]], dim=1)
        said = peers.gather(said.unflatten(2, shape), 2, key.shape[2]).flatten(2, 3)
        return torch.cat([said[:, :before], back, said[:, before:]], dim=1)


def _is_batched(thing: Any, batch: int) -> bool:
    return isinstance(thing, torch.Tensor) and thing.ndim > 0 and thing.shape[0] == batch
