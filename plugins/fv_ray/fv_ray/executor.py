"""The executor "ray": actors in one placement group, on whichever machine of the cluster has room.

Messages go by a socket between the generator and each actor: the frames of a video do not pass through Ray's object
store, and an actor that died is noticed at once.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, ClassVar

from fastvideo_core import Executor, Work
from fv_ray.actor import FastVideoWorker
from fv_ray.cluster import connect, machines, passed_on
from fv_ray.listening import Callers
from fv_ray.placement import Placement, reserve

_KEY_BYTES = 32


class RayActors(Executor):
    """An actor for each rank. It uses the Ray cluster that there is, or starts one for as long as it lives."""

    name = "ray"
    _open: ClassVar[int] = 0
    """How many there are of them; the last one leaves a cluster that the first one came to."""
    _ours: ClassVar[bool] = False
    _started: ClassVar[bool] = False

    def __init__(self) -> None:
        self._fixed = self._joined()
        RayActors._open += 1
        self._stopped = False
        from ray.util import get_node_ip_address

        self.address = get_node_ip_address()
        self._actors: list[Any] = []
        self._runs: list[Any] = []
        self._ends: dict[int, Connection] = {}
        self._callers: Callers | None = None
        self._placement: Placement | None = None

    @classmethod
    def _joined(cls) -> bool:
        """Be connected; whether to a cluster that no other machine can join."""
        connection = connect()
        if connection.ours:
            RayActors._ours, RayActors._started = True, connection.started
        return RayActors._started

    @classmethod
    def gpus(cls, here: int) -> int:
        """Those of the machine that has most."""
        cls._joined()
        return max((int(machine.get("GPU", 0)) for machine in machines()), default=0)

    def start(self, work: Work, processes: int) -> None:
        """Raises ParallelError: the cluster has too little for them."""
        try:
            self._start(work, processes)
        except BaseException:
            self.stop(0.0)
            raise

    def _start(self, work: Work, processes: int) -> None:
        import ray

        self._placement = reserve(processes, self.gpu_each, self._fixed)
        key = os.urandom(_KEY_BYTES)
        self._callers = Callers(self.address, key, processes)
        worker = ray.remote(FastVideoWorker)
        self._actors = [
            worker.options(**self._placement.options(rank), **passed_on()).remote(rank, processes)
            for rank in range(processes)
        ]
        gpus = ",".join(ray.get([actor.gpus.remote() for actor in self._actors])) if self.gpu_each else ""
        arguments = pickle.dumps(work), self._callers.address, key, gpus
        self._runs = [actor.run.remote(*arguments) for actor in self._actors]

    def send(self, rank: int, message: Any) -> None:
        with suppress(OSError, KeyError):
            self._ends[rank].send(message)

    def receive(self, seconds: float) -> tuple[int, Any] | None:
        callers = self._callers
        awaited = [callers.socket] if callers is not None and len(self._ends) < callers.expected else []
        for ready in wait([*awaited, *(end for end in self._ends.values() if not end.closed)], seconds):
            if not isinstance(ready, Connection):
                assert callers is not None
                if (called := callers.accept()) is not None:
                    self._ends[called[0]] = called[1]
                continue
            rank = next(rank for rank, end in self._ends.items() if end is ready)
            try:
                return rank, ready.recv()
            except (EOFError, OSError):
                ready.close()
        return None

    def ended(self) -> Mapping[int, str]:
        import ray

        if not self._runs:
            return {}
        done, _ = ray.wait(self._runs, num_returns=len(self._runs), timeout=0)
        return {self._runs.index(run): _how(run) for run in done}

    def stop(self, seconds: float) -> None:
        if self._stopped:
            return
        self._stopped = True
        for end in self._ends.values():
            end.close()
        if self._callers is not None:
            self._callers.close()
        import ray

        if ray.is_initialized():
            until = time.monotonic() + seconds
            while self._runs and len(self.ended()) < len(self._runs) and time.monotonic() < until:
                time.sleep(0.02)
            for actor in self._actors:
                ray.kill(actor)
            if self._placement is not None:
                self._placement.remove()
        self._actors, self._runs, self._ends = [], [], {}
        RayActors._open -= 1
        if RayActors._ours and not RayActors._open:
            RayActors._ours = RayActors._started = False
            ray.shutdown()


def _how(run: Any) -> str:
    import ray

    try:
        ray.get(run)
    except ray.exceptions.OutOfMemoryError:
        return "was ended by Ray, since the machine's memory ran out"
    except ray.exceptions.RayActorError:
        return "died; Ray's logs of the actor may tell why"
    except Exception as error:
        return f"ended with {type(error).__name__}: {error}"
    return "ended"
