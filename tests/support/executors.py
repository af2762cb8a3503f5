"""An executor as another distribution would bring it: processes that call back over a socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any

from fastvideo_core import Executor, hookimpl

api_version = 2


class Sockets(Executor):
    """A connection for each rank; its processes are forked from one that has the libraries."""

    name = "sockets"

    def __init__(self) -> None:
        self._processes: list[Any] = []
        self._ends: dict[int, Any] = {}

    def start(self, work: Any, processes: int) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(["tests.support.together_preload"])
        with Listener(("127.0.0.1", 0)) as listener:
            for rank in range(processes):
                arguments = (work, rank, listener.address, dict(os.environ))
                process = context.Process(target=_main, args=arguments, name=f"sockets-{rank}", daemon=True)
                process.start()
                self._processes.append(process)
            for _ in range(processes):
                end = listener.accept()
                self._ends[end.recv()] = end

    def send(self, rank: int, message: Any) -> None:
        with suppress(OSError):
            self._ends[rank].send(message)

    def receive(self, seconds: float) -> tuple[int, Any] | None:
        for end in wait(list(self._ends.values()), seconds):
            rank = next(rank for rank, one in self._ends.items() if one is end)
            assert isinstance(end, Connection)
            try:
                return rank, end.recv()
            except (EOFError, OSError):
                del self._ends[rank]
        return None

    def ended(self) -> Mapping[int, str]:
        codes = {rank: process.exitcode for rank, process in enumerate(self._processes)}
        return {rank: f"ended with status {code}" for rank, code in codes.items() if code is not None}

    def stop(self, seconds: float) -> None:
        for end in self._ends.values():
            end.close()
        self._ends = {}
        for process in self._processes:
            process.join(seconds)
            process.kill()
            process.join()


class _Line:
    """A worker's end."""

    def __init__(self, connection: Any) -> None:
        self.receive, self.send = connection.recv, connection.send


def _main(work: Any, rank: int, address: Any, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with Client(address) as connection:
        connection.send(rank)
        work(rank, _Line(connection))


@hookimpl
def fastvideo_executors() -> list[type[Executor]]:
    """What this plugin brings."""
    return [Sockets]
