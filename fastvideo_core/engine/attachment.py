"""Put an attention backend and a caching policy on a pipeline, and take them off again without a trace."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

import torch

from fastvideo_core.contract.attention import Run, TokenLayout, TokenOrder
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.contract.observing import Generation
from fastvideo_core.contract.receipt import Receipt
from fastvideo_core.contract.settings import Config
from fastvideo_core.discovery.plugins import CORE_DISTRIBUTION, load_plugins
from fastvideo_core.engine import block_stack, diffusers_bridge
from fastvideo_core.engine.attention.choice import choose_attention
from fastvideo_core.engine.attention.router import Router
from fastvideo_core.engine.caching.choice import choose_policy, model_of
from fastvideo_core.engine.caching.gate import Passage
from fastvideo_core.engine.caching.run import Caching
from fastvideo_core.engine.denoising_loop import DenoisingLoop
from fastvideo_core.engine.families import family_of, transformers_of
from fastvideo_core.engine.machine import peak_memory_bytes, versions_of
from fastvideo_core.engine.observers import Observers
from fastvideo_core.errors import AttachError, BackendNotUsedError

_attached: WeakSet[Any] = WeakSet()


def attach(
    pipe: Any,
    *,
    attention_backend: str | None = None,
    attention_config: Config = None,
    cache: str | CachePolicy | None = None,
    cache_config: Mapping[str, Any] | None = None,
) -> Attachment:
    """Put an attention backend, and a caching policy if one is asked for, on a diffusers pipeline.

    Args:
        pipe: a supported pipeline, loaded and on the device and in the dtype it will run with.
        attention_backend: a name; default: FASTVIDEO_ATTENTION_BACKEND, else the fastest lossless one that fits.
        attention_config: settings of the backend by name, or a file for its main one; default: its own variables of
            the environment and FASTVIDEO_ATTENTION_CONFIG, else its defaults.
        cache: a caching policy: NAME, NAME@VALUE, NAME@VALUE:SETTING=VALUE, "none", or an object; default:
            FASTVIDEO_CACHE_POLICY, else none.
        cache_config: settings of the policy by name, beside those that `cache` gives.

    Returns:
        An attachment: a context manager that detaches at its end; or call `detach()`.

    Raises:
        UnsupportedModelError: the pipeline's class is not supported.
        AttachError: the pipeline is attached already, or its attention processors bypass diffusers' dispatch.
        BackendError: the backend is unknown, cannot run here or does not fit the model.
        CacheError: the caching policy is unknown or does not serve the model.
        InputError: a setting that the backend or the policy does not have, or a value that it does not take.
        PluginError: two plugins provide the backend or the policy.
        DiffusersVersionError: this diffusers version is not supported.
    """
    return Attachment(pipe, attention_backend, attention_config, cache, cache_config)


class Attachment:
    """A backend on a pipeline; `receipt` tells of the latest run."""

    def __init__(
        self,
        pipe: Any,
        attention_backend: str | None,
        attention_config: Config,
        cache: str | CachePolicy | None,
        cache_config: Mapping[str, Any] | None,
    ) -> None:
        if pipe in _attached:
            raise AttachError(f"this {type(pipe).__name__} is attached already; detach it first")
        self.pipe = pipe
        self.family = family_of([cls.__name__ for cls in type(pipe).__mro__], "the pipeline")
        self._transformers = transformers = list(transformers_of(pipe, self.family))
        device = diffusers_bridge.execution_device(pipe)
        first = transformers[0]
        needs = self.family.needs(int(first.config.attention_head_dim), first.dtype, device)
        sites = [site for transformer in transformers for site in self.family.attentions(transformer)]
        self._plugins = load_plugins()
        self.requested, resolutions = choose_attention(self._plugins, attention_backend, needs, attention_config)
        self.router = Router(resolutions, {site.role: site.calls for site in sites})
        model = model_of(self.family, str(pipe.name_or_path or type(pipe).__name__), type(pipe).__name__)
        self._caching = Caching(pipe, self.family, transformers, model)
        self._caching.use(choose_policy(self._plugins, cache, cache_config))
        self._needs = needs
        self._layers = Counter(site.role for site in self.family.attentions(first))
        self.run_started = self.run_ended = 0.0
        self.device, self._dtype = str(device), needs[0].dtype
        self.observers = Observers(self._plugins)
        self.generation: Generation | None = None
        """What the next run is told to observers as, by whoever also finishes it; None: this attachment does both."""
        self._receipt: Receipt | None = None
        self._run_announced, self._num_steps = True, 0
        self._undo = ExitStack()
        with ExitStack() as undo:
            diffusers_bridge.install(sites, undo)
            for transformer in transformers:
                block_stack.install(transformer, self.family.stack, _Around(self.router, self._caching), undo)
            diffusers_bridge.watch(
                pipe,
                transformers,
                lambda bar: DenoisingLoop(bar, self),
                self._before_forward,
                self._after_forward,
                undo,
            )
            _attached.add(pipe)
            undo.callback(_attached.discard, pipe)
            self._undo = undo.pop_all()

    @property
    def receipt(self) -> Receipt:
        """What ran in the latest run.

        Raises:
            AttachError: the pipeline has not finished a run since it was attached.
        """
        if self._receipt is None:
            raise AttachError("there is no receipt yet: the pipeline has not finished a run since it was attached")
        return self._receipt

    def use_cache(
        self,
        cache: str | CachePolicy | None,
        cache_config: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Change the caching policy from the next run on.

        Args:
            cache, cache_config: as for `attach`.
            defaults: per policy name, settings that count where the other two do not give them.

        Raises:
            CacheError, InputError, PluginError: as `attach` does; the policy stays what it was.
        """
        self._caching.use(choose_policy(self._plugins, cache, cache_config, defaults))

    def detach(self) -> None:
        """Leave the pipeline as it was; doing it twice is harmless."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def start_run(self, num_steps: int) -> None:
        self._receipt = None
        self._run_announced, self._num_steps = False, num_steps
        self.router.start_run(num_steps)
        self._caching.start_run(num_steps)
        generation = self.generation or Generation(type(self.pipe).__name__)
        generation.num_steps = num_steps
        self.observers.started(generation)
        self.run_started = time.perf_counter()

    def step_done(self, done: int) -> None:
        self._caching.step_done(done)
        self.observers.step_done(done)

    def end_run(self, num_steps: int, error: BaseException | None) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        self.run_ended = time.perf_counter()
        self.router.end_run()
        self._caching.end_run()
        if error is not None:
            self.observers.failed(error)
            return
        try:
            self._check_used()
            for backend in {id(b): b for b in self.router.serving()}.values():
                backend.finish_run()
            self._receipt = self._write_receipt(num_steps)
        except BaseException as problem:
            self.observers.failed(problem)
            raise
        if self.generation is None:
            self.observers.finished(self._receipt)

    def _before_forward(self, module: torch.nn.Module, branch: str, arguments: dict[str, Any]) -> None:
        config: Any = module.config
        layout = self.family.token_layout(config, arguments)
        text_mask = arguments.get(self.family.text_mask) if self.family.text_mask else None
        if text_mask is not None:
            layout = replace(layout, text_lengths=self.router.real_tokens(text_mask))
        if not self._run_announced:
            self._announce_run(layout)
        order = self.router.wanted_order(layout, arguments["hidden_states"].device)
        self._caching.start_forward(module, branch, arguments)
        self.router.start_forward(branch, layout, order)

    def _after_forward(self) -> None:
        self.router.end_forward()
        self._caching.end_forward()

    def _announce_run(self, layout: TokenLayout) -> None:
        """Let each backend refuse what it cannot serve before anything is computed."""
        self._run_announced = True
        for need in self._needs:
            self.router.routes[need.role].resolution.backend.start_run(
                Run(
                    family=self.family.name,
                    role=need.role,
                    layout=layout,
                    num_steps=self._num_steps,
                    num_layers=self._layers[need.role],
                    num_heads=int(self._transformers[0].config.num_attention_heads),
                    head_dim=need.head_dim,
                    dtype=need.dtype,
                    device=need.device,
                )
            )

    def _check_used(self) -> None:
        idle = [role.value for role, route in self.router.routes.items() if not route.calls]
        if idle:
            raise BackendNotUsedError(
                f"the run finished, but its {' and '.join(idle)} attention never reached "
                f"{self.requested or 'the chosen backend'}: something replaced the attention processors or the "
                "transformer after attach; attach last"
            )

    def _write_receipt(self, num_steps: int) -> Receipt:
        routes, skipped = self.router.routes, self._caching.skipped()
        return Receipt(
            requested_backend=self.requested,
            attention={role.value: route.receipt() for role, route in routes.items()},
            num_inference_steps=num_steps,
            steps_computed={branch: passes - skipped.get(branch, 0) for branch, passes in self.router.steps.items()},
            steps_skipped=skipped,
            cache=self._caching.receipt(),
            token_grid=self.router.layout.grid if self.router.layout else None,
            device=self.device,
            dtype=self._dtype,
            pipeline=type(self.pipe).__name__,
            compiled=all(map(diffusers_bridge.blocks_are_compiled, self._transformers)),
            seconds={"denoise": self.run_ended - self.run_started},
            peak_memory_bytes=peak_memory_bytes(self.device),
            versions=versions_of(
                {CORE_DISTRIBUTION} | {route.resolution.plugin.distribution for route in routes.values()}
            ),
        )


class _Around:
    """What is to happen around the blocks of the forward pass that is under way."""

    def __init__(self, router: Router, caching: Caching) -> None:
        self._router, self._caching = router, caching

    @property
    def order(self) -> TokenOrder | None:
        return self._router.order

    @property
    def passage(self) -> Passage | None:
        return self._caching.passage
