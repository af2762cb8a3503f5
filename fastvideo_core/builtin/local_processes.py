"""The executor "mp": worker processes on this machine, made anew rather than forked, which CUDA does not survive."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

from fastvideo_core.contract.executor import Executor, Work
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl

api_version = API_VERSION


class LocalProcesses(Executor):
    """A process for each rank, and a pipe to each."""

    name = "mp"

    def __init__(self) -> None:
        self._processes: list[Any] = []
        self._pipes: list[Any] = []

    def start(self, work: Work, processes: int) -> None:
        context = get_context("spawn")
        for rank in range(processes):
            here, there = context.Pipe()
            name = f"fastvideo-{rank}"
            process = context.Process(target=_main, args=(work, rank, there), name=name, daemon=True)
            process.start()
            there.close()
            self._processes.append(process)
            self._pipes.append(here)

    def send(self, rank: int, message: Any) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._pipes[rank].send(message)

    def receive(self, seconds: float) -> tuple[int, Any] | None:
        for pipe in wait([pipe for pipe in self._pipes if not pipe.closed], seconds):
            assert isinstance(pipe, Connection)
            rank = self._pipes.index(pipe)
            try:
                return rank, pipe.recv()
            except (EOFError, ConnectionResetError):
                pipe.close()
        return None

    def ended(self) -> Mapping[int, str]:
        return {
            rank: _how(process.exitcode) for rank, process in enumerate(self._processes) if process.exitcode is not None
        }

    def stop(self, seconds: float) -> None:
        for pipe in self._pipes:
            pipe.close()
        until = time.monotonic() + seconds
        for process in self._processes:
            process.join(max(0.0, until - time.monotonic()))
        for process in self._processes:
            process.kill()
            process.join()
            process.close()
        self._processes, self._pipes = [], []


class _Pipe:
    """A worker's end."""

    def __init__(self, connection: Any) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def receive(self) -> Any:
        return self._connection.recv()

    def send(self, message: Any) -> None:
        with self._lock:
            self._connection.send(message)


def _main(work: Work, rank: int, connection: Any) -> None:
    # Ctrl-C reaches every process of a terminal; it is the generator that ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError):
        work(rank, _Pipe(connection))
    gc.freeze()  # the process ends: nothing that torch and diffusers keep needs to be looked through once more


def _end_with_parent() -> None:
    """A worker that waits for others in a kernel would outlive a generator that was killed."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{memory}"


@hookimpl
def fastvideo_executors() -> list[type[Executor]]:
    """Processes on this machine."""
    return [LocalProcesses]
