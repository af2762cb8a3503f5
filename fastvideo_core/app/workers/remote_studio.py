"""The generator's side of its workers: ask all, take the answers, and end everything when one is lost."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch leaves it out

from fastvideo_core.app.cache_request import CacheRequest
from fastvideo_core.app.make import Video
from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.app.opening import Opening
from fastvideo_core.app.result import VideoResult
from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.app.workers.tasks import (
    Check,
    Failed,
    Make,
    Progress,
    ReadTimer,
    StartTimer,
    StopTimer,
    Task,
)
from fastvideo_core.app.workers.worker import WorkerMain
from fastvideo_core.contract.attention import AttentionBackend
from fastvideo_core.contract.executor import Executor
from fastvideo_core.contract.observing import Generation
from fastvideo_core.contract.settings import Config
from fastvideo_core.discovery.plugins import Plugins
from fastvideo_core.engine.observers import Observers
from fastvideo_core.engine.parallel.degrees import Parallel
from fastvideo_core.errors import CancelledError, InputError, ParallelError, PeerError

_POLL = 0.1
_GRACE = 10.0
"""Seconds that the other workers have to end a task that one of them failed in."""
_LATE_GRACE = 1.0
"""Likewise where it failed because it had waited for them until its time was up."""
_GOODBYE = 5.0


class RemoteStudio:
    """Workers that make each video together."""

    pipe = None

    def __init__(
        self,
        executor: Executor,
        opening: Opening,
        processes: int,
        parallel: Parallel,
        info: ModelInfo,
        plugins: Plugins,
    ) -> None:
        self._executor, self._processes, self._info, self._plugins = executor, processes, info, plugins
        self._ended = ""
        self.device, self.quantization = "", dict[str, str]()
        try:
            pickle.dumps(opening)
        except Exception as error:
            raise InputError(
                f"an argument of from_pretrained cannot be sent to other processes ({error}); give the attention "
                "backend by its name, or define its class in a module"
            ) from error
        self._store: Any = TCPStore(executor.address, 0, None, True, wait_for_workers=False)
        work = WorkerMain(opening, processes, parallel, executor.address, self._store.port)
        executor.gpu_each = opening.device == "cuda"
        with self._ending_on_interrupt():
            executor.start(work, processes)
            self.device, self.quantization = self._answers(starting=True)[0]

    @property
    def is_open(self) -> bool:
        return not self._ended

    def prepared(
        self, prompts: Sequence[str], params: SamplingParam, request: CacheRequest
    ) -> Callable[[Video, bool], VideoResult]:
        """As `Studio.prepared`."""
        self._ask(Check(list(prompts), params, request))

        def make(video: Video, show_progress: bool) -> VideoResult:
            info = self._info
            generation = Generation(info.pipeline, model=info.name, prompt=video.prompt, show_progress=show_progress)
            observers = Observers(self._plugins, generation)
            try:
                result: VideoResult = self._ask(Make(video, params, request), observers)
            except BaseException as error:
                observers.failed(error)
                raise
            generation.video_path = result.video_path
            observers.finished(result.receipt)
            return result

        return make

    @contextmanager
    def timed(self) -> Iterator[Callable[[], float]]:
        """As `Studio.timed`; of the first worker."""
        self._ask(StartTimer())
        try:
            yield lambda: float(self._ask(ReadTimer()))
        finally:
            if self.is_open:
                self._ask(StopTimer())

    def use_attention(self, attention_backend: str | AttentionBackend | None, attention_config: Config) -> None:
        """As `Studio.use_attention`, which workers cannot.

        Raises:
            InputError: always.
        """
        raise InputError(
            "the attention backend of a VideoGenerator of several processes stays as it is; make a new one with the "
            "other backend"
        )

    def close(self) -> None:
        """End the workers."""
        self._end("it is closed", _GOODBYE)

    def _ask(self, task: Task, observers: Observers | None = None) -> Any:
        """What the first worker answers.

        Raises:
            Whatever the task raised in one of them. ParallelError: one of them has ended.
        """
        if self._ended:
            raise ParallelError(f"the processes of this VideoGenerator have ended: {self._ended}; make a new one")
        try:
            pickle.dumps(task)
        except Exception as error:
            raise InputError(
                f"an argument cannot be sent to other processes ({error}); give the caching policy by its name, or "
                "define its class in a module"
            ) from error
        with self._ending_on_interrupt():
            for rank in range(self._processes):
                self._executor.send(rank, task)
            return self._answers(observers)[0]

    def _answers(self, observers: Observers | None = None, starting: bool = False) -> list[Any]:
        """Everyone's answers, in the order of ranks; raises as `_ask`."""
        answers: dict[int, Any] = {}
        until: float | None = None
        while len(answers) < self._processes and (until is None or time.monotonic() < until):
            ended = self._executor.ended()
            received = self._executor.receive(_POLL)
            if received is not None:
                rank, message = received
                if isinstance(message, Progress):
                    _tell(observers, message)
                    continue
                answers[rank] = message
                if isinstance(message, Failed):
                    late = isinstance(message.error, PeerError) and message.error.timed_out
                    until = until or time.monotonic() + (_LATE_GRACE if late else _GRACE)
            elif lost := {rank: how for rank, how in ended.items() if rank not in answers}:
                self._lose(lost, answers, starting)
        failed = {rank: one.error for rank, one in answers.items() if isinstance(one, Failed)}
        if not failed:
            return [answers[rank].result for rank in range(self._processes)]
        error = _first_cause(failed)
        missing = [rank for rank in range(self._processes) if rank not in answers]
        if missing:
            error.add_note(f"then, processes {missing} did not come to an end, and were ended")
        if starting or missing:
            self._end(f"process {min(failed)} failed with {type(error).__name__}", 0.0 if missing else _GOODBYE)
        raise error

    def _lose(self, lost: dict[int, str], answers: dict[int, Any], starting: bool) -> None:
        """A worker has ended without an answer: end all others, and say so."""
        what = " and ".join(f"process {rank} of {self._processes} {how}" for rank, how in sorted(lost.items()))
        self._end(what, 0.0)
        hint = (
            '; a script that starts processes must do so under `if __name__ == "__main__":`, since each of them '
            "imports it"
            if starting
            else "; the others were ended, and a new VideoGenerator can be made"
        )
        causes = {rank: one.error for rank, one in answers.items() if isinstance(one, Failed)}
        error = ParallelError(what + hint)
        if causes and not isinstance(_first_cause(causes), PeerError):
            raise _first_cause(causes) from error
        raise error

    @contextmanager
    def _ending_on_interrupt(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self._end("it was interrupted", 0.0)
            raise
        except CancelledError:
            self._end("their video was cancelled", 0.0)
            raise

    def _end(self, why: str, seconds: float) -> None:
        self._ended = self._ended or why
        self._executor.stop(seconds)
        self._store = None


def _tell(observers: Observers | None, progress: Progress) -> None:
    if observers is None:
        return
    if progress.steps_done == 0:
        observers.started(progress.num_steps)
    else:
        observers.step_done(progress.steps_done)


def _first_cause(failed: dict[int, BaseException]) -> BaseException:
    """The error that the others came of."""
    own = {rank: error for rank, error in failed.items() if not isinstance(error, PeerError)}
    return (own or failed)[min(own or failed)]
