"""Where videos are made: a pipeline in this process. A generator asks it, or one that asks other processes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from fastvideo_core.app.cache_request import CacheRequest
from fastvideo_core.app.loading import has_hooks
from fastvideo_core.app.make import Maker, Video
from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.app.prompts import check_lengths
from fastvideo_core.app.result import VideoResult
from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.app.vae_tiling import Tiling
from fastvideo_core.contract.attention import AttentionBackend
from fastvideo_core.contract.settings import Config
from fastvideo_core.engine.attachment import attach
from fastvideo_core.engine.parallel.degrees import Parallel
from fastvideo_core.engine.quantized import quantized


class Studio(Protocol):
    """What a generator needs of the place where its videos are made."""

    pipe: Any
    """The pipeline; None where it is elsewhere, or closed."""

    @property
    def is_open(self) -> bool:
        """Whether videos can still be made."""

    @property
    def device(self) -> str:
        """Where it computes; of several devices the first."""

    @property
    def quantization(self) -> dict[str, str]:
        """By component, what its weights are rounded to, as receipts have it."""

    def prepared(
        self, prompts: Sequence[str], params: SamplingParam, request: CacheRequest
    ) -> Callable[[Video, bool], VideoResult]:
        """Check all that can be before a step is run; what makes one of the videos."""

    def timed(self) -> AbstractContextManager[Callable[[], float]]:
        """Measure the attention kernels while the context lasts."""

    def use_attention(self, attention_backend: str | AttentionBackend | None, attention_config: Config) -> None:
        """Change the attention backend from the next video on."""

    def close(self) -> None:
        """Let go of everything."""


class LocalStudio:
    """A pipeline of this process, with an attention backend on it."""

    def __init__(
        self,
        pipe: Any,
        info: ModelInfo,
        attention_backend: str | AttentionBackend | None,
        attention_config: Config,
        load_seconds: float,
        vae_tiling: bool | None = None,
        parallel: Parallel = None,
    ) -> None:
        self.pipe: Any | None = pipe
        self.info, self.load_seconds = info, load_seconds
        self._vae_tiling, self._parallel = vae_tiling, parallel
        self._attach(attention_backend, attention_config)
        pipe.set_progress_bar_config(disable=True)

    @property
    def is_open(self) -> bool:
        return self.pipe is not None

    @property
    def device(self) -> str:
        return self.attachment.device

    @property
    def quantization(self) -> dict[str, str]:
        return quantized(self.pipe)

    def prepared(
        self, prompts: Sequence[str], params: SamplingParam, request: CacheRequest
    ) -> Callable[[Video, bool], VideoResult]:
        """As `Studio.prepared`.

        Raises:
            InputError: a text is too long; CacheError: the policy is unknown, or does not serve the model; OutputError:
            no file can be written where it should go.
        """
        check_lengths(self.pipe, params.max_sequence_length, prompt=prompts, negative_prompt=[params.negative_prompt])
        self.attachment.check_grid(params.grid(self.info))
        return Maker(self.attachment, self.info, params, request, self.load_seconds, self._tiling).make

    def timed(self) -> AbstractContextManager[Callable[[], float]]:
        return self.attachment.timed()

    def use_attention(self, attention_backend: str | AttentionBackend | None, attention_config: Config) -> None:
        """As `Studio.use_attention`; where the new one cannot be had, the old one stays.

        Raises:
            BackendError, InputError: as `attach` does; AttachError: a video is being made.
        """
        before = self._asked
        self.attachment.detach()
        try:
            self._attach(attention_backend, attention_config)
        except BaseException:
            self._attach(*before)
            raise

    def _attach(self, attention_backend: str | AttentionBackend | None, attention_config: Config) -> None:
        self.attachment = attach(
            self.pipe,
            attention_backend=attention_backend,
            attention_config=attention_config,
            parallel=self._parallel,
        )
        self._tiling = Tiling(self._vae_tiling, self.attachment.anywhere)
        self._asked = attention_backend, attention_config

    def close(self) -> None:
        """Detach, and let go of the model.

        Raises:
            AttachError: a video is being made.
        """
        self.attachment.detach()
        circular = self.pipe is not None and has_hooks(self.pipe)
        self.pipe = None
        if circular:
            gc.collect()
