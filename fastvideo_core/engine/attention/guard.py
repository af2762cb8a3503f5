"""Watch what a backend returns for NaN and infinity, without waiting for the device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

import torch

from fastvideo_core.contract.attention import AttentionBackend, AttentionCall
from fastvideo_core.errors import BackendOutputError

_Place = tuple[int, str, str, int]
"""Step, branch, role and layer of a call."""


@dataclass(frozen=True)
class _Copy:
    """What is on its way from the device for the calls of one forward pass, and the event that follows it."""

    places: list[_Place]
    largest: torch.Tensor
    landed: torch.cuda.Event | None

    def is_here(self) -> bool:
        return self.landed is None or bool(self.landed.query())  # type: ignore[no-untyped-call]  # torch leaves it untyped


class FiniteGuard:
    """Takes the largest magnitude of each output of a run on the device; it is looked at a forward pass or more later.

    That is finite where all numbers are. A sum would not do: those of bfloat16 may overflow where no summand does.

    Args:
        backend: its name, and `origin` what switches its guard.
        dtypes: names of those in which outputs are watched.
    """

    def __init__(self, backend: str, dtypes: Iterable[str], origin: str) -> None:
        self._backend, self._origin = backend, origin
        self._dtypes = frozenset(getattr(torch, name) for name in dtypes)
        self._largest: list[tuple[_Place, torch.Tensor]] = []
        self._copies: list[_Copy] = []

    def see(self, result: torch.Tensor, call: AttentionCall) -> None:
        """Note the output of a call."""
        if result.dtype in self._dtypes:
            place = (call.step, call.branch, call.role.value, call.layer)
            self._largest.append((place, torch.linalg.vector_norm(result, ord=torch.inf, dtype=torch.float32)))

    def next_pass(self) -> None:
        """A forward pass is over; look at what has come of those before.

        Raises:
            BackendOutputError: an output was not finite.
        """
        self._send()
        while self._copies and self._copies[0].is_here():
            self._check(self._copies.pop(0))

    def finish(self) -> None:
        """Look at all that is left, waiting for the device; raises as `next_pass`."""
        self._send()
        copies, self._copies = self._copies, []
        for copy in copies:
            if copy.landed is not None:
                copy.landed.synchronize()
            self._check(copy)

    def _send(self) -> None:
        """Start to copy what the forward pass that is over has left."""
        if not self._largest:
            return
        places = [place for place, _ in self._largest]
        largest = torch.stack([value for _, value in self._largest])
        self._largest = []
        if largest.device.type != "cuda":
            self._copies.append(_Copy(places, largest, None))
            return
        host = torch.empty(len(places), dtype=torch.float32, device="cpu", pin_memory=True)
        host.copy_(largest, non_blocking=True)
        self._copies.append(_Copy(places, host, torch.cuda.current_stream(largest.device).record_event()))

    def _check(self, copy: _Copy) -> None:
        wrong = [place for place, value in zip(copy.places, copy.largest.tolist(), strict=True) if not isfinite(value)]
        if wrong:
            step, branch, role, layer = wrong[0]
            where = f"layer {layer} of {role} attention, step {step}" + (f", branch {branch!r}" if branch else "")
            raise BackendOutputError(
                f"{self._backend} returned NaN or infinity first in {where} ({len(wrong)} of {len(copy.places)} calls "
                "of that forward pass): the video would be black or noise. Try dtype bfloat16 instead of float16 or "
                f"the other way round, or another backend, such as TORCH_SDPA; {self._origin}=0 switches this check off"
            )


def guard_of(backend: AttentionBackend) -> FiniteGuard | None:
    """What watches the output of a backend that may overflow, unless that is switched off."""
    if not backend.is_guarded:
        return None
    return FiniteGuard(backend.name, backend.overflows_in, backend.origin_of("guard"))
