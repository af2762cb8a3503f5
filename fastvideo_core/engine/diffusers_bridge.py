"""The only file that touches diffusers' private names: its table of attention functions and its processors' slot."""

from __future__ import annotations

import functools
import inspect
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fastvideo_core.contract.attention import Role
from fastvideo_core.contract.model import AttentionSite
from fastvideo_core.engine.attention.operator import attend, bare_attention
from fastvideo_core.engine.attention.text_mask import without_square_mask
from fastvideo_core.engine.copies import ABSENT, copied_as, without
from fastvideo_core.engine.forward_pass import ForwardPass, current_pass
from fastvideo_core.engine.machine import with_index
from fastvideo_core.engine.watch import set_attribute
from fastvideo_core.errors import AttachError, BackendMismatchError, DiffusersVersionError

WORKING_VERSIONS = "0.40 to 0.42"

_SLOT = "_attention_backend"
_CALL_TORCH = frozenset(
    {
        "AllegroAttnProcessor2_0",
        "CogVideoXAttnProcessor2_0",
        "CosmosAttnProcessor2_0",
        "CosmosAttnProcessor2_5",
        "EasyAnimateAttnProcessor2_0",
        "MochiAttnProcessor2_0",
    }
)
"""Processors that call torch's attention themselves, or a dispatch that does and is told of no backend."""
_MAKE_SQUARE_MASKS = frozenset({"HunyuanVideo15AttnProcessor2_0"})
"""Processors that make a mask of tokens x tokens out of the mask of the text."""

_lock = threading.Lock()
_users = 0
"""How many attachments share the entries in diffusers' registry."""


def install(sites: Iterable[AttentionSite], undo: ExitStack) -> dict[tuple[Role, int], Any]:
    """Bring the attention of one transformer's sites to the pass that is under way, until `undo` is closed.

    Returns:
        For each role and layer, the backend of diffusers that its processor had; None: whichever is active.

    Raises:
        DiffusersVersionError: diffusers' internals are not as expected.
        AttachError: a module's processor does not go through diffusers' dispatch, serves two roles, or serves another
            transformer that is attached.
    """
    keys = _share_registration(undo)
    known: dict[int, tuple[Role, Any]] = {}
    slots: dict[tuple[Role, int], Any] = {}
    layers: Counter[Role] = Counter()
    for site in sites:
        place = (site.role, layers[site.role])
        layers[site.role] += 1
        processor: Any = site.module.processor
        if type(processor).__name__ in _CALL_TORCH:
            slots[place] = _internals()[1].NATIVE
            _set_processor(site.module, _routed(processor.__class__, site.role)(), undo)
            continue
        if type(processor).__name__ in _MAKE_SQUARE_MASKS:
            _check_processor(processor, keys)
            slots[place] = getattr(processor, _SLOT)
            _set_processor(site.module, without_square_mask(processor), undo)
            setattr(site.module.processor, _SLOT, keys[site.role])
            continue
        if id(processor) not in known:
            _check_processor(processor, keys)
            known[id(processor)] = site.role, getattr(processor, _SLOT)
            was = vars(processor).get(_SLOT, ABSENT)
            copied_as(processor, partial(without, processor, {_SLOT: was}), undo)
            set_attribute(processor, _SLOT, keys[site.role], undo)
        role, slots[place] = known[id(processor)]
        if role is not site.role:
            raise AttachError(
                f"one {type(processor).__name__} object serves both {role.value} and {site.role.value} attention; "
                "give each attention module a processor of its own"
            )
    return slots


def _check_processor(processor: Any, keys: Mapping[Role, Any]) -> None:
    kind = type(processor).__name__
    if not hasattr(processor, _SLOT):
        raise AttachError(
            f"the attention processor {kind} does not go through diffusers' attention dispatch (it has no {_SLOT}), "
            "so no backend can be put on it; use diffusers' own processor"
        )
    if getattr(processor, "_parallel_config", None) is not None:
        raise AttachError(
            f"diffusers' own parallelism is enabled on this transformer ({kind} has a _parallel_config): it knows "
            "neither policies nor the orders that backends want. Load the model without enable_parallelism, and write "
            "attach(pipe, parallel={'sequence': N}), or parallel=\"auto\", instead"
        )
    if any(getattr(processor, _SLOT) is key for key in keys.values()):
        raise AttachError(f"one {kind} object serves two transformers that are attached; give each one of its own")


def bypassed(sites: Iterable[AttentionSite]) -> Any:
    """The first module whose processor no longer goes where `install` led it; None if all do."""
    names = _internals()[1]
    for site in sites:
        processor: Any = site.module.processor
        ours = getattr(type(processor), "_fastvideo_role", None) is site.role
        if not ours and getattr(processor, _SLOT, None) is not _key(names, site.role):
            return site.module
    return None


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
        if not dropout_p and not is_causal and _parallel_config is None:
            return attend(role, query, key, value, attn_mask, scale)
        if not torch.compiler.is_compiling() and not isinstance(current_pass(), ForwardPass):
            options = {"dropout_p": dropout_p, "is_causal": is_causal, "parallel_config": _parallel_config}
            return bare_attention(role, query, key, value, attn_mask, scale, options=options)
        raise BackendMismatchError(
            f"{role.value} attention was called with dropout_p={dropout_p}, is_causal={is_causal}, "
            f"parallel_config={_parallel_config}; fastvideo-core serves full attention at inference, on one device"
        )

    return call


class _Intercept(TorchFunctionMode):
    """Brings calls of torch's attention to the pass that is under way, heads first as torch has them."""

    def __init__(self, role: Role) -> None:
        super().__init__()
        self._attend = _dispatched(role)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        first = dict(zip(("query", "key", "value"), args, strict=False))
        given = {**first, **kwargs}
        heads_second = {name: given[name].transpose(1, 2) for name in ("query", "key", "value")}
        return self._attend(**{**given, **heads_second}).transpose(1, 2)


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

    def as_it_was(self: Any, protocol: Any) -> Any:
        return processor, (), vars(self)

    own = {"__call__": call, "__reduce_ex__": as_it_was, "_fastvideo_role": role}
    return type(processor.__name__, (processor,), own)


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


def blocks_can_be_compiled(transformer: str) -> bool:
    """Whether diffusers knows the repeated blocks of a class of transformers."""
    import diffusers

    return bool(getattr(getattr(diffusers, transformer, None), "_repeated_blocks", None))


def is_compiled(transformer: Any) -> bool:
    """Whether any of the transformer runs compiled, in whichever of torch's ways."""
    return any(
        module._compiled_call_impl is not None
        or hasattr(module, "_orig_mod")
        or hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
        for module in transformer.modules()
    )


def execution_device(pipe: Any) -> torch.device:
    """Where the pipeline computes, with its index; weights may lie elsewhere when they are offloaded."""
    return with_index(pipe._execution_device)
