"""Watch a kernel's output for NaN and infinity without waiting for the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastvideo_core.errors import BackendOutputError

if TYPE_CHECKING:
    import torch

    from fastvideo_core import AttentionCall, AttentionFunction

_Place = tuple[int, str, str, int]
"""Step, branch, role and layer of a call."""


class FiniteGuard:
    """Sums up each output on the device; the sums are looked at when they have arrived, a forward pass or more later.

    A sum is finite unless a summand is not, or it overflows float32, which the sum of half precision numbers does not.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._sums: list[tuple[_Place, torch.Tensor]] = []
        self._copies: list[tuple[list[_Place], torch.Tensor, Callable[[], bool]]] = []
        self._forward: tuple[int, str] | None = None

    def watch(self, attend: AttentionFunction) -> AttentionFunction:
        """The same function, watched."""
        import torch

        def watched(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            if (call.step, call.branch) != self._forward:
                self._next_forward(call)
            result = attend(query, key, value, call)
            place = (call.step, call.branch, call.role.value, call.layer)
            self._sums.append((place, result.sum(dtype=torch.float32)))
            return result

        return watched

    def finish(self) -> None:
        """Look at all that is left, waiting for the device. Raises BackendOutputError."""
        self._send()
        copies, self._copies, self._forward = self._copies, [], None
        if copies and copies[-1][1].is_pinned():
            import torch

            torch.cuda.synchronize()
        for places, sums, _ in copies:
            self._check(places, sums)

    def _next_forward(self, call: AttentionCall) -> None:
        if call.step == 0 and (self._forward is None or self._forward[0] != 0):
            self._sums, self._copies = [], []  # of a run that was broken off
        self._forward = (call.step, call.branch)
        self._send()
        while self._copies and self._copies[0][2]():
            places, sums, _ = self._copies.pop(0)
            self._check(places, sums)

    def _send(self) -> None:
        """Start to copy the sums of the forward pass that is over."""
        import torch

        if not self._sums:
            return
        places = [place for place, _ in self._sums]
        sums = torch.stack([value for _, value in self._sums])
        self._sums = []
        if sums.device.type != "cuda":
            self._copies.append((places, sums, lambda: True))
            return
        host = torch.empty(len(places), pin_memory=True)
        host.copy_(sums, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        event.record()
        self._copies.append((places, host, event.query))

    def _check(self, places: list[_Place], sums: torch.Tensor) -> None:
        wrong = [place for place, value in zip(places, sums.tolist(), strict=True) if value - value != 0]
        if wrong:
            step, branch, role, layer = wrong[0]
            where = f"layer {layer} of {role} attention, step {step}" + (f", branch {branch!r}" if branch else "")
            raise BackendOutputError(
                f"{self._backend} returned NaN or infinity first in {where} ({len(wrong)} of {len(places)} calls of "
                "that forward pass): the video would be black or noise. Try dtype bfloat16 instead of float16 or the "
                "other way round, or the backend FLASH_ATTN or TORCH_SDPA; FASTVIDEO_SAGE_GUARD=0 switches this check "
                "off"
            )
