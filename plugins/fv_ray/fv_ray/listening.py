"""Take the calls of actors, and of nobody else."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

_SECONDS = 10


class Callers:
    """A socket that actors call, each with a key that only they know, and its rank.

    Attributes:
        expected: how many there are.
    """

    def __init__(self, host: str, key: bytes, expected: int) -> None:
        self.socket = socket.create_server((host, 0), backlog=expected)
        self.address: tuple[str, int] = (host, self.socket.getsockname()[1])
        self.expected, self._key = expected, key

    def accept(self) -> tuple[int, Connection] | None:
        """The rank of the next caller, and the line to it; None if it has not the key, or does not speak."""
        accepted, _ = self.socket.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _SECONDS, 0))
        connection = Connection(accepted.detach())
        with suppress(AuthenticationError, EOFError, OSError):
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            rank = int(connection.recv())
            self._wait_for_ever(connection)
            return rank, connection
        connection.close()
        return None

    def close(self) -> None:
        """Take no more."""
        self.socket.close()

    def _wait_for_ever(self, connection: Connection) -> None:
        with socket.socket(fileno=connection.fileno()) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
            line.detach()
