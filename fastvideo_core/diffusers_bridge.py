"""The only file that touches diffusers' private names: its table of attention functions and its processors' slot."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

import torch

from fastvideo_core.attention.backend import Role
from fastvideo_core.attention.router import RoutedFunction
from fastvideo_core.errors import AttachError, DiffusersVersionError

WORKING_VERSIONS = "0.40 to 0.42"

_numbers = itertools.count(1)
_SLOT = "_attention_backend"


def install(
    functions: dict[Role, RoutedFunction], attentions: Iterable[tuple[torch.nn.Module, Role]], undo: ExitStack
) -> None:
    """Make each attention module call the function of its role, until `undo` is closed.

    Raises:
        DiffusersVersionError: diffusers' internals are not as expected.
        AttachError: a module's processor does not go through diffusers' dispatch, or serves two roles.
    """
    registry, names = _internals()
    number = next(_numbers)
    members = {}
    for role, function in functions.items():
        members[role] = _member(names, f"fastvideo_{number}_{role.value.lower()}")
        undo.callback(_unregister, registry, members[role])
        registry.register(members[role])(function)
    roles: dict[int, Role] = {}
    for module, role in attentions:
        processor: Any = module.processor
        if not hasattr(processor, _SLOT):
            raise AttachError(
                f"the attention processor {type(processor).__name__} does not go through diffusers' attention "
                f"dispatch (it has no {_SLOT}), so no backend can be put on it; use diffusers' own processor"
            )
        if roles.setdefault(id(processor), role) is not role:
            raise AttachError(
                f"one {type(processor).__name__} object serves both {roles[id(processor)].value} and {role.value} "
                "attention; give each attention module a processor of its own"
            )
        _set(processor, _SLOT, members[role], undo)


def check() -> None:
    """Raise DiffusersVersionError if diffusers' internals are not as expected."""
    _internals()


def _internals() -> tuple[Any, Any]:
    """diffusers' registry and the enumeration of its keys, checked for all that is used of them."""
    try:
        from diffusers.models import attention_dispatch

        registry, names = attention_dispatch._AttentionBackendRegistry, attention_dispatch.AttentionBackendName
        tables = (registry._backends, registry._constraints, registry._supported_arg_names)
        parameters = inspect.signature(attention_dispatch.dispatch_attention_fn).parameters
        sound = all(isinstance(table, dict) for table in tables) and callable(registry.register)
        sound = sound and "backend" in parameters and issubclass(names, str)
    except (ImportError, AttributeError, TypeError) as error:
        raise DiffusersVersionError(_wrong_version(str(error))) from error
    if not sound:
        raise DiffusersVersionError(_wrong_version("its attention registry has another form"))
    return registry, names


def _wrong_version(problem: str) -> str:
    return (
        f"diffusers {version('diffusers')} is not as expected: {problem}; fastvideo-core works with diffusers "
        f"{WORKING_VERSIONS}: pip install 'diffusers>=0.40,<0.43'"
    )


def _member(names: Any, value: str) -> Any:
    """A key that dispatch takes for a member of the enumeration, without adding to the enumeration itself."""
    member = str.__new__(names, value)
    member._name_, member._value_ = value.upper(), value
    return member


def _unregister(registry: Any, member: Any) -> None:
    for table in (registry._backends, registry._constraints, registry._supported_arg_names):
        table.pop(member, None)


def _set(target: Any, name: str, value: Any, undo: ExitStack) -> None:
    """Set an instance attribute; undoing gives back the old value, or none of the instance's own."""
    if name in vars(target):
        undo.callback(setattr, target, name, vars(target)[name])
    else:
        undo.callback(vars(target).pop, name, None)
    vars(target)[name] = value


def watch(
    pipe: Any,
    transformers: Iterable[torch.nn.Module],
    wrap_progress: Callable[[Any], Any],
    before_forward: Callable[[torch.nn.Module, str, dict[str, Any]], None],
    undo: ExitStack,
) -> None:
    """Have the denoising loop and the forward passes of a pipeline observed, until `undo` is closed.

    Args:
        wrap_progress: takes the pipeline's progress bar, which its loop enters and leaves, and returns one to use.
        before_forward: called with the transformer, the guidance branch and the arguments by name.
    """
    progress_bar = pipe.progress_bar
    _set(pipe, "progress_bar", lambda *args, **kwargs: wrap_progress(progress_bar(*args, **kwargs)), undo)
    for transformer in transformers:
        branch = _watch_branch(transformer, undo)
        parameters = tuple(inspect.signature(type(transformer).forward).parameters)[1:]

        def hook(
            module: torch.nn.Module,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            branch: list[str] = branch,
            parameters: tuple[str, ...] = parameters,
        ) -> None:
            before_forward(module, branch[-1], dict(zip(parameters, args, strict=False)) | kwargs)

        undo.callback(transformer.register_forward_pre_hook(hook, with_kwargs=True).remove)


def execution_device(pipe: Any) -> torch.device:
    """Where the pipeline computes, which is not where its weights lie when they are offloaded."""
    device: torch.device = pipe._execution_device
    return device


def _watch_branch(transformer: Any, undo: ExitStack) -> list[str]:
    """Follow the names that a pipeline gives to its `cache_context`; the last entry is the one in force."""
    branch = [""]
    enter = getattr(transformer, "cache_context", None)
    if enter is not None:

        def cache_context(name: str, **kwargs: Any) -> ExitStack:
            stack = ExitStack()
            stack.enter_context(enter(name, **kwargs))
            branch.append(name)
            stack.callback(branch.pop)
            return stack

        _set(transformer, "cache_context", cache_context, undo)
    return branch
