"""Attention backends of pure torch: sound ones, and ones with a fault each, for trying the suite on."""

from __future__ import annotations

from typing import Any

import torch

from fastvideo_core import (
    AttentionBackend,
    AttentionCall,
    AttentionFunction,
    Capabilities,
    MaskKind,
    Probe,
    Role,
    Run,
    TokenLayout,
    TokenOrder,
)


class Sound(AttentionBackend):
    """Softmax attention, a line at a time."""

    name = "SOUND"
    capabilities = Capabilities(
        roles=frozenset(Role),
        lossless=True,
        head_dims=frozenset({16, 40, 64}),
        dtypes=frozenset({"float32", "bfloat16"}),
        masks=frozenset(MaskKind),
        grouped_heads=True,
    )

    def probe(self) -> Probe:
        return Probe(True, kernel="tests.support.faulty", version="1")

    def load(self) -> AttentionFunction:
        return self.attend

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        groups = query.shape[2] // key.shape[2]
        q, k, v = (x.transpose(1, 2).float() for x in (query, key, value))
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if call.scale is None else call.scale)
        return (self.mask(scores, call).softmax(-1) @ v).transpose(1, 2).to(query.dtype)

    def mask(self, scores: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        if call.mask is not None:
            scores = scores.masked_fill(~call.mask, float("-inf"))
        for i, length in enumerate(call.key_lengths or ()):
            scores[i, :, :, length:] = float("-inf")
        return scores


class Plain(Sound):
    """Takes no masks and no grouped heads: what a kernel author begins with."""

    name = "PLAIN"
    capabilities = Capabilities(roles=frozenset({Role.SELF, Role.JOINT}), lossless=True)


class Faulty(Sound):
    """Declares little, so that a run of the suite is short."""

    capabilities = Capabilities(
        roles=frozenset({Role.SELF, Role.CROSS}),
        lossless=True,
        head_dims=frozenset({40, 64}),
        dtypes=frozenset({"bfloat16"}),
        masks=frozenset(MaskKind),
    )


class DropsMask(Faulty):
    def mask(self, scores: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        return scores


class IgnoresScale(Faulty):
    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        call.scale = None
        return super().attend(query, key, value, call)


class WritesInput(Faulty):
    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        if query.shape[1] == 1 or query._is_view() or query.stride(0) == 0:
            return super().attend(query, key, value, call)
        result = super().attend(query, key, value, call)
        query.mul_(query.shape[-1] ** -0.5)
        return result


class WritesAndRestores(Faulty):
    """Uses its input for something, and leaves it as it was: nobody may look at it meanwhile."""

    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        if query.shape[1] > 1 and not query._is_view() and query.stride(0):
            query.mul_(2).mul_(0.5)
        return super().attend(query, key, value, call)


class Transposes(Faulty):
    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        return super().attend(query, key, value, call).transpose(1, 2)


class LiesAboutHeadSizes(Faulty):
    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        if query.shape[-1] % 16:
            query, key = query[..., :-8], key[..., :-8]
        return super().attend(query, key, value, call)


class AssumesDense(Faulty):
    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        key = torch.as_strided(key, key.shape, torch.empty(key.shape, device="meta").stride())
        return super().attend(query, key, value, call)


class DropsTheLastTokens(Faulty):
    """As a kernel does that only knows whole tiles."""

    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        keep = max(1, key.shape[1] // 8 * 8)
        if call.mask is not None or call.key_lengths is not None:
            return super().attend(query, key, value, call)
        return super().attend(query, key[:, :keep], value[:, :keep], call)


class Waits(Faulty):
    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        if query.abs().max().item() > 1e6:
            raise ValueError("too large")
        return super().attend(query, key, value, call)


class Random(Faulty):
    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        result = super().attend(query, key, value, call)
        return result * (1 + 0.004 * torch.randn(result.shape)).to(result.dtype)


class ReturnsFloat32(Faulty):
    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        return super().attend(query, key, value, call).float()


class SilentlyLossy(Faulty):
    capabilities = Capabilities(roles=frozenset({Role.SELF}), lossless=False)


class NoReason(Faulty):
    def probe(self) -> Probe:
        return Probe(False)


class ProbeRaises(Faulty):
    def probe(self) -> Probe:
        raise ImportError("undefined symbol")


class Stateful(Faulty):
    """Keeps something between calls, each in a way that a single call does not show."""

    def __init__(self) -> None:
        self.kept: Any = None


class RemembersTheFirstShape(Stateful):
    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        self.kept = self.kept or key.shape[1]
        return super().attend(query, key[:, : self.kept], value[:, : self.kept], call)

    def load(self) -> AttentionFunction:
        self.kept = None
        return super().load()


class WearsOut(Stateful):
    """Each run is a little worse than the one before."""

    def load(self) -> AttentionFunction:
        self.kept = 0
        return super().load()

    def start_run(self, run: Run) -> None:
        self.kept = (self.kept or 0) + 1

    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        result = super().attend(query, key, value, call)
        factor: float = 1 + 0.004 * max(0, (self.kept or 0) - 1)
        return result * factor


class WearsOutLater(WearsOut):
    """As where a pool is full."""

    def start_run(self, run: Run) -> None:
        self.runs = getattr(self, "runs", 0) + 1
        self.kept = 9 if self.runs > 3 else 0

    def load(self) -> AttentionFunction:
        self.runs = 0
        return super().load()


class TiresWithinARun(Stateful):
    """Its second layer is worse than the first."""

    def load(self) -> AttentionFunction:
        self.kept = None
        return super().load()

    def start_run(self, run: Run) -> None:
        self.kept = 0

    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        result = super().attend(query, key, value, call)
        if self.kept is None:
            return result
        self.kept += 1
        return result * 1.1 if self.kept > 1 else result


class RoundsToBfloat16(Faulty):
    """Says that it loses nothing of float32."""

    capabilities = Capabilities(
        roles=frozenset({Role.SELF}), lossless=True, head_dims=frozenset({64}), dtypes=frozenset({"float32"})
    )

    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        return super().attend(query, key, value, call).bfloat16().float()


class CountsOn(Stateful):
    """Tells of all runs so far."""

    def start_run(self, run: Run) -> None:
        self.kept = (self.kept or 0) + 1

    def run_details(self) -> dict[str, Any]:
        return {"runs": self.kept}


class TellsTensors(Faulty):
    def run_details(self) -> dict[str, Any]:
        return {"density": (0.5, 0.7)}


class FailsAtTheEnd(Faulty):
    def end_run(self, error: BaseException | None) -> None:
        raise RuntimeError("nothing was measured")


class ChangesTheCall(Faulty):
    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        result = super().attend(query, key, value, call)
        call.layer = -1
        return result


class Backwards(Faulty):
    """Asks for its tokens backwards, and does what all attention does."""

    def token_order(self, layout: TokenLayout, device: torch.device) -> TokenOrder | None:
        time, height, width = layout.grid
        places = torch.arange(time * height * width - 1, -1, -1, device=device)
        return TokenOrder(places, places)


class ForgetsAPlace(Backwards):
    def token_order(self, layout: TokenLayout, device: torch.device) -> TokenOrder | None:
        order = super().token_order(layout, device)
        assert order is not None
        return TokenOrder(order.gather.clamp(min=1), order.scatter)


class PadsInFront(Faulty):
    """Asks for a place of padding before its first token, and leaves that out of the keys: nothing is wrong with it."""

    def token_order(self, layout: TokenLayout, device: torch.device) -> TokenOrder | None:
        time, height, width = layout.grid
        places = torch.arange(time * height * width, device=device)
        return TokenOrder(torch.cat([places[:1], places]), places + 1)

    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        if call.role is Role.SELF and call.layout is not None and call.layout.ordered:
            key, value = key[:, 1:], value[:, 1:]
        return super().attend(query, key, value, call)


class SeesItsPadding(Backwards):
    def token_order(self, layout: TokenLayout, device: torch.device) -> TokenOrder | None:
        order = super().token_order(layout, device)
        assert order is not None
        return TokenOrder(torch.cat([order.gather, order.gather[:64]]), order.scatter)


class CountsIn16Bits(Faulty):
    """Sees no key behind the 32,768th."""

    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        return super().attend(query, key[:, :32768], value[:, :32768], call)


class TopKeys(Faulty):
    """Attends to the keys of the greatest norm: content decides, so that `visible` must see it."""

    capabilities = Capabilities(
        roles=frozenset({Role.SELF}),
        lossless=False,
        tolerance=0.02,
        head_dims=frozenset({64}),
        dtypes=frozenset({"float32"}),
    )

    def mask(self, scores: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        return scores if self.seen is None else scores.masked_fill(~self.seen, float("-inf"))

    def attend(self, query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
        self.seen: Any = top_keys(key)
        return super().attend(query, key, value, call)


def top_keys(key: torch.Tensor) -> torch.Tensor:
    """Half of the keys, by their norm: (batch, heads, 1, keys)."""
    norms = key.norm(dim=-1).transpose(1, 2)[:, :, None]
    chosen: torch.Tensor = norms >= norms.median(dim=-1, keepdim=True).values
    return chosen
