"""A job's video on a generator, and what became of it; knows neither the store nor HTTP, so it may run elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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

if TYPE_CHECKING:
    from fastvideo_core import Receipt, RowResult, SamplingParam, VideoGenerator

log = logging.getLogger("fv_serve")

Failure = tuple[str, str]


@dataclass(frozen=True)
class Made:
    """What became of a job: nothing of these where it was cancelled, or its video was found.

    Attributes:
        failure: a code and a message.
        receipt: of the video that was made.
        again: whether it is to wait again, since what made it is gone.
    """

    failure: Failure | None = None
    receipt: Receipt | None = None
    again: bool = False


class Makes(Protocol):
    """What a `Worker` has videos made by: a `Maker`, or one in another process."""

    def ready(self) -> bool:
        """Whether a job can be taken; it may wait for that, but not for long. Raises FastVideoError: not yet."""

    def make(self, job: Job, run: Running) -> Made:
        """Make the video of a job; raises nothing. A run that is cancelled ends after its step."""

    def close(self) -> None:
        """Let go of the model."""


class Maker:
    """Makes videos, one after the other, on one generator.

    Args:
        open_generator: makes the generator, and makes it anew where its processes have ended.
        folder: where the files lie, each named by its job's id; also the images that jobs start from.
        defaults: sampling parameters of a job that gives none; so are attention_backend and cache.
    """

    def __init__(
        self,
        open_generator: Callable[[], VideoGenerator],
        folder: Path,
        defaults: SamplingParam,
        attention_backend: str | None,
        cache: str | None,
    ) -> None:
        self.generator = open_generator()
        self._open, self._folder = open_generator, folder
        self._defaults = defaults.with_overrides(output_path=folder, return_frames=False, sheet=True)
        self._default_backend, self._default_cache = attention_backend, cache
        self._backend = attention_backend

    def ready(self) -> bool:
        """True. Several processes end with the video that is cancelled: this starts them again."""
        if not self.generator.is_open:
            self.generator.close()
            self.generator = self._open()
            self._backend = self._default_backend
        return True

    def close(self) -> None:
        """Let go of the model."""
        self.generator.close()

    def make(self, job: Job, run: Running) -> Made:
        """Make the video of a job; raises nothing. A run that is cancelled ends after its step."""
        log.info("%s: %s", job.id, job.asked.prompt[:200])
        try:
            with followed(run):
                result = self._result(job)
            if result.error is not None:
                raise result.error
            return Made(receipt=None if result.video is None else result.video.receipt)
        except CancelledError:
            return Made()
        except (AttachError, ParallelError) as error:
            return Made(("generator_failed", str(error)))
        except InputError as error:
            return Made(("invalid_request", str(error).removeprefix(f"{job.id}: ")))
        except OutputError as error:
            log.error("%s: %s", job.id, error)
            told = "the video could not be written: the server's disk is full, or its folder is gone"
            return Made(("not_written", told))
        except FastVideoError as error:
            return Made((type(error).__name__, str(error)))
        except Exception as error:
            log.exception("%s", job.id)
            return Made(("failed", f"{type(error).__name__}: {error}"))

    def _result(self, job: Job) -> RowResult:
        from fastvideo_core import PromptRow

        asked = job.asked
        backend = asked.attention_backend or self._default_backend
        if backend != self._backend:
            self.generator.use_attention(backend)
            self._backend = backend
        image = self._folder / f"{job.id}.input.png"
        sampling: dict[str, Any] = {**asked.sampling, **({"image_path": image} if image.is_file() else {})}
        row = PromptRow(asked.prompt, job.id, sampling, asked.cache or self._default_cache, place=job.id)
        return next(self.generator.generate_videos([row], self._defaults))
