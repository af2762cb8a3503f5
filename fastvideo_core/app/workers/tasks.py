"""What a generator asks of its workers, and what they answer."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fastvideo_core.app.cache_request import CacheRequest
from fastvideo_core.app.make import Video
from fastvideo_core.app.result import VideoResult
from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.app.studio import LocalStudio
from fastvideo_core.contract.observing import Generation
from fastvideo_core.discovery.printable import explain
from fastvideo_core.engine.observers import Observers
from fastvideo_core.errors import ParallelError


@dataclass
class Worker:
    """What a worker has."""

    rank: int
    studio: LocalStudio
    send: Callable[[Any], None]
    timing: ExitStack = field(default_factory=ExitStack)
    seconds: Callable[[], float] = lambda: 0.0

    def params(self, params: SamplingParam) -> SamplingParam:
        """Those of this worker: the first one writes the files and gives back the frames."""
        return params if self.rank == 0 else replace(params, save_video=False, sheet=False, return_frames=False)


class Task(Protocol):
    """Something to do for all workers at once."""

    def do(self, worker: Worker) -> Any: ...


@dataclass(frozen=True)
class Check:
    """Check all that can be before a step is run."""

    prompts: list[str]
    params: SamplingParam
    request: CacheRequest

    def do(self, worker: Worker) -> None:
        worker.studio.prepared(self.prompts, worker.params(self.params), self.request)


@dataclass(frozen=True)
class Make:
    """Make a video."""

    video: Video
    params: SamplingParam
    request: CacheRequest

    def do(self, worker: Worker) -> VideoResult | None:
        make = worker.studio.prepared([self.video.prompt], worker.params(self.params), self.request)
        result = make(self.video, False)
        return result if worker.rank == 0 else None


@dataclass(frozen=True)
class StartTimer:
    """Measure the kernels from now on."""

    def do(self, worker: Worker) -> None:
        worker.timing.close()
        worker.seconds = worker.timing.enter_context(worker.studio.timed())


@dataclass(frozen=True)
class ReadTimer:
    """The seconds so far."""

    def do(self, worker: Worker) -> float:
        return worker.seconds()


@dataclass(frozen=True)
class StopTimer:
    """Measure no longer."""

    def do(self, worker: Worker) -> None:
        worker.timing.close()


@dataclass(frozen=True)
class Done:
    """A task came to its end."""

    result: Any = None


@dataclass(frozen=True)
class Failed:
    """A task ended with an error."""

    error: BaseException

    @classmethod
    def of(cls, error: BaseException, rank: int) -> Failed:
        """The error, as it can be sent: with where it came from, and as another one if it cannot be pickled."""
        trace = "".join(traceback.format_exception(error))
        try:
            sent = pickle.loads(pickle.dumps(error))
        except Exception:
            sent = ParallelError(f"process {rank} failed with {type(error).__name__}: {explain(error)}")
        if type(sent) is not type(error):
            sent = ParallelError(f"process {rank} failed with {type(error).__name__}: {explain(error)}")
        sent.add_note(f"in process {rank}:\n{trace}")
        return cls(sent)


@dataclass(frozen=True)
class Progress:
    """The denoising loop has started, with that many steps, or has done some."""

    num_steps: int
    steps_done: int


class RelayedObservers(Observers):
    """Tells the generator's process, which tells the plugins; nobody, where `send` is None."""

    def __init__(self, send: Callable[[Any], None] | None, generation: Generation) -> None:
        self._send = send
        self._hooks, self._generation, self._under_way = {}, generation, False

    def _tell(self, hook: str, **arguments: Any) -> None:
        if self._send is not None and hook in ("fastvideo_generation_started", "fastvideo_step_done"):
            self._send(Progress(self._generation.num_steps, self._generation.steps_done))
