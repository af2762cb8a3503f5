"""The thread that makes the videos, one after the other, on the one generator."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastvideo_core.errors import (
    AttachError,
    CancelledError,
    FastVideoError,
    InputError,
    OutputError,
    ParallelError,
)
from fv_serve.job import Job
from fv_serve.running import Running, followed
from fv_serve.service import Service

if TYPE_CHECKING:
    from fastvideo_core import RowResult, VideoGenerator

log = logging.getLogger("fv_serve")

_POLL = 1.0
_AFTER_ERROR = 1.0

Failure = tuple[str, str]


class Worker(threading.Thread):
    """Takes jobs until it is stopped; a job that runs then waits again, for the next start.

    Args:
        open_generator: makes the generator anew, where its processes have ended.
    """

    def __init__(
        self, service: Service, generator: VideoGenerator, open_generator: Callable[[], VideoGenerator]
    ) -> None:
        super().__init__(name="fv-serve worker", daemon=True)
        self._service, self._generator, self._open = service, generator, open_generator
        self._backend = service.served.attention_backend

    def run(self) -> None:
        service = self._service
        while not service.stopping.is_set():
            try:
                service.clear()
                job = service.store.claim()
                if job is None:
                    service.work_there.wait(_POLL)
                    service.work_there.clear()
                    continue
                self._do(job)
            except sqlite3.Error as error:
                log.error("the jobs cannot be read or written: %s; trying again", error)
                service.stopping.wait(_AFTER_ERROR)
        self._close()

    def _close(self) -> None:
        self._generator.close()

    def stop(self, seconds: float) -> None:
        """End the job that runs, let it wait again, and end."""
        service = self._service
        service.stopping.set()
        service.work_there.set()
        if (run := service.running) is not None:
            run.cancel()
        if self.is_alive():
            self.join(seconds)

    def _do(self, job: Job) -> None:
        service = self._service
        run = service.begin(job)
        log.info("%s: %s", job.id, job.asked.prompt[:200])
        try:
            failure = self._made(job, run)
        finally:
            service.end()
        if failure is None and service.stopping.is_set() and not service.path(job.id, ".mp4").is_file():
            service.store.put_back(job.id)
            return
        self._end(job, failure)

    def _end(self, job: Job, failure: Failure | None) -> None:
        """Note the end of a job, as soon as that can be written."""
        service = self._service
        while True:
            try:
                there = service.store.end(job.id, service.served.limits.keep_seconds, failure)
                break
            except sqlite3.Error as error:
                log.error("%s has ended, which cannot be written: %s; trying again", job.id, error)
                if service.stopping.wait(_AFTER_ERROR):
                    return  # the next start finds the video, or makes it again
        if not there:
            service.discard(job.id)
        service.metrics.ended("deleted" if not there else "failed" if failure else "completed")
        if failure:
            log.warning("%s failed: %s", job.id, failure[1])

    def _made(self, job: Job, run: Running) -> Failure | None:
        """Make the video: a code and a message if that failed, None if it is there or was cancelled."""
        try:
            with followed(run):
                result = self._result(job)
            if result.error is not None:
                raise result.error
            if result.video is not None:
                self._service.metrics.made(result.video.receipt)
        except CancelledError:
            self._reopen_if_ended()
            return None
        except (AttachError, ParallelError) as error:
            self._reopen_if_ended()
            return "generator_failed", str(error)
        except InputError as error:
            return "invalid_request", str(error).removeprefix(f"{job.id}: ")
        except OutputError as error:
            log.error("%s: %s", job.id, error)
            return "not_written", "the video could not be written: the server's disk is full, or its folder is gone"
        except FastVideoError as error:
            return type(error).__name__, str(error)
        except Exception as error:
            log.exception("%s", job.id)
            return "failed", f"{type(error).__name__}: {error}"
        return None

    def _result(self, job: Job) -> RowResult:
        from fastvideo_core import PromptRow

        service, asked = self._service, job.asked
        backend = asked.attention_backend or service.served.attention_backend
        if backend != self._backend:
            self._generator.use_attention(backend)
            self._backend = backend
        image = service.path(job.id, ".input.png")
        sampling: dict[str, Any] = {**asked.sampling, **({"image_path": image} if image.is_file() else {})}
        row = PromptRow(asked.prompt, job.id, sampling, asked.cache or service.served.cache, place=job.id)
        defaults = service.served.defaults.with_overrides(output_path=service.folder, return_frames=False, sheet=True)
        return next(self._generator.generate_videos([row], defaults))

    def _reopen_if_ended(self) -> None:
        """Several processes end with the video that is cancelled: start them again."""
        if not self._service.stopping.is_set() and not self._generator.is_open:
            self._generator.close()
            self._generator = self._open()
            self._backend = self._service.served.attention_backend
