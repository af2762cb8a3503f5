"""VideoGenerator: `attach` plus loading a model, presets, and files."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import torch

from fastvideo_core.app.batch.expected import expected_of_loading
from fastvideo_core.app.batch.reading import rows_from
from fastvideo_core.app.batch.row import PromptRow, RowResult
from fastvideo_core.app.batch.work import Order, Work, checked_folder, checked_orders
from fastvideo_core.app.cache_request import CacheRequest
from fastvideo_core.app.choices import check_choices, choices_for
from fastvideo_core.app.known_fields import check_flags, unknown_field
from fastvideo_core.app.loading import check_compile, check_device, check_dtype, check_offload
from fastvideo_core.app.make import Video
from fastvideo_core.app.memory import check_memory
from fastvideo_core.app.model_info import ModelInfo, read_model
from fastvideo_core.app.offered import Choices
from fastvideo_core.app.one_at_a_time import OneAtATime
from fastvideo_core.app.opening import Opening, open_studio
from fastvideo_core.app.processes import asked_degrees, check_processes, choose_executor, sharded_degrees
from fastvideo_core.app.prompts import check_prompts, check_settings_are_text
from fastvideo_core.app.quantization import check_quantization
from fastvideo_core.app.result import VideoResult
from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.app.studio import Studio
from fastvideo_core.app.vae_tiling import check_tiling
from fastvideo_core.app.workers.remote_studio import RemoteStudio
from fastvideo_core.contract.attention import AttentionBackend, Need
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.contract.reading import shown
from fastvideo_core.contract.settings import Config
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.engine.attention.choice import choose_attention
from fastvideo_core.engine.caching.choice import check_policy
from fastvideo_core.engine.parallel.degrees import read_degrees
from fastvideo_core.engine.parallel.shareable import check_degrees
from fastvideo_core.errors import AttachError, InputError


class VideoGenerator:
    """A loaded model with an attention backend on it. Use as a context manager, or call `close()`."""

    def __init__(self, studio: Studio, info: ModelInfo, needs: list[Need], loading: Mapping[str, Any]) -> None:
        self.info = info
        self._needs = needs
        self._loading = loading
        self.progress = True
        """Whether to show a progress bar, on terminals."""
        self._studio = studio
        self._alone = OneAtATime()
        self._closed = False

    @classmethod
    def from_pretrained(
        cls,
        model_path: str | Path,
        *,
        attention_backend: str | AttentionBackend | None = None,
        attention_config: Config = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        num_gpus: int = 1,
        num_processes: int = 1,
        sp_size: int | None = None,
        cfg_parallel: bool | None = None,
        distributed_executor_backend: str = "mp",
        shard_weights: bool = False,
        compile: bool = False,  # noqa: A002  # what torch and diffusers call it
        dit_cpu_offload: bool = False,
        vae_cpu_offload: bool = False,
        text_encoder_cpu_offload: bool = False,
        pin_cpu_memory: bool = False,
        vae_tiling: bool | None = None,
        quantization: Any = None,
        **unknown: Any,
    ) -> Self:
        """Load a model and choose its attention backend.

        Args:
            model_path: a preset's name, a local folder in diffusers format, or a hub id. Only safetensors are loaded.
            attention_backend: `NAME`, `NAME@VALUE`, `NAME@VALUE:SETTING=VALUE`, or an object; default:
                FASTVIDEO_ATTENTION_BACKEND, else the fastest lossless one that fits.
            attention_config: settings of that backend by name, or a file for its main one; default: its own variables
                of the environment and FASTVIDEO_ATTENTION_CONFIG, else its defaults.
            device: default "cuda" where there is one, else "cpu".
            dtype: of the transformer and the text encoder; default bfloat16 on CUDA, float32 elsewhere. The
                autoencoder stays in float32.
            num_gpus: how many make each video together, with a process for each.
            num_processes: likewise on the CPU, or on one GPU that is named as `device`; to try it.
            sp_size: into how many parts the tokens of a video are cut; default: as many as guidance leaves.
            cfg_parallel: whether each guidance branch is computed by one half of the processes; default: where there
                are two branches and an even number of processes.
            distributed_executor_backend: the executor that starts the processes; "mp" does so on this machine, "ray"
                (of fv-ray) on a machine of a Ray cluster.
            shard_weights: have each process hold a part of the transformer's weights, where all of them fit no GPU; a
                block's are gathered as it runs.
            compile: compile the transformer's repeated blocks with torch.compile, each kind once and as a whole graph,
                at the first generation of a size.
            dit_cpu_offload, vae_cpu_offload, text_encoder_cpu_offload: keep that part's weights in the computer's
                memory and bring its layers to the GPU as they run (diffusers' group offloading). On a CPU they do
                nothing, with a warning.
            pin_cpu_memory: pin the offloaded weights and copy them while the GPU computes.
            vae_tiling: whether the autoencoder decodes in tiles (diffusers' `enable_tiling`), which takes less memory
                and gives slightly different frames; None: where the whole video is estimated not to fit. Several
                processes decode the tiles together.
            quantization: round weights: "fp8-layerwise" (of the transformer, cast as its layers run), "torchao-fp8",
                "torchao-int8", "bnb-nf4" or "bnb-int8" (of transformer and text encoder), or diffusers'
                PipelineQuantizationConfig. The frames are others.

        Raises:
            ModelError: the model is not found, or not supported.
            BackendError: the backend is unknown, cannot run here or does not fit.
            InputError: an option does not fit.
            ParallelError: several processes cannot share the model.

        All of them are raised before any weight is loaded.
        """
        for name in unknown:
            raise unknown_field("argument of from_pretrained", name, _ARGUMENTS)
        check_flags(
            compile=compile,
            shard_weights=shard_weights,
            dit_cpu_offload=dit_cpu_offload,
            vae_cpu_offload=vae_cpu_offload,
            text_encoder_cpu_offload=text_encoder_cpu_offload,
            pin_cpu_memory=pin_cpu_memory,
        )
        check_settings_are_text("attention_config", attention_config)
        if vae_tiling is not None:
            check_flags(vae_tiling=vae_tiling)
        plugins = load_plugins()
        info = read_model(plugins, model_path)
        info.check_inputs()
        device = check_device(device)
        executor = choose_executor(plugins, distributed_executor_backend)
        processes = check_processes(num_gpus, num_processes, device, executor)
        parallel = asked_degrees(processes, sp_size, cfg_parallel)
        if shard_weights:
            parallel = sharded_degrees(processes, parallel, compile or dit_cpu_offload or quantization is not None)
        dtype = check_dtype(dtype, device)
        wanted = {"transformer": dit_cpu_offload, "vae": vae_cpu_offload, "text_encoder": text_encoder_cpu_offload}
        offload = [name for name, chosen in wanted.items() if chosen]
        offload = check_offload(offload, pin_cpu_memory, device)
        check_tiling(info, vae_tiling)
        rounded = check_quantization(quantization, info, device, offload)
        if compile:
            check_compile(info, device, dit_cpu_offload, rounded is not None and rounded.layerwise)
        needs = info.family.needs(info.transformer, dtype, torch.device(device))
        requested, serving = choose_attention(plugins, attention_backend, needs, attention_config)
        check_policy(plugins, None, info.cached_model)
        loading = expected_of_loading(requested, serving, str(dtype).removeprefix("torch."))
        opening = Opening(
            str(model_path),
            device,
            dtype,
            attention_backend,
            attention_config,
            compile,
            tuple(offload),
            pin_cpu_memory,
            shard_weights,
            vae_tiling,
            rounded,
        )
        if processes > 1:
            check_degrees(info.family, read_degrees(parallel, processes))
            return cls(RemoteStudio(executor(), opening, processes, parallel, info, plugins), info, needs, loading)
        return cls(open_studio(opening, device, info=info), info, needs, loading)

    @overload
    def generate_video(
        self,
        prompt: str,
        sampling_param: SamplingParam | None = None,
        *,
        enable_teacache: bool = False,
        cache: str | CachePolicy | None = None,
        cache_config: Config = None,
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
        cache_config: Config = None,
        **overrides: Any,
    ) -> list[VideoResult]: ...

    def generate_video(
        self,
        prompt: str | Sequence[str],
        sampling_param: SamplingParam | None = None,
        *,
        enable_teacache: bool = False,
        cache: str | CachePolicy | None = None,
        cache_config: Config = None,
        **overrides: Any,
    ) -> VideoResult | list[VideoResult]:
        """Generate a video, or one after the other for a list of prompts, each as if it was asked for alone.

        For a list, and for num_videos_per_prompt above 1, the result is a list.

        Args:
            prompt: what the video should show.
            sampling_param: default: the model's preset.
            enable_teacache: cache="TEACACHE" as FastVideo does it: what `teacache_params` of the sampling parameters
                leaves open is as in its preset for the model.
            cache: a caching policy: `NAME`, `NAME@VALUE`, `NAME@VALUE:SETTING=VALUE`, "none", or an object; default:
                FASTVIDEO_CACHE_POLICY, else none.
            cache_config: settings of that policy by name, beside those that `cache` gives.
            overrides: any field of `SamplingParam`.

        Raises:
            InputError: a prompt, parameter or combination that the model cannot do; before any step is run.
            OutputError: the video cannot be written where it should go.
            BackendError: the model passes a mask that the backend does not take; or, as BackendOutputError, frames are
                not finite: its `result` has them, and no file is written.
            CacheError: the caching policy is unknown, does not serve the model, or breaks its contract.
            AttachError: the generator is closed, or generating already, in whichever thread.

        With a list, the error has the results so far as `results`.
        """
        request = CacheRequest.of(enable_teacache, cache, cache_config)
        with self._alone.hold("generate"):
            prompts, generate = self._prepared(prompt, sampling_param, request, overrides)
            if isinstance(prompt, str) and len(prompts) == 1:
                return generate(prompts[0])
            results: list[VideoResult] = []
            try:
                for one in prompts:
                    results.append(generate(one))
            except BaseException as error:
                error.results = results  # type: ignore[attr-defined]  # on an error of torch and on Ctrl-C, too
                raise
            return results

    @overload
    def generate_videos(
        self,
        prompts: Sequence[str],
        sampling_param: SamplingParam | None = None,
        *,
        enable_teacache: bool = False,
        cache: str | CachePolicy | None = None,
        cache_config: Config = None,
        **overrides: Any,
    ) -> Iterator[VideoResult]: ...

    @overload
    def generate_videos(
        self,
        prompts: Sequence[PromptRow | Mapping[str, Any]],
        sampling_param: SamplingParam | None = None,
        *,
        enable_teacache: bool = False,
        cache: str | CachePolicy | None = None,
        cache_config: Config = None,
        **overrides: Any,
    ) -> Iterator[RowResult]: ...

    def generate_videos(
        self,
        prompts: Sequence[str] | Sequence[PromptRow | Mapping[str, Any]],
        sampling_param: SamplingParam | None = None,
        *,
        enable_teacache: bool = False,
        cache: str | CachePolicy | None = None,
        cache_config: Config = None,
        **overrides: Any,
    ) -> Iterator[VideoResult] | Iterator[RowResult]:
        """Generate a video for each prompt or row, one whenever the next is asked for; none is kept here.

        Args and errors are those of `generate_video`; what can be checked beforehand is checked before this returns.

        Rows, each a `PromptRow` or a mapping with `prompt` and, if wanted, `id`, `cache` and any sampling parameter,
        are what `fv generate --prompts` works through: the files of a row are named by its id, a row whose video is
        whole on disk is found and not made again, and one that fails is a `RowResult` with its error, not the end.

        Raises:
            InputError: rows are wrong: all of them, each with its place; before any is made.
            OutputError, AttachError, ParallelError: in the middle, where no other row could be made either.
        """
        request = CacheRequest.of(enable_teacache, cache, cache_config)
        if _are_rows(prompts):
            return self._work_through(prompts, sampling_param, request, overrides)
        with self._alone.hold("generate"):
            checked, generate = self._prepared(prompts, sampling_param, request, overrides)  # type: ignore[arg-type]

        def generate_alone(video: Video) -> VideoResult:
            with self._alone.hold("generate"):
                self._check_open()
                return generate(video)

        return map(generate_alone, checked)

    def _work_through(
        self,
        items: Sequence[Any],
        sampling_param: SamplingParam | None,
        request: CacheRequest,
        overrides: Mapping[str, Any],
    ) -> Iterator[RowResult]:
        with self._alone.hold("generate"):
            self._check_open()
            check_settings_are_text("cache_config", request.config)
            params = self._params(sampling_param, overrides)
            orders = checked_orders(rows_from(items), params, request, self.info, load_plugins())
            loading = {**self._loading, "quantization": self._studio.quantization}
            work = Work(orders, checked_folder(params), self.info, loading, self._prepare)
            work.check(self._studio.device)

        def do(order: Order) -> RowResult:
            with self._alone.hold("generate"):
                self._check_open()
                return work.do(order)

        return map(do, orders)

    def _prepare(
        self, prompts: Sequence[str], params: SamplingParam, request: CacheRequest
    ) -> Callable[[Video], VideoResult]:
        make = self._studio.prepared(prompts, params, request)
        return lambda video: make(video, self.progress)

    def choices(self) -> Choices:
        """The names of the attention backends that run here and fit the model, and of the policies that serve it."""
        return choices_for(load_plugins(), self.info, self._needs)

    def check_choices(self, *, attention_backend: str | None = None, cache: str | None = None) -> None:
        """Check a backend or a policy, each with its settings, without changing anything; None is not checked.

        It may be called from any thread, also while a video is made.

        Raises:
            BackendError, CacheError, InputError: a video could not be made with it.
        """
        check_choices(load_plugins(), self.info, self._needs, attention_backend, cache)

    def use_attention(self, attention_backend: str | AttentionBackend | None, attention_config: Config = None) -> None:
        """Change the attention backend from the next video on, with the weights as they are.

        Args:
            attention_backend, attention_config: as for `from_pretrained`; checked before anything is changed.

        Raises:
            BackendError: the backend is unknown, cannot run here or does not fit.
            InputError: a setting does not fit; or several processes make the videos, whose backend stays.
            AttachError: a video is being generated, or the generator is closed.
        """
        with self._alone.hold("change its attention backend"):
            self._check_open()
            check_settings_are_text("attention_config", attention_config)
            requested, serving = choose_attention(load_plugins(), attention_backend, self._needs, attention_config)
            self._studio.use_attention(attention_backend, attention_config)
            self._loading = expected_of_loading(requested, serving, self._loading["dtype"])

    @contextmanager
    def attention_timed(self) -> Iterator[Callable[[], float]]:
        """Measure the attention kernels while the context lasts; yields what tells the seconds they have taken."""
        with self._studio.timed() as seconds:
            yield seconds

    @property
    def is_open(self) -> bool:
        """Whether videos can still be made: it is not closed, and none of its processes has ended."""
        return not self._closed and self._studio.is_open

    @property
    def is_shared(self) -> bool:
        """Whether several processes make each video."""
        return isinstance(self._studio, RemoteStudio)

    def close(self) -> None:
        """Detach and let go of the model; doing it twice is harmless.

        Raises:
            AttachError: a video is being generated.
        """
        with self._alone.hold("close"):
            self._studio.close()
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except AttachError as problem:
            if error is None:
                raise
            error.add_note(f"then, while the generator was to be closed: {problem}")

    def _prepared(
        self,
        prompts: str | Sequence[str],
        sampling_param: SamplingParam | None,
        request: CacheRequest,
        overrides: Mapping[str, Any],
    ) -> tuple[list[Video], Callable[[Video], VideoResult]]:
        """Check all that can be before a step is run; the videos to make, and what makes one."""
        self._check_open()
        check_settings_are_text("cache_config", request.config)
        params = self._params(sampling_param, overrides)
        checked = check_prompts(prompts)
        params.check(self.info)
        check_memory(params, self.info, self._studio.device, torch.float32)
        make = self._prepare(checked, params, request)
        return [
            Video(one, params.seed + number) for one in checked for number in range(params.num_videos_per_prompt)
        ], make

    def _params(self, sampling_param: SamplingParam | None, overrides: Mapping[str, Any]) -> SamplingParam:
        if sampling_param is None:
            sampling_param = SamplingParam.from_preset(self.info.preset)
        elif not isinstance(sampling_param, SamplingParam):
            raise InputError(
                f"sampling_param must be a SamplingParam, not {shown(sampling_param)}; its fields can be given "
                "by name: generate_video(…, num_frames=9)"
            )
        return sampling_param.with_overrides(**overrides)

    def _check_open(self) -> None:
        if self._closed:
            raise AttachError("this VideoGenerator is closed; make a new one")

    @property
    def _pipe(self) -> Any:
        return self._studio.pipe


def _are_rows(prompts: object) -> bool:
    """Whether it is a list with something in it that is a row, and not text alone."""
    return isinstance(prompts, list | tuple) and any(isinstance(one, PromptRow | Mapping) for one in prompts)


_ARGUMENTS = [
    name for name in inspect.signature(VideoGenerator.from_pretrained).parameters if name not in ("cls", "unknown")
]
