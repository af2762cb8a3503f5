"""The contract of an executor: it starts the processes of a generator, here or elsewhere, and carries messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeAlias


class Channel(Protocol):
    """A worker's end of the line to the generator."""

    def receive(self) -> Any:
        """The next message; raises EOFError when the generator is gone."""

    def send(self, message: Any) -> None:
        """Send a message to the generator."""


Work: TypeAlias = "Callable[[int, Channel], None]"
"""What a worker runs, given its rank; it can be pickled, and returns when it is told to end."""


class Executor(ABC):
    """Starts workers, one for each GPU, and ends them, whatever they are doing. One object serves one generator."""

    name: ClassVar[str]
    """Lower case, as `distributed_executor_backend=` takes it."""

    address: str = "127.0.0.1"
    """Where workers reach the process that starts them; known before they are started."""

    gpu_each: bool = False
    """Whether each worker needs a GPU of its own; set before they are started. Rank r computes on `cuda:r`, so each
    worker must see the GPUs of all."""

    @classmethod
    def gpus(cls, here: int) -> int:
        """How many workers with a GPU each it can start together; `here` is how many torch sees in this process."""
        return here

    @abstractmethod
    def start(self, work: Work, processes: int) -> None:
        """Start that many workers, of ranks 0, 1, …."""

    @abstractmethod
    def send(self, rank: int, message: Any) -> None:
        """Send a message to a worker; to one that has ended, nothing."""

    @abstractmethod
    def receive(self, seconds: float) -> tuple[int, Any] | None:
        """The rank of a worker and its message; None if none comes within that time."""

    @abstractmethod
    def ended(self) -> Mapping[int, str]:
        """The workers that have ended, by rank, and how, such as "was killed by SIGKILL"."""

    @abstractmethod
    def stop(self, seconds: float) -> None:
        """End all workers; those that have not ended by themselves after that time by force. May be called twice."""
