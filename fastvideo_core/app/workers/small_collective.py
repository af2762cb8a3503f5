"""Whether processes can talk to one another: each sends its number, and looks at what it gets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from fastvideo_core.builtin.local_processes import LocalProcesses
from fastvideo_core.discovery.printable import explain

if TYPE_CHECKING:
    from fastvideo_core.contract.executor import Channel

SECONDS = 60.0


@dataclass(frozen=True)
class SmallCollective:
    """What each process runs, on a GPU of its own where the device is "cuda"."""

    processes: int
    device: str
    port: int

    def __call__(self, rank: int, channel: Channel) -> None:
        try:
            channel.send(self._run(rank))
        except Exception as error:
            channel.send(f"process {rank}: {explain(error)}")

    def _run(self, rank: int) -> str:
        import torch
        import torch.distributed as dist
        from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch leaves it out

        device = torch.device(f"cuda:{rank}" if self.device == "cuda" else self.device)
        limit = timedelta(seconds=SECONDS)
        store = TCPStore("127.0.0.1", self.port, None, False, timeout=limit)
        backend = "nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(backend, store=store, rank=rank, world_size=self.processes, timeout=limit)
        given = torch.full((self.processes,), float(rank), device=device)
        got = torch.empty_like(given)
        dist.all_to_all_single(got, given)
        dist.destroy_process_group()
        expected = list(map(float, range(self.processes)))
        return "" if got.tolist() == expected else f"process {rank} got {got.tolist()} instead of {expected}"


def problem_of_processes(processes: int, device: str) -> str:
    """What is wrong when that many processes on the device talk to one another; "" for nothing."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch leaves it out

    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    executor, answers = LocalProcesses(), dict[int, str]()
    executor.start(SmallCollective(processes, device, store.port), processes)
    try:
        until = time.monotonic() + 2 * SECONDS
        while len(answers) < processes and time.monotonic() < until:
            ended = executor.ended()
            if (received := executor.receive(0.1)) is not None:
                answers[received[0]] = received[1]
            elif lost := sorted(set(ended) - set(answers)):
                return f"process {lost[0]} {ended[lost[0]]}"
    finally:
        executor.stop(5.0)
    if len(answers) < processes:
        return f"it did not end within {2 * SECONDS:g} s"
    return "; ".join(answer for answer in answers.values() if answer)
