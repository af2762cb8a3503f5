"""The only file that touches diffusers' private names: its table of attention functions and its processors' slot."""

from __future__ import annotations

import functools
import inspect
import itertools
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fastvideo_core.contract.attention import Role
from fastvideo_core.contract.model import AttentionSite
from fastvideo_core.engine.attention.router import attend
from fastvideo_core.errors import AttachError, BackendMismatchError, DiffusersVersionError

WORKING_VERSIONS = "0.40 to 0.42"

_SLOT = "_attention_backend"
_CALL_TORCH = frozenset({"CogVideoXAttnProcessor2_0", "MochiAttnProcessor2_0"})
"""Processors that call torch's attention themselves."""

_lock = threading.Lock()
_users = 0
"""How many attachments share the entries in diffusers' registry."""


def install(sites: Iterable[AttentionSite], undo: ExitStack) -> None:
    """Bring the attention of each site to the router of the forward pass that it belongs to, until `undo` is closed.

    Raises:
        DiffusersVersionError: diffusers' internals are not as expected.
        AttachError: a module's processor does not go through diffusers' dispatch, or serves two roles.
    """
    keys = _share_registration(undo)
    roles: dict[int, Role] = {}
    for site in sites:
        processor: Any = site.module.processor
        if type(processor).__name__ in _CALL_TORCH:
            _set_processor(site.module, _routed(processor.__class__, site.role)(), undo)
            continue
        if not hasattr(processor, _SLOT):
            raise AttachError(
                f"the attention processor {type(processor).__name__} does not go through diffusers' attention "
                f"dispatch (it has no {_SLOT}), so no backend can be put on it; use diffusers' own processor"
            )
        if roles.setdefault(id(processor), site.role) is not site.role:
            raise AttachError(
                f"one {type(processor).__name__} object serves both {roles[id(processor)].value} and "
                f"{site.role.value} attention; give each attention module a processor of its own"
            )
        _set(processor, _SLOT, keys[site.role], undo)


def _share_registration(undo: ExitStack) -> dict[Role, Any]:
    """A key per role in diffusers' registry, there as long as any pipeline is attached.

    All attachments share them: compiled code depends on the size of the registry, on the keys and on the functions, and
    would be compiled anew, until torch gives up, whenever a pipeline comes or goes.
    """
    global _users
    registry, names = _internals()
    keys = {role: _key(names, role) for role in Role}
    with _lock:
        if _users == 0:
            for role, key in keys.items():
                registry.register(key)(_dispatched(role))
        _users += 1
    undo.callback(_leave_registration, registry, keys.values())
    return keys


def _leave_registration(registry: Any, keys: Iterable[Any]) -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            for table, key in itertools.product(_tables(registry), keys):
                table.pop(key, None)


@functools.cache
def _dispatched(role: Role) -> Callable[..., torch.Tensor]:
    """The function that diffusers calls for a role, with the arguments that its dispatch passes."""

    def call(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        _parallel_config: Any = None,
    ) -> torch.Tensor:
        if dropout_p or is_causal or _parallel_config is not None:
            raise BackendMismatchError(
                f"{role.value} attention was called with dropout_p={dropout_p}, is_causal={is_causal}, "
                f"parallel_config={_parallel_config}; fastvideo-core serves full attention at inference, on one device"
            )
        return attend(role, query, key, value, attn_mask, scale)

    return call


class _Intercept(TorchFunctionMode):
    """Brings calls of torch's attention to the router, heads first as torch has them."""

    def __init__(self, role: Role) -> None:
        super().__init__()
        self._attend = _dispatched(role)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = (tensor.transpose(1, 2) for tensor in args)
        return self._attend(query, key, value, **kwargs).transpose(1, 2)


@functools.cache
def _routed(processor: Any, role: Role) -> Any:
    """A processor of that class whose calls of torch's attention are intercepted."""
    function: Any = vars(processor)["__call__"]
    intercept = _Intercept(role)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with intercept:
            return function(self, *args, **kwargs)

    # diffusers looks at the parameters to see what the processor takes.
    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return type(processor.__name__, (processor,), {"__call__": call})


def _set_processor(module: Any, processor: Any, undo: ExitStack) -> None:
    undo.callback(setattr, module, "processor", module.processor)
    module.processor = processor


def check() -> None:
    """Raise DiffusersVersionError if diffusers' internals are not as expected."""
    _internals()


def _internals() -> tuple[Any, Any]:
    """diffusers' registry and the enumeration of its keys, checked for all that is used of them."""
    try:
        from diffusers.models import attention_dispatch

        registry, names = attention_dispatch._AttentionBackendRegistry, attention_dispatch.AttentionBackendName
        parameters = inspect.signature(attention_dispatch.dispatch_attention_fn).parameters
        sound = all(isinstance(table, dict) for table in _tables(registry)) and callable(registry.register)
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


@functools.cache
def _key(names: Any, role: Role) -> Any:
    """A key that dispatch takes for a member of the enumeration, without adding to the enumeration itself."""
    value = f"fastvideo_{role.value.lower()}"
    key = str.__new__(names, value)
    key._name_, key._value_ = value.upper(), value
    return key


def _tables(registry: Any) -> tuple[Any, ...]:
    return registry._backends, registry._constraints, registry._supported_arg_names


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
    after_forward: Callable[[], None],
    undo: ExitStack,
) -> None:
    """Have the denoising loop and the forward passes of a pipeline observed, until `undo` is closed.

    Args:
        wrap_progress: takes the pipeline's progress bar, which its loop enters and leaves, and returns one to use.
        before_forward: called with the transformer, the guidance branch and the arguments by name.
        after_forward: called after each forward pass, also one that raised.
    """
    progress_bar = pipe.progress_bar
    _set(pipe, "progress_bar", lambda *args, **kwargs: wrap_progress(progress_bar(*args, **kwargs)), undo)
    for transformer in transformers:
        branch = _watch_branch(transformer, undo)
        parameters = tuple(inspect.signature(type(transformer).forward).parameters)[1:]

        @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch leaves it untyped
        def before(
            module: torch.nn.Module,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            branch: list[str] = branch,
            parameters: tuple[str, ...] = parameters,
        ) -> None:
            before_forward(module, branch[-1], dict(zip(parameters, args, strict=False)) | kwargs)

        @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch leaves it untyped
        def after(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
            after_forward()

        undo.callback(transformer.register_forward_pre_hook(before, with_kwargs=True).remove)
        undo.callback(transformer.register_forward_hook(after, always_call=True).remove)


def blocks_can_be_compiled(transformer: str) -> bool:
    """Whether diffusers knows the repeated blocks of a class of transformers."""
    import diffusers

    return bool(getattr(getattr(diffusers, transformer), "_repeated_blocks", None))


def blocks_are_compiled(transformer: Any) -> bool:
    """Whether every repeated block of the transformer runs compiled."""
    kinds = getattr(transformer, "_repeated_blocks", None) or ()
    blocks = [module for module in transformer.modules() if type(module).__name__ in kinds]
    return bool(blocks) and all(block._compiled_call_impl is not None for block in blocks)


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
