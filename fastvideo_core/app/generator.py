"""VideoGenerator: `attach` plus loading a model, presets, and files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import torch

from fastvideo_core.app import output
from fastvideo_core.app.loading import (
    check_compile,
    check_device,
    check_dtype,
    check_offload,
    compile_blocks,
    load_pipeline,
    place_pipeline,
)
from fastvideo_core.app.model_info import ModelInfo, read_model
from fastvideo_core.app.result import VideoResult
from fastvideo_core.app.sampling import SamplingParam, check_prompts
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.contract.observing import Generation
from fastvideo_core.contract.settings import Config
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.engine.attachment import attach
from fastvideo_core.engine.attention.choice import choose_attention
from fastvideo_core.engine.caching.choice import check_policy, split
from fastvideo_core.engine.machine import peak_memory_bytes
from fastvideo_core.errors import AttachError, InputError

TEACACHE = "TEACACHE"


class VideoGenerator:
    """A loaded model with an attention backend on it. Use as a context manager, or call `close()`."""

    def __init__(
        self,
        pipe: Any,
        info: ModelInfo,
        attention_backend: str | None,
        attention_config: Config,
        load_seconds: float,
    ) -> None:
        self.info = info
        self.progress = True
        """Whether to show a progress bar, on terminals."""
        self._pipe: Any | None = pipe
        self._load_seconds = load_seconds
        self._attachment = attach(
            pipe,
            attention_backend=attention_backend,
            attention_config=attention_config,
        )
        pipe.set_progress_bar_config(disable=True)

    @classmethod
    def from_pretrained(
        cls,
        model_path: str | Path,
        *,
        attention_backend: str | None = None,
        attention_config: Config = None,
        device: str | None = None,
        dtype: torch.dtype | str | None = None,
        num_gpus: int = 1,
        compile: bool = False,  # noqa: A002  # what torch and diffusers call it
        dit_cpu_offload: bool = False,
        vae_cpu_offload: bool = False,
        text_encoder_cpu_offload: bool = False,
        pin_cpu_memory: bool = False,
    ) -> Self:
        """Load a model and choose its attention backend.

        Args:
            model_path: a preset's name, a local folder in diffusers format, or a hub id. Only safetensors are loaded.
            attention_backend: a name; default: FASTVIDEO_ATTENTION_BACKEND, else the fastest lossless one that fits.
            attention_config: settings of that backend by name, or a file for its main one; default: its own variables
                of the environment and FASTVIDEO_ATTENTION_CONFIG, else its defaults.
            device: default "cuda" where there is one, else "cpu".
            dtype: of the transformer and the text encoder; default bfloat16 on CUDA, float32 elsewhere. The
                autoencoder stays in float32.
            num_gpus: 1 is all there is so far.
            compile: compile the transformer's repeated blocks with torch.compile, each kind once and as a whole graph,
                at the first generation of a size.
            dit_cpu_offload, vae_cpu_offload, text_encoder_cpu_offload: keep that part's weights in the computer's
                memory and bring its layers to the GPU as they run (diffusers' group offloading).
            pin_cpu_memory: pin the offloaded weights and copy them while the GPU computes.

        Raises:
            ModelError: the model is not found, or not supported; BackendError: the backend is unknown, cannot run
            here or does not fit; InputError: an option does not fit. All before any weight is loaded.
        """
        if num_gpus != 1:
            raise InputError(f"num_gpus is {num_gpus!r}; fastvideo-core runs on one device: num_gpus=1")
        plugins = load_plugins()
        info = read_model(plugins, model_path)
        device = check_device(device)
        dtype = check_dtype(dtype, device)
        wanted = {"transformer": dit_cpu_offload, "vae": vae_cpu_offload, "text_encoder": text_encoder_cpu_offload}
        offload = [name for name, chosen in wanted.items() if chosen]
        check_offload(offload, pin_cpu_memory, device)
        if compile:
            check_compile(info, device, dit_cpu_offload)
        needs = info.family.needs(info.head_dim, dtype, torch.device(device))
        choose_attention(plugins, attention_backend, needs, attention_config)
        check_policy(plugins, None, info.cached_model)
        start = time.perf_counter()
        pipe = load_pipeline(info, dtype)
        place_pipeline(pipe, device, offload, pin_cpu_memory)
        if compile:
            compile_blocks(pipe, info)
        return cls(pipe, info, attention_backend, attention_config, time.perf_counter() - start)

    @overload
    def generate_video(
        self,
        prompt: str,
        sampling_param: SamplingParam | None = None,
        *,
        enable_teacache: bool = False,
        cache: str | CachePolicy | None = None,
        cache_config: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> VideoResult: ...

    @overload
    def generate_video(
        self,
        prompt: Sequence[str],
        sampling_param: SamplingParam | None = None,
        *,
        enable_teacache: bool = False,
        cache: str | CachePolicy | None = None,
        cache_config: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> list[VideoResult]: ...

    def generate_video(
        self,
        prompt: str | Sequence[str],
        sampling_param: SamplingParam | None = None,
        *,
        enable_teacache: bool = False,
        cache: str | CachePolicy | None = None,
        cache_config: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> VideoResult | list[VideoResult]:
        """Generate a video, or one after the other for a list of prompts, each as if it was asked for alone.

        Args:
            prompt: what the video should show.
            sampling_param: default: the model's preset.
            enable_teacache: short for cache="TEACACHE", with `teacache_params` of the sampling parameters.
            cache: a caching policy: NAME, NAME@VALUE, NAME@VALUE:SETTING=VALUE, "none", or an object; default:
                FASTVIDEO_CACHE_POLICY, else none.
            cache_config: settings of that policy by name, beside those that `cache` gives.
            overrides: any field of `SamplingParam`.

        Raises:
            InputError: a prompt, parameter or combination that the model cannot do; before any step is run.
            OutputError: the video cannot be written where it should go.
            BackendError: the model passes a mask that the backend does not take.
            CacheError: the caching policy is unknown, does not serve the model, or breaks its contract.
            AttachError: the generator is closed.
        """
        if self._pipe is None:
            raise AttachError("this VideoGenerator is closed; make a new one")
        params = (sampling_param or SamplingParam.from_preset(self.info.preset)).with_overrides(**overrides)
        prompts = check_prompts(prompt)
        params.check(self.info)
        defaults = {TEACACHE: params.teacache_params.settings()}
        self._attachment.use_cache(_cache_of(enable_teacache, cache), cache_config, defaults)
        target = output.prepare_folder(params.output_path) if params.save_video else None
        results = [self._generate(one, params, target) for one in prompts]
        return results[0] if isinstance(prompt, str) else results

    @contextmanager
    def attention_timed(self) -> Iterator[Callable[[], float]]:
        """Measure the attention kernels while the context lasts; yields what tells the seconds they have taken."""
        with self._attachment.timed() as seconds:
            yield seconds

    def close(self) -> None:
        """Detach and let go of the model; doing it twice is harmless."""
        self._attachment.detach()
        self._pipe = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _generate(self, prompt: str, params: SamplingParam, target: tuple[Path, str | None] | None) -> VideoResult:
        """Make and write a video, with the observers told of it."""
        generation = Generation(
            type(self._pipe).__name__, model=self.info.name, prompt=prompt, show_progress=self.progress
        )
        with self._attachment.following(generation):
            result = self._make(prompt, params)
            if target is not None:
                output.save_result(result, *target, params.fps, params.sheet)
            generation.video_path = result.video_path
        return result

    def _make(self, prompt: str, params: SamplingParam) -> VideoResult:
        assert self._pipe is not None
        device = self._attachment.device
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(device)
        more: dict[str, Any] = {"image": _open_image(params.image_path)} if params.image_path else {}
        if self.info.family.frame_rate_argument:
            more[self.info.family.frame_rate_argument] = params.fps
        start = time.perf_counter()
        frames = self._pipe(
            prompt=prompt,
            negative_prompt=params.negative_prompt,
            height=params.height,
            width=params.width,
            num_frames=params.num_frames,
            num_inference_steps=params.num_inference_steps,
            guidance_scale=float(params.guidance_scale),
            generator=torch.Generator("cpu").manual_seed(params.seed),
            output_type="np",
            **more,
        ).frames[0]
        end = time.perf_counter()
        receipt = self._attachment.receipt
        receipt.model, receipt.prompt, receipt.negative_prompt = self.info.name, prompt, params.negative_prompt
        receipt.height, receipt.width, receipt.num_frames = params.height, params.width, params.num_frames
        receipt.fps, receipt.seed, receipt.guidance_scale = params.fps, params.seed, float(params.guidance_scale)
        receipt.seconds = {
            "load": self._load_seconds,
            "text": self._attachment.run_started - start,
            **receipt.seconds,
            "decode": end - self._attachment.run_ended,
        }
        receipt.peak_memory_bytes = peak_memory_bytes(device)
        return VideoResult(prompt, frames, receipt)


def _cache_of(enable_teacache: bool, cache: str | CachePolicy | None) -> str | CachePolicy | None:
    """What the two arguments ask for together."""
    if not enable_teacache:
        return cache
    name = split(cache, "cache=")[0] if isinstance(cache, str) else getattr(cache, "name", TEACACHE)
    if name != TEACACHE:
        raise InputError(
            f"enable_teacache=True asks for {TEACACHE}, cache={cache!r} for something else; give one of them"
        )
    return cache or TEACACHE


def _open_image(path: str | Path) -> Any:
    from diffusers.utils import load_image

    try:
        return load_image(str(Path(path).expanduser()))
    except (OSError, ValueError) as error:
        raise InputError(f"image_path {str(path)!r} cannot be read as an image: {error}") from error
