"""Videos from an attached pipeline: run it with the sampling parameters, note those in the receipt, write the files."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from fastvideo_core.app import output
from fastvideo_core.app.cache_request import CacheRequest
from fastvideo_core.app.calling import arguments_of, audio_of, frames_of, note, prepared
from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.app.result import VideoResult, check_finite
from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.app.vae_tiling import Tiling
from fastvideo_core.contract.observing import Generation
from fastvideo_core.engine.attachment import Attachment
from fastvideo_core.engine.machine import peak_memory_bytes
from fastvideo_core.errors import InputError


@dataclass(frozen=True)
class Video:
    """A video to make; a name is the one that its files get, where they would get none that is free."""

    prompt: str
    seed: int
    name: str | None = None


def prepare_target(params: SamplingParam) -> tuple[Path, str | None]:
    """The folder, made ready, and the name of the file, if one was given; raises as `prepare_folder` does."""
    name = params.output_video_name
    if name is None:
        return output.prepare_folder(params.output_path)
    if Path(params.output_path).suffix.lower() == ".mp4":
        raise InputError(f"output_path {str(params.output_path)!r} and output_video_name {name!r} both name the file")
    return output.prepare_folder(Path(params.output_path) / (name if name.lower().endswith(".mp4") else f"{name}.mp4"))


class Maker:
    """Makes videos with the same parameters and the same caching policy.

    Args:
        request: the caching policy; TEACACHE also takes the sampling parameters' `teacache_params`.
        load_seconds: how long the model took to load, for the receipts.
        tiling: how the autoencoder decodes.

    Raises:
        CacheError, InputError: the policy is unknown, or does not serve the model.
        OutputError: no file can be written where it should go.
    """

    def __init__(
        self,
        attachment: Attachment,
        info: ModelInfo,
        params: SamplingParam,
        request: CacheRequest,
        load_seconds: float,
        tiling: Tiling,
    ) -> None:
        self._attachment, self._info, self._params, self._load_seconds = attachment, info, params, load_seconds
        self._tiling = tiling
        self._choose_policy = partial(
            attachment.use_cache, request.cache, request.config, request.defaults(params, info.cached_model)
        )
        self._choose_policy()
        self._target = prepare_target(params) if params.save_video else None

    def make(self, video: Video, show_progress: bool) -> VideoResult:
        """Make and write a video, with the observers told of it.

        Raises:
            BackendError, CacheError, AttachError: as the run does.
            InputError: the image cannot be read.
            OutputError: the video cannot be written.
        """
        self._choose_policy()  # whoever made another video in between may have chosen another
        pipeline = type(self._attachment.pipe).__name__
        generation = Generation(pipeline, model=self._info.name, prompt=video.prompt, show_progress=show_progress)
        with self._attachment.following(generation):
            result = self._run(video.prompt, replace(self._params, seed=video.seed))
            check_finite(result)
            if self._target is not None:
                folder, stem = self._target
                fps, sheet = self._params.fps, self._params.sheet
                output.save_result(result, folder, video.name or stem, fps, sheet, exact=video.name is not None)
            generation.video_path = result.video_path
        if not self._params.return_frames:
            result.frames = result.frames[:0].copy()
        return result

    def _run(self, prompt: str, params: SamplingParam) -> VideoResult:
        device = self._attachment.device
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(device)
        pipe, start = self._attachment.pipe, time.perf_counter()
        with prepared(pipe, params, self._info), self._tiling.applied(pipe):
            made = pipe(**arguments_of(pipe, prompt, params, self._info))
        frames, audio = frames_of(made), audio_of(made, pipe)
        end = time.perf_counter()
        receipt = self._attachment.receipt
        receipt.model, receipt.prompt, receipt.negative_prompt = self._info.name, prompt, params.negative_prompt
        note(receipt, frames, params, self._info)
        receipt.vae_tiling = self._tiling.used
        receipt.seconds = {
            "load": self._load_seconds,
            "text": self._attachment.run_started - start,
            **receipt.seconds,
            "decode": end - self._attachment.run_ended,
        }
        receipt.peak_memory_bytes = peak_memory_bytes(device)
        return VideoResult(prompt, frames, receipt, audio=audio)
