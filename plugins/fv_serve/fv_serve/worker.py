"""The thread that takes jobs from the queue and has their videos made, one after the other."""

from __future__ import annotations

import logging
import sqlite3
import threading

from fastvideo_core.errors import FastVideoError
from fv_serve.job import Job
from fv_serve.making import Failure, Makes
from fv_serve.running import Running
from fv_serve.service import Service

log = logging.getLogger("fv_serve")

_POLL = 1.0
_AFTER_ERROR = 1.0


class Worker(threading.Thread):
    """Takes jobs until it is stopped; a job that runs then waits again, for the next start.

    Several of them may serve one queue.

    Args:
        maker: closed in the end.
    """

    def __init__(self, service: Service, maker: Makes) -> None:
        super().__init__(name="fv-serve worker", daemon=True)
        self._service, self._maker = service, maker
        self._run: Running | None = None

    def run(self) -> None:
        service = self._service
        while not service.stopping.is_set():
            try:
                service.clear()
                if not self._maker.ready():
                    continue
                job = service.store.claim()
                if job is None:
                    service.work_there.wait(_POLL)
                    service.work_there.clear()
                    continue
                self._do(job)
            except sqlite3.Error as error:
                log.error("the jobs cannot be read or written: %s; trying again", error)
                service.stopping.wait(_AFTER_ERROR)
            except FastVideoError as error:
                log.error("no video can be made: %s; trying again", error)
                service.stopping.wait(_AFTER_ERROR)
        self._maker.close()

    def stop(self) -> None:
        """End the job that runs, let it wait again, and end; soon, which `join` waits for."""
        service = self._service
        service.stopping.set()
        service.work_there.set()
        if (run := self._run) is not None:
            run.cancel()

    def _do(self, job: Job) -> None:
        service = self._service
        self._run = run = service.begin(job)
        if service.stopping.is_set():
            run.cancel()  # `stop` may have looked before there was one
        try:
            made = self._maker.make(job, run)
        finally:
            self._run = None
            service.end(job.id)
        if made.receipt is not None:
            service.metrics.made(made.receipt)
        stopped = made.failure is None and service.stopping.is_set()
        if (made.again or stopped) and not service.path(job.id, ".mp4").is_file():
            if service.store.put_back(job.id):
                service.work_there.set()
            else:
                service.discard(job.id)
            return
        self._end(job, made.failure)

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
