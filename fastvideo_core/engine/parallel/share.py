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
        text = query.shape[1] - peers.sizes(self.places)[peers.index]
        before = route.state.layout.text_before if text and route.state.layout else 0
        # A query's head goes where its key's head goes, of which there may be fewer.
        grouped = query.shape[2] // key.shape[2]
        total = key.shape[2]
        start, stop = peers.bounds(total)
        ours = slice(start * grouped, stop * grouped)
        query, key, value = self._given_for_heads([query, key, value], (grouped, 1, 1), before, text)
        if mask is not None and mask.ndim == 4 and mask.shape[1] > 1:
            mask = mask[:, ours]
        if stop > start:
            result = route(query, key, value, mask, scale, layer, entry, ours)
        else:  # more processes than heads
            route.pass_by()
            result = query.new_empty((*query.shape[:-1], value.shape[-1]))
        return self._given_for_tokens(torch.unflatten(result, 2, (stop - start, grouped)), total, before, text)

    def _given_for_heads(
        self, tensors: list[torch.Tensor], groups: tuple[int, ...], before: int, text: int
    ) -> list[torch.Tensor]:
        """All tokens of some heads, from the own tokens of all heads; the text is whole already."""
        own = self.sequence.sizes(self.places)[self.sequence.index]
        cut = [torch.unflatten(one, 2, (-1, group)) for one, group in zip(tensors, groups, strict=True)]
        video = self.sequence.cut_otherwise([one.narrow(1, before, own) for one in cut], 1, 2, self.places)
        if not text:
            return [one.flatten(2, 3) for one in video]
        heads = [self.sequence.own(one, 2) for one in cut]
        return [
            torch.cat([one[:, :before], middle, one[:, before + own :]], dim=1).flatten(2, 3)
            for one, middle in zip(heads, video, strict=True)
        ]

    def _given_for_tokens(self, cut: torch.Tensor, heads: int, before: int, text: int) -> torch.Tensor:
        """The reverse, for that many heads in all; of the text everyone gets all of them."""
        behind = before + self.places
        (video,) = self.sequence.cut_otherwise([cut[:, before:behind]], 2, 1, heads)
        if not text:
            return video.flatten(2, 3)
        said = torch.cat([cut[:, :before], cut[:, behind:]], dim=1)
        said = self.sequence.gather(said, 2, heads)
        return torch.cat([said[:, :before], video, said[:, before:]], dim=1).flatten(2, 3)


def _is_batched(thing: Any, batch: int) -> bool:
    return isinstance(thing, torch.Tensor) and thing.ndim > 0 and thing.shape[0] == batch
