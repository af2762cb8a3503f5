"""The service itself, without HTTP: jobs are accepted, looked at, deleted; and cleared away when they are old."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastvideo_core import written_whole
from fastvideo_core.errors import OutputError
from fv_serve.asking import Fields, checked
from fv_serve.images import as_png, thumbnail
from fv_serve.job import Job, Status, is_id, new_id
from fv_serve.metrics import Metrics
from fv_serve.problems import ApiError, not_found, unreadable
from fv_serve.running import Running
from fv_serve.served import SAMPLING, Served
from fv_serve.store import Store

SUFFIXES = (".mp4", ".json", ".png", ".input.png")
_CLEARED_EVERY = 30.0


class Service:
    """Jobs, their files, and those that run.

    Args:
        folder: where the files of jobs lie, each named by its job's id.
    """

    def __init__(self, served: Served, store: Store, folder: Path) -> None:
        self.served, self.store, self.folder = served, store, folder
        self.work_there, self.stopping = threading.Event(), threading.Event()
        self.metrics = Metrics(lambda: len(store.unfinished()) - len(self.running), lambda: len(self.running))
        self.running: dict[str, Running] = {}
        self._running_lock = threading.Lock()
        self._cleared = 0.0

    def create(self, fields: Fields) -> Job:
        """Accept a job.

        Raises:
            ApiError: a field is wrong, the queue or the disk is full.
        """
        if self.stopping.is_set():
            raise ApiError(503, "the server is stopping; try again later", None, "stopping")
        asked, limits = checked(fields, self.served), self.served.limits
        image = None if fields.image is None else as_png(fields.image, limits.image_pixels)
        job = Job(new_id(), asked)
        try:
            if image is not None:
                with written_whole(self.path(job.id, ".input.png")) as file:
                    file.write_bytes(image)
            job = self.store.add(job, limits.queue)
        except BaseException as error:
            self._unlink(job.id)
            if isinstance(error, OutputError):
                raise ApiError(507, "the server's disk is full, or cannot be written to", None, "disk_full") from error
            raise
        self.work_there.set()
        return job

    def get(self, video_id: str) -> Job:
        """The job of that id; raises ApiError, status 404."""
        job = self.store.get(video_id) if is_id(video_id) else None
        if job is None:
            raise not_found(video_id)
        return job

    def delete(self, video_id: str) -> None:
        """Forget a job, and end it if it runs; raises ApiError, status 404."""
        job = self.get(video_id)
        if job.status is not Status.IN_PROGRESS:
            self._unlink(video_id)
        removed = self.store.remove(video_id)
        with self._running_lock:
            if (run := self.running.get(video_id)) is not None:
                run.cancel()
            elif job.status is Status.IN_PROGRESS:
                self._unlink(video_id)  # it has ended since it was looked at
        if not removed:
            raise not_found(video_id)

    def file(self, video_id: str, suffix: str) -> Path:
        """A file of a video that is there; raises ApiError, status 404."""
        job, path = self.get(video_id), self.path(video_id, suffix)
        if job.status is not Status.COMPLETED:
            message = f"the video {video_id!r} is {job.status}; ask again when its status is completed"
            raise ApiError(404, message, "video_id", "not_ready")
        if not path.is_file():
            raise ApiError(404, f"the file of {video_id!r} is gone from the server's disk", "video_id", "gone")
        return path

    def receipt(self, video_id: str) -> dict[str, Any]:
        """The receipt of a video, without where things lie on this machine; raises ApiError, status 404."""
        with unreadable(video_id):
            content: dict[str, Any] = json.loads(self.file(video_id, ".json").read_bytes())
        image = "input_reference" if content.get("input_image") else None
        return {**content, "model": self.served.model, "input_image": image}

    def thumbnail(self, video_id: str) -> bytes:
        """The first frame of a video, as WebP; raises ApiError, status 404."""
        path = self.file(video_id, ".mp4")
        with unreadable(video_id):
            return thumbnail(path)

    def path(self, video_id: str, suffix: str) -> Path:
        return self.folder / f"{video_id}{suffix}"

    def describe(self, job: Job) -> dict[str, Any]:
        """As clients see it: what OpenAI's API has, then what it lacks."""
        sampling = {name: job.asked.sampling.get(name, getattr(self.served.defaults, name)) for name in SAMPLING}
        run = self.running.get(job.id) if job.status is Status.IN_PROGRESS else None
        done, total = run.steps if run else (0, 0)
        completed = job.status is Status.COMPLETED
        error = job.status is Status.FAILED and {"code": job.error_code, "message": job.error_message}
        return {
            "id": job.id,
            "object": "video",
            "model": self.served.model,
            "status": job.status.value,
            "progress": 100 if completed else run.percent if run else 0,
            "created_at": int(job.created_at),
            "completed_at": _whole(job.completed_at) if completed else None,
            "expires_at": _whole(job.expires_at),
            "seconds": f"{sampling['num_frames'] / sampling['fps']:g}",
            "size": f"{sampling['width']}x{sampling['height']}",
            "prompt": job.asked.prompt,
            "remixed_from_video_id": None,
            "error": error or None,
            "queue_position": self.store.place(job) + 1 if job.status is Status.QUEUED else None,
            "phase": run.phase if run else None,
            "steps_done": done,
            "num_steps": total or sampling["num_inference_steps"],
            **sampling,
            "cache": job.asked.cache or self.served.cache,
            "attention_backend": job.asked.attention_backend or self.served.attention_backend,
        }

    def snapshot(self, latest: int = 50) -> list[dict[str, Any]]:
        """All that run or wait, and the latest of the others: newest first."""
        page = self.store.page(None, latest, newest_first=True)
        known = {job.id: job for job in [*(page[0] if page else []), *self.store.unfinished()]}
        return [self.describe(job) for job in sorted(known.values(), key=lambda job: -job.number)]

    def begin(self, job: Job) -> Running:
        """The job runs from now on; it is ended at once if it was deleted since it was claimed."""
        with self._running_lock:
            self.running[job.id] = run = Running(job.id)
            if self.store.get(job.id) is None:
                run.cancel()
            return run

    def end(self, job_id: str) -> None:
        """The job does not run any more."""
        with self._running_lock:
            del self.running[job_id]

    def clear(self, now: bool = False) -> None:
        """Remove what has expired, then the oldest videos beyond the limit of the disk; once in a while."""
        if not now and time.monotonic() < self._cleared + _CLEARED_EVERY:
            return
        self._cleared = time.monotonic()
        kept = []
        for job in self.store.ended():
            if (job.expires_at or 0) <= time.time():
                self._forget(job)
            else:
                kept.append((job, self._bytes(job.id)))
        total = sum(size for _, size in kept)
        for job, size in kept:
            if total <= self.served.limits.disk_bytes:
                break
            self._forget(job)
            total -= size

    def resume(self, again: bool) -> None:
        """After a start: jobs that ran when the service ended are done if their video is there, else wait again.

        Args:
            again: False: they fail instead.
        """
        for job in self.store.unfinished():
            if job.status is not Status.IN_PROGRESS:
                continue
            if self.path(job.id, ".mp4").is_file() and self.path(job.id, ".json").is_file():
                self.store.end(job.id, self.served.limits.keep_seconds)
            elif again:
                self.store.put_back(job.id)
            else:
                message = "the server ended while the video was being made; create it again"
                self.store.end(job.id, self.served.limits.keep_seconds, ("interrupted", message))

    def discard(self, video_id: str) -> None:
        """Remove the files of a job that was deleted while it ran."""
        self._unlink(video_id)

    def _forget(self, job: Job) -> None:
        self._unlink(job.id)
        self.store.remove(job.id)

    def _unlink(self, video_id: str) -> None:
        for suffix in SUFFIXES:
            with suppress(OSError):
                self.path(video_id, suffix).unlink(missing_ok=True)

    def _bytes(self, video_id: str) -> int:
        total = 0
        for suffix in SUFFIXES:
            with suppress(OSError):
                total += self.path(video_id, suffix).stat().st_size
        return total


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
