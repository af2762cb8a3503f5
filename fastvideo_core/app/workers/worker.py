"""A worker: loads the model, joins the others, and does what it is told until it is told to end."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fastvideo_core.app.opening import Opening, open_studio
from fastvideo_core.app.workers.tasks import Done, Failed, RelayedObservers, Worker
from fastvideo_core.engine.parallel.started import time_limit

if TYPE_CHECKING:
    from fastvideo_core.contract.executor import Channel
    from fastvideo_core.engine.parallel.degrees import Parallel


@dataclass(frozen=True)
class WorkerMain:
    """What each worker runs.

    Attributes:
        opening: the model, and how it is loaded; its device is the kind of device, or the one that all share.
        processes: how many workers there are, which share the work as `parallel` says.
        address, port: where the store of torch.distributed is.
    """

    opening: Opening
    processes: int
    parallel: Parallel
    address: str
    port: int

    def __call__(self, rank: int, channel: Channel) -> None:
        try:
            worker = self._worker(rank, channel)
        except BaseException as error:
            channel.send(Failed.of(error, rank))
            return
        channel.send(Done((worker.studio.device, worker.studio.quantization)))
        with suppress(EOFError):
            while (task := channel.receive()) is not None:
                try:
                    answer: Any = Done(task.do(worker))
                except BaseException as error:
                    worker.studio.attachment.leave_processes(error)
                    answer = Failed.of(error, rank)
                channel.send(answer)
                del answer
        worker.studio.close()

    def _worker(self, rank: int, channel: Channel) -> Worker:
        import torch
        import torch.distributed as dist
        from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch leaves it out

        device = self.opening.device
        if device == "cuda":
            device = f"cuda:{rank}"
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        else:
            torch.set_num_threads(max(1, torch.get_num_threads() // self.processes))
        store = TCPStore(self.address, self.port, None, False, timeout=time_limit())
        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=self.processes, timeout=time_limit())
        studio = open_studio(self.opening, device, self.parallel)
        send = channel.send if rank == 0 else None
        studio.attachment.make_observers = partial(RelayedObservers, send)
        return Worker(rank, studio, channel.send)
