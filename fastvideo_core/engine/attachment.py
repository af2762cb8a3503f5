"""Put an attention backend and a caching policy on a pipeline, and take them off again without a trace."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch

from fastvideo_core.contract.attention import AttentionBackend
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.contract.observing import Generation
from fastvideo_core.contract.receipt import Receipt
from fastvideo_core.contract.settings import Config
from fastvideo_core.discovery.plugins import Plugins, load_plugins
from fastvideo_core.engine import block_stack, diffusers_bridge, side_lists
from fastvideo_core.engine.attached_model import AttachedModel
from fastvideo_core.engine.attention.choice import choose_attention
from fastvideo_core.engine.attention.clock import KernelClock
from fastvideo_core.engine.attention.route import LoadedBackend
from fastvideo_core.engine.caching.choice import choose_policy, prepared_policy
from fastvideo_core.engine.call_site import CallSite
from fastvideo_core.engine.ending import Ending
from fastvideo_core.engine.forward_pass import BarePass, begin, current_pass, end
from fastvideo_core.engine.observers import Observers
from fastvideo_core.engine.ownership import claim
from fastvideo_core.engine.parallel.crew import Crew
from fastvideo_core.engine.parallel.degrees import Parallel
from fastvideo_core.engine.parallel.shareable import check_degrees
from fastvideo_core.engine.parallel.tiles import share_tiles
from fastvideo_core.engine.plugin_calls import check_grid
from fastvideo_core.engine.run import ActiveRun
from fastvideo_core.engine.watch import watch_pipeline, watch_transformer
from fastvideo_core.errors import AttachError


def attach(
    pipe: Any,
    *,
    attention_backend: str | AttentionBackend | None = None,
    attention_config: Config = None,
    cache: str | CachePolicy | None = None,
    cache_config: Config = None,
    parallel: Parallel = None,
) -> Attachment:
    """Put an attention backend, and a caching policy if one is asked for, on a diffusers pipeline.

    It changes the pipeline's transformers, so it owns them until it is detached: no other attachment can have them.
    What does not run in a call of this pipeline, such as another pipeline with the same transformer, or a call of the
    transformer by hand, runs as without it.

    Args:
        pipe: a pipeline whose transformer an installed plugin knows, loaded and on the device and in the dtype it will
            run with.
        attention_backend: `NAME`, `NAME@VALUE`, `NAME@VALUE:SETTING=VALUE`, or an object; default:
            FASTVIDEO_ATTENTION_BACKEND, else the fastest lossless one that fits.
        attention_config: settings of the backend by name, or a file for its main one; default: its own variables of
            the environment and FASTVIDEO_ATTENTION_CONFIG, else its defaults.
        cache: a caching policy: `NAME`, `NAME@VALUE`, `NAME@VALUE:SETTING=VALUE`, "none", or an object; default:
            FASTVIDEO_CACHE_POLICY, else none.
        cache_config: settings of the policy by name, beside those that `cache` gives.
        parallel: have all processes that a launcher started make each video together: "auto", or degrees such as
            {"sequence": 2, "guidance": 2}, which multiply to the number of processes. Every process attaches, and calls
            its pipeline, in the same way. None: this process makes videos alone.

    Returns:
        An attachment: a context manager that detaches at its end; or call `detach()`.

    Raises:
        UnsupportedModelError: no installed plugin knows the pipeline's transformer.
        AttachError: the pipeline or a transformer of it is attached already; its attention processors bypass
            diffusers' dispatch; or diffusers' own caching or parallelism is enabled on it.
        BackendError: the backend is unknown, cannot run here or does not fit the model.
        CacheError: the caching policy is unknown or does not serve the model.
        InputError: a setting that the backend or the policy does not have, or a value that it does not take.
        PluginError: two plugins provide the backend, the policy or the model family.
        ParallelError: the other processes cannot be reached, or are not as this one; or they cannot share the model.
        DiffusersVersionError: this diffusers version is not supported.
    """
    return Attachment(pipe, attention_backend, attention_config, cache, cache_config, parallel=parallel)


class Attachment:
    """A backend, and perhaps a caching policy, on a pipeline.

    Attributes:
        requested: the backend that was asked for; None for the automatic choice.
        device: where the pipeline computes, such as "cuda:0".
        run_started: when the latest run that ended well began, by `time.perf_counter`.
        run_ended: when it ended.
    """

    def __init__(
        self,
        pipe: Any,
        attention_backend: str | AttentionBackend | None,
        attention_config: Config,
        cache: str | CachePolicy | None,
        cache_config: Config,
        plugins: Plugins | None = None,
        parallel: Parallel = None,
    ) -> None:
        self._attached: AttachedModel | None = None
        self._lock = threading.Lock()
        self._call: CallSite | None = None
        self._run: ActiveRun | None = None
        self._receipt: Receipt | None = None
        self._followed: Observers | None = None
        self._clock: KernelClock | None = None
        self._communication: KernelClock | None = None
        self.run_started = self.run_ended = 0.0
        self._plugins = load_plugins() if plugins is None else plugins
        self.make_observers: Callable[[Generation], Observers] = partial(Observers, self._plugins)
        """Whom a generation is told to; a process that others share a run with may tell nobody."""
        with ExitStack() as undo:
            model = AttachedModel.of(pipe, self._plugins)
            claim([pipe, *model.transformers], f"a {type(pipe).__name__}", undo)
            self.requested, resolutions = choose_attention(
                self._plugins, attention_backend, list(model.needs), attention_config
            )
            self._loaded = {role: LoadedBackend.load(resolution) for role, resolution in resolutions.items()}
            self._policy = prepared_policy(choose_policy(self._plugins, cache, cache_config), model.cached_model)
            self.device = str(model.device)
            self._crew = Crew.join(parallel, model.device)
            if self._crew:
                check_degrees(model.family, self._crew.degrees)
                self._crew.check_alike(model, resolutions, self._policy)
            self._install(model, undo)
            self._attached, self._undo = model, undo.pop_all()

    def _install(self, model: AttachedModel, undo: ExitStack) -> None:
        for number, transformer in enumerate(model.transformers):
            slots = diffusers_bridge.install(model.sites(number), undo)
            stack = block_stack.install(transformer, model.family.stack, undo)
            side_lists.install(transformer, stack, undo)
            bare = partial(BarePass, model.blocks[number], slots)
            started = partial(self._pass_started, number, stack, bare)
            around = self._forward if self._crew else None
            watch_transformer(transformer, started, self._pass_ended, undo, around)
        made = self._crew.same_latents if self._crew else None
        if self._crew and getattr(model.pipe, "vae", None) is not None:
            share_tiles(model.pipe.vae, self._crew.everyone, undo)
        watch_pipeline(model.pipe, self._call_started, self._run_started, self._step_done, self._run_ended, undo, made)

    @property
    def pipe(self) -> Any:
        """The pipeline.

        Raises:
            AttachError: it has been detached.
        """
        return self._model.pipe

    @property
    def receipt(self) -> Receipt:
        """What ran in the latest run.

        Raises:
            AttachError: there has been no run since the pipeline was attached, or the latest one has not ended well.
        """
        if self._receipt is None:
            raise AttachError(
                "there is no receipt yet: the pipeline has not finished a run since it was attached, or its latest "
                "call failed"
            )
        return self._receipt

    def use_cache(
        self,
        cache: str | CachePolicy | None,
        cache_config: Config = None,
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Change the caching policy from the next run on.

        Args:
            cache, cache_config: as for `attach`.
            defaults: per policy name, settings that count where the other two do not give them.

        Raises:
            CacheError, InputError, PluginError: as `attach` does; the policy stays what it was.
            AttachError: a run is under way, or the pipeline has been detached.
        """
        with self._lock:
            self._refuse_while_under_way("change the caching policy when it has ended")
            chosen = choose_policy(self._plugins, cache, cache_config, defaults)
            self._policy = prepared_policy(chosen, self._model.cached_model)

    def anywhere(self, what: str, is_so: bool) -> bool:
        """Whether something is so here, or in another process; all of them ask, and get the same answer."""
        return is_so if self._crew is None else self._crew.anywhere(what, is_so)

    def leave_processes(self, error: BaseException) -> None:
        """Tell the other processes that this one failed outside of a run, so that they do not wait for it."""
        if self._crew is not None:
            self._crew.left(error)

    def check_grid(self, grid: tuple[int, int, int]) -> None:
        """Refuse a video by its tokens along time, height and width, before anything is computed.

        Raises:
            InputError, BackendError: what a backend says of it.
        """
        check_grid([loaded.resolution.backend for loaded in self._loaded.values()], grid)

    def detach(self) -> None:
        """Leave the pipeline as it was, and let go of it; doing it twice is harmless.

        Raises:
            AttachError: a run is under way.
        """
        with self._lock:
            if self._attached is None:
                return
            self._refuse_while_under_way("detach when it has ended")
            self._undo.close()
            self._attached = self._policy = None
            self._loaded = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    @contextmanager
    def run(self, num_steps: int) -> Iterator[Callable[[], None]]:
        """A run whose loop is the caller's own: what calls the transformers within is served.

        A pipeline's own loop is a run by itself; outside of runs the transformers are bare diffusers'.

        Args:
            num_steps: denoising steps of the loop.

        Yields:
            A function to call after each step.

        Raises:
            AttachError: another run is under way, or the model has changed since it was attached.
            BackendError: attention goes around the backend.
        """
        self._run_started(num_steps, own_loop=True)
        done = 0

        def step_done() -> None:
            nonlocal done
            done += 1
            if done > num_steps:
                raise AttachError(
                    f"step_done() was called {done} times in a run of {num_steps} steps; give run() as many steps as "
                    "the loop has"
                )
            self._step_done(done)

        try:
            yield step_done
        except BaseException as error:
            self._run_ended(error)
            raise
        self._run_ended(None)

    @contextmanager
    def timed(self) -> Iterator[Callable[[], float]]:
        """Time every call of a kernel in runs that start while the context lasts.

        Yields what tells the seconds so far, which waits for the device.
        """
        self._clock = clock = KernelClock()
        self._communication = KernelClock()
        try:
            yield clock.seconds
        finally:
            self._clock = self._communication = None

    @contextmanager
    def following(self, generation: Generation) -> Iterator[None]:
        """Tell observers of the next run as this generation, which ends as the context does."""
        self._followed = observers = self.make_observers(generation)
        try:
            yield
        except BaseException as error:
            observers.failed(error)
            raise
        finally:
            self._followed = None
        observers.finished(self.receipt)

    @property
    def _model(self) -> AttachedModel:
        if self._attached is None:
            raise AttachError("the pipeline has been detached; attach it again")
        return self._attached

    def _refuse_while_under_way(self, remedy: str, allowed: CallSite | None = None) -> None:
        """Raise AttachError if a call of the pipeline is under way, in whichever thread, other than the allowed one.

        A run whose loop is gone was interrupted before it could say so; it is over.
        """
        if self._run is not None and not self._run.is_live():
            self._run_ended(AttachError("the run was broken off"))
        calls = [self._run.site] if self._run else [self._call] if self._call and self._call.is_live() else []
        for call in calls:
            if self._run is not None or call != allowed:
                raise AttachError(
                    f"this {type(self._model.pipe).__name__} is generating in {call}: it makes one video at a time; "
                    f"{remedy}"
                )

    def _call_started(self) -> None:
        """The pipeline is called; nothing has been done yet."""
        here = CallSite.of_pipeline()
        with self._lock:
            self._refuse_while_under_way("wait for its end, or give each thread a pipeline of its own", here)
            self._call, self._receipt = here, None

    def _run_started(self, num_steps: int, own_loop: bool = False) -> None:
        here = CallSite.of_pipeline()
        with self._lock:
            self._refuse_while_under_way("wait for its end, or give each thread a pipeline of its own", here)
            self._receipt = None
            self._model.check()
            observers = self._followed or self.make_observers(Generation(type(self._model.pipe).__name__))
            self._run = self._new_run(num_steps, observers, own_loop)
        try:
            observers.started(num_steps)
        except BaseException:
            self._run = None
            raise

    def _new_run(self, num_steps: int, observers: Observers, own_loop: bool) -> ActiveRun:
        crew, model = self._crew, self._model
        split = crew.start_run(model, self._policy, num_steps, self._communication, own_loop) if crew else None
        processes = crew.processes if crew else None
        return ActiveRun(
            model, self._loaded, self._policy, num_steps, observers, self._clock, own_loop, split, processes
        )

    def _step_done(self, done: int) -> None:
        if self._run is not None:
            self._run.step_done(done)

    def _run_ended(self, error: BaseException | None) -> None:
        run = self._run
        if run is None:
            return
        ending = Ending(run, self._model, self.requested, error, self._crew)
        self._run = self._call = None
        if (first := ending.first_problem()) is not None:
            run.observers.failed(first)
            if first is not error:
                raise first
            return
        self._receipt, self.run_started, self.run_ended = ending.receipt, run.started, ending.ended
        if self._followed is None:
            run.observers.finished(self.receipt)

    def _pass_started(
        self,
        number: int,
        stack: block_stack.Stack,
        bare: Callable[[object], BarePass],
        transformer: torch.nn.Module,
        branch: str,
        arguments: dict[str, Any],
    ) -> dict[str, Any] | None:
        run = self._run
        if run is None or not run.owns_pass(branch):
            stack.steered = False
            begin(bare(transformer))
            return None
        begun = run.start_pass(number, branch, arguments)
        stack.steered = begun is not None and (begun.gate is not None or begun.arrangement is not None)
        return run.computed_arguments

    def _forward(self, compute: Callable[[], Any]) -> Any:
        """A transformer's forward where processes share a run."""
        guidance = self._run.guidance if self._run is not None else None
        return compute() if guidance is None else guidance.forward(compute)

    def _pass_ended(self, transformer: torch.nn.Module, completed: bool) -> None:
        ended = current_pass()
        if ended is None or ended.transformer != id(transformer):
            return  # it was refused before it began
        if isinstance(ended, BarePass):
            end(ended)
        elif self._run is not None:
            self._run.end_pass(completed, ended)
