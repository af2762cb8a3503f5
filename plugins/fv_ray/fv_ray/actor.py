"""One of the processes that make a video together, as Ray runs it."""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from multiprocessing.connection import Client, Connection
from typing import Any


class FastVideoWorker:
    """What Ray's dashboard shows, and its log lines begin with."""

    def __init__(self, rank: int, processes: int) -> None:
        self._rank, self._processes = rank, processes

    def __repr__(self) -> str:
        return f"FastVideoWorker({self._rank + 1} of {self._processes})"

    def gpus(self) -> str:
        """What Ray made visible of GPUs."""
        return os.environ.get("CUDA_VISIBLE_DEVICES", "")

    def run(self, pickled_work: bytes, address: tuple[str, int], key: bytes, gpus: str) -> None:
        """Call back, and do the work until it ends.

        Args:
            gpus: those of all processes, in the order of ranks; "" where they use none. Set before the work is
                unpickled, which may import what looks at it.
        """
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus
        work = pickle.loads(pickled_work)
        with Client(address, authkey=key) as connection, suppress(EOFError, OSError):
            connection.send(self._rank)
            work(self._rank, _Line(connection))


class _Line:
    """A worker's end: what the core's workers send and receive by."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def receive(self) -> Any:
        try:
            return self._connection.recv()
        except OSError as error:
            raise EOFError from error

    def send(self, message: Any) -> None:
        self._connection.send(message)
