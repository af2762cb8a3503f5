"""Know when a pipeline is called, when its denoising loop starts and ends, and when each pass of a transformer does.

diffusers tells nobody, so what its pipelines do anyway is overheard, each on the instance alone:

- `check_inputs`, the first thing a call does, before it touches the scheduler: a second call beside it is refused here;
- `progress_bar`, which the loop enters, or goes through, and leaves however it ends: what is in between is a run;
- the transformer's `cache_context`, which names the guidance branch;
- the transformer's forward hooks, which carry the arguments of a pass and run outside of compiled code.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import torch

from fastvideo_core.engine.copies import ABSENT, copied_as, without
from fastvideo_core.errors import AttachError

_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def watch_pipeline(
    pipe: Any,
    call_started: Callable[[], None],
    run_started: Callable[[int], None],
    step_done: Callable[[int], None],
    run_ended: Callable[[BaseException | None], None],
    undo: ExitStack,
    latents_made: Callable[[Any], Any] | None = None,
) -> None:
    """Have the calls of a pipeline and its denoising loops observed, until `undo` is closed.

    Args:
        call_started: called before anything else is done; what it raises ends the call.
        run_started: called with the number of steps when the loop starts; what it raises ends the call.
        step_done: called with the number of steps that are done.
        run_ended: called with the exception that ended the loop, if one did.
        latents_made: called with what `prepare_latents` returns; its result is used instead.
    """
    bar = pipe.progress_bar

    def progress_bar(*args: Any, **kwargs: Any) -> DenoisingLoop:
        return DenoisingLoop(pipe, bar(*args, **kwargs), run_started, step_done, run_ended)

    changed = {"progress_bar": progress_bar}
    if (check := getattr(pipe, "check_inputs", None)) is not None:

        def check_inputs(*args: Any, **kwargs: Any) -> Any:
            call_started()
            return check(*args, **kwargs)

        changed["check_inputs"] = check_inputs
    if latents_made is not None and (prepare := getattr(pipe, "prepare_latents", None)) is not None:
        changed["prepare_latents"] = _followed(prepare, latents_made)
    before = {name: vars(pipe).get(name, ABSENT) for name in changed}
    copied_as(pipe, partial(without, pipe, before), undo)
    for name, value in changed.items():
        set_attribute(pipe, name, value, undo)


def _followed(function: Callable[..., Any], then: Callable[[Any], Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return then(function(*args, **kwargs))

    return call


class DenoisingLoop:
    """Stands in for the progress bar of a denoising loop: a run is what happens between its entry and its exit."""

    def __init__(
        self,
        pipe: Any,
        bar: Any,
        started: Callable[[int], None],
        step_done: Callable[[int], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._pipe, self._bar, self._done, self._entered = pipe, bar, 0, False
        self._started, self._step_done, self._ended = started, step_done, ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        try:
            self._started(int(self._bar.total))
        except BaseException as error:
            self._bar.__exit__(type(error), error, error.__traceback__)
            raise
        self._entered = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._bar.__exit__(kind, error, trace)
        self._ended(error)

    def __iter__(self) -> Iterator[Any]:
        """For a loop over the bar itself, a step for each item."""
        with self:
            try:
                for item in self._bar:
                    yield item
                    self._count(1)
            except GeneratorExit:  # the loop was left: because the user asked for that, or by an error unseen here
                if not getattr(self._pipe, "interrupt", False):
                    raise

    def update(self, count: int = 1) -> None:
        if not self._entered:
            raise AttachError(
                f"this {type(self._pipe).__name__} neither enters its progress bar nor goes through it, by which a run "
                "is known, so nothing was put on what it computes; run it without fastvideo-core"
            )
        self._bar.update(count)
        self._count(count)

    def _count(self, count: int) -> None:
        self._done += count
        self._step_done(self._done)


def watch_transformer(
    transformer: torch.nn.Module,
    pass_started: Callable[[torch.nn.Module, str, dict[str, Any]], dict[str, Any] | None],
    pass_ended: Callable[[torch.nn.Module, bool], None],
    undo: ExitStack,
    around: Callable[[Callable[[], Any]], Any] | None = None,
) -> None:
    """Have the passes of a transformer observed, until `undo` is closed.

    Args:
        pass_started: called with the transformer, the guidance branch ("" if none is named) and the arguments by name;
            returns those to use instead, or None.
        pass_ended: called with the transformer and whether the pass came to its end; not after a KeyboardInterrupt.
        around: called in the place of its forward, with what computes it.
    """
    _forget_registry(transformer, undo)
    branch = _follow_branches(transformer, undo)
    parameters = tuple(inspect.signature(type(transformer).forward).parameters)[1:]

    def before(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if module is not transformer:
            return None
        changed = pass_started(module, branch(), dict(zip(parameters, args, strict=False)) | kwargs)
        return None if changed is None else ((), changed)

    def after(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if module is transformer:
            pass_ended(module, output is not None)

    handles = (
        transformer.register_forward_pre_hook(_untraced(before), with_kwargs=True),
        transformer.register_forward_hook(_untraced(after), always_call=True),
    )
    for handle in handles:
        undo.callback(handle.remove)
    ours = {handle.id for handle in handles}
    forward = vars(transformer).get("forward", ABSENT)
    copied_as(transformer, lambda: _without_hooks(transformer, ours, forward), undo)
    if around is not None:
        set_attribute(transformer, "forward", _wrapped(transformer.forward, around), undo)


def _wrapped(forward: Callable[..., Any], around: Callable[[Callable[[], Any]], Any]) -> Callable[..., Any]:
    # What is compiled as a whole is compiled within it: what it decides is nothing to trace.
    @torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator,no-untyped-call]  # torch leaves it untyped
    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        return around(partial(forward, *args, **kwargs))

    result: Callable[..., Any] = call
    return result


def _untraced(function: Any) -> Any:
    return torch.compiler.disable(function)  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _without_hooks(transformer: torch.nn.Module, ours: set[int], forward: Any) -> dict[str, Any]:
    others = {
        name: OrderedDict((number, hook) for number, hook in getattr(transformer, name).items() if number not in ours)
        for name in _HOOKS
    }
    return without(transformer, {"cache_context": ABSENT, "forward": forward, **others})


def _forget_registry(transformer: Any, undo: ExitStack) -> None:
    """Take off the registry of hooks that diffusers puts on a transformer in its first run, if it stayed empty.

    The two refer to one another, so that only the collector would free the model.
    """
    name = "_diffusers_hook"
    if name in vars(transformer):
        return

    def forget() -> None:
        if name in vars(transformer) and not vars(transformer)[name].hooks:
            del vars(transformer)[name]

    undo.callback(forget)


def _follow_branches(transformer: Any, undo: ExitStack) -> Callable[[], str]:
    """What tells the name in force in this thread of those that a pipeline gives to `cache_context`."""
    local = threading.local()
    enter = getattr(transformer, "cache_context", None)
    if enter is not None:

        def cache_context(name: str, **kwargs: Any) -> ExitStack:
            stack = ExitStack()
            stack.enter_context(enter(name, **kwargs))
            stack.callback(setattr, local, "name", getattr(local, "name", ""))
            local.name = name
            return stack

        set_attribute(transformer, "cache_context", cache_context, undo)
    return lambda: getattr(local, "name", "")


def set_attribute(target: Any, name: str, value: Any, undo: ExitStack) -> None:
    """Set an instance attribute; undoing gives back the old value, or none of the instance's own."""
    if name in vars(target):
        undo.callback(vars(target).__setitem__, name, vars(target)[name])
    else:
        undo.callback(vars(target).pop, name, None)
    vars(target)[name] = value
