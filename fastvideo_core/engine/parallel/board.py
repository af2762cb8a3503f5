"""What each process is doing, and why it failed, for the others to read when one of them does not come."""

from __future__ import annotations

import time
from contextlib import suppress

import torch.distributed as dist

_GRACE = 2.0
"""Seconds in which a process that failed may still say why."""


class Board:
    """What each process is doing, in the store that torch.distributed has for all."""

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size
        store = getattr(dist.distributed_c10d, "_get_default_store", lambda: None)()
        self._store = None if store is None else dist.distributed_c10d.PrefixStore("fastvideo", store)

    def write(self, what: str) -> None:
        self._set("doing", f"{time.time():.0f} {what}")

    def fail(self, why: str) -> None:
        self._set("failed", why)

    def clear(self) -> None:
        if self._store is not None:
            with suppress(Exception):
                self._store.delete_key(f"failed/{self._rank}")

    def read(self) -> str:
        """What is known of the other processes; one that failed a moment ago may still be about to say so."""
        until = time.monotonic() + _GRACE
        while not self._failures() and time.monotonic() < until:
            time.sleep(0.1)
        return "; ".join(self._failures() or self._doings()) or "Nothing is known of them"

    def _failures(self) -> list[str]:
        return [f"process {rank} failed with {why}" for rank in self._others() if (why := self._get("failed", rank))]

    def _doings(self) -> list[str]:
        found = []
        for rank in self._others():
            since, _, what = self._get("doing", rank).partition(" ")
            if what:
                found.append(f"process {rank} was last heard of {time.time() - float(since):.0f} s ago, in {what}")
        return found

    def _others(self) -> list[int]:
        return [rank for rank in range(self._size) if rank != self._rank]

    def _set(self, kind: str, text: str) -> None:
        if self._store is not None:
            with suppress(Exception):  # its host may be gone
                self._store.set(f"{kind}/{self._rank}", text)

    def _get(self, kind: str, rank: int) -> str:
        key = f"{kind}/{rank}"
        with suppress(Exception):
            if self._store is not None and self._store.check([key]):
                return bytes(self._store.get(key)).decode()
        return ""
