"""The processes that make a video together: what they agree on, what the first one decides, and what each is doing.

Two kinds of groups: one of gloo on the CPU for what is small and said seldom, so that no decision waits for a GPU's
stream; and those of a run's degrees for tensors. After an error the groups are left, so that nobody waits for a process
that does not come; the next run makes new ones.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import torch
import torch.distributed as dist

from fastvideo_core.discovery.printable import explain
from fastvideo_core.engine.attention.clock import KernelClock
from fastvideo_core.engine.parallel.board import Board
from fastvideo_core.engine.parallel.degrees import Degrees
from fastvideo_core.engine.parallel.groups import Group, HeldGroups
from fastvideo_core.engine.parallel.peers import Peers, Traffic
from fastvideo_core.engine.parallel.started import ensure_started, time_limit
from fastvideo_core.errors import ParallelError, PeerError


class Processes:
    """This process among its fellows.

    Attributes:
        rank: its number of `size`.
        device: where it computes.
    """

    def __init__(self, device: torch.device) -> None:
        ensure_started(device)
        self.device = device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.traffic = Traffic()
        self._board = Board(self.rank, self.size)
        self._held = HeldGroups.of_process()
        self._staged: bool | None = None
        self._doing = ""

    def agree(self, what: str, value: Any) -> None:
        """Make sure that all have the same value.

        Raises:
            ParallelError: one has another; with both.
        """
        every = self.exchange(what, value)
        for rank, other in enumerate(every):
            if other != every[0]:
                raise ParallelError(f"{what} differ between processes: {_difference(every[0], other, rank)}")

    def exchange(self, what: str, value: Any) -> list[Any]:
        """Everyone's value, in the order of ranks."""
        found: list[Any] = [None] * self.size
        self._guarded(what, lambda: dist.all_gather_object(found, value, group=self._control_group().group))
        return found

    def from_first(self, what: str, value: Any, ranks: Team | None = None) -> Any:
        """The value that the first process has: of all, or of those that share a sequence."""
        group = self._control_group() if ranks is None else ranks.control
        if group is None:
            return value
        box = [value]
        first = 0 if ranks is None else ranks.first
        cpu = torch.device("cpu")
        self._guarded(what, lambda: dist.broadcast_object_list(box, src=first, group=group.group, device=cpu))
        return box[0]

    def team(self, degrees: Degrees, clock: KernelClock | None) -> Team:
        """The groups of a run."""
        self.traffic = Traffic(clock)
        key = (degrees.sequence, degrees.guidance, self._is_staged())
        if key not in self._held.of_degrees:
            self._held.of_degrees[key] = self._make_groups(degrees)
        groups, controls = self._held.of_degrees[key]
        n = degrees.sequence
        half, place = divmod(self.rank, n)
        staged = self._is_staged()
        sequence = Peers(groups.get("sequence"), place, n, self.traffic, staged, self.explained)
        guidance = Peers(groups.get("guidance"), half, degrees.guidance, self.traffic, staged, self.explained)
        everyone = Peers(groups.get("everyone"), self.rank, self.size, self.traffic, staged, self.explained)
        return Team(degrees, sequence, guidance, everyone, controls, half * n)

    def doing(self, what: str) -> None:
        """Say what this process is about to do, for the others to read should it never end."""
        self._doing = what
        self._board.write(what)

    def left(self, error: BaseException) -> None:
        """A run ended here with an error: tell why, and leave the groups, so that the others do not wait."""
        if not isinstance(error, PeerError):
            self._board.fail(f"{type(error).__name__}: {explain(error) if not str(error) else error}")
        self._held.leave()

    def start_run(self) -> None:
        """A run is about to start: what was said of the one before no longer holds."""
        self._doing = ""
        self._control_group()
        self._board.clear()
        self.exchange("the start of a run", None)

    def explained(self, error: Exception, what: str) -> Exception:
        """The error to raise of one that torch raised, in a collective operation."""
        seconds = time_limit().total_seconds()
        late = any(word in str(error).lower() for word in ("timed out", "timeout"))
        waited = f" within {seconds:g} s (FASTVIDEO_PARALLEL_TIMEOUT)" if late else ""
        where = f"{what} of {self._doing}" if self._doing else what
        found = PeerError(
            f"process {self.rank} of {self.size} did not get an answer from the others{waited}, in {where}. "
            f"{self._board.read()}. torch says: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        )
        found.timed_out = late
        return found

    def _guarded(self, what: str, action: Any) -> None:
        try:
            action()
        except (RuntimeError, ValueError) as error:
            raise self.explained(error, what) from error

    def _control_group(self) -> Group:
        if self._held.control is None:
            self._guarded("making a group", self._make_control)
        assert self._held.control is not None
        return self._held.control

    def _make_control(self) -> None:
        self._held.control = Group(dist.new_group(backend="gloo", timeout=time_limit()))

    def _make_groups(self, degrees: Degrees) -> tuple[dict[str, Group], Group | None]:
        n, ranks = degrees.sequence, range(self.size)
        backend = "gloo" if self._is_staged() else "nccl"
        found: dict[str, Group] = {}
        control: list[Group] = []
        layout = {
            "everyone": [list(ranks)] if self.size > 1 else [],
            "sequence": [list(ranks)[i : i + n] for i in range(0, self.size, n)] if n > 1 else [],
            "guidance": [list(ranks)[i::n] for i in range(n)] if degrees.guidance > 1 else [],
        }

        def make() -> None:
            for name, lists in layout.items():
                for members in lists:  # everyone makes all of them, in the same order
                    made = [dist.new_group(members, backend=backend, timeout=time_limit())]
                    if name == "sequence":
                        made.append(dist.new_group(members, backend="gloo", timeout=time_limit()))
                    if self.rank in members:
                        found[name] = Group(made[0])
                        control.extend(map(Group, made[1:]))

        self._guarded("making groups", make)
        return found, control[0] if control else None

    def _is_staged(self) -> bool:
        """Whether tensors go through the CPU: there is no GPU, or two processes share one, which NCCL refuses."""
        if self._staged is None:
            place = _gpu(self.device) if self.device.type == "cuda" else None
            places = self.exchange("where each process computes", place)
            self._staged = None in places or len(set(places)) < self.size or not dist.is_nccl_available()
        return self._staged


class Team:
    """The groups of a run.

    Attributes:
        sequence: those that share the tokens of a pass; `guidance` those that compute the other branch of the same
            tokens; `everyone` all.
        control: the group of `sequence` for what is small; `first` the rank of its first process.
    """

    def __init__(
        self, degrees: Degrees, sequence: Peers, guidance: Peers, everyone: Peers, control: Group | None, first: int
    ) -> None:
        self.degrees, self.sequence, self.guidance, self.everyone = degrees, sequence, guidance, everyone
        self.control, self.first = control, first


def _gpu(device: torch.device) -> tuple[str, str]:
    """Which GPU that is: a launcher may show each process another one as the first."""
    properties = torch.cuda.get_device_properties(device)
    return socket.gethostname(), str(getattr(properties, "uuid", device))


def environment_of_core() -> dict[str, str]:
    """The variables that must be the same in all processes."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith("FASTVIDEO_")}


def _difference(first: Any, other: Any, rank: int) -> str:
    """Where two values differ, in words."""
    if isinstance(first, dict) and isinstance(other, dict):
        for name in [*first, *other]:
            if first.get(name) != other.get(name):
                return f"{name} is {first.get(name)!r} in process 0 and {other.get(name)!r} in process {rank}"
    return f"{first!r} in process 0 and {other!r} in process {rank}"
