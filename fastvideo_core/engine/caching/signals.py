"""What a policy looks at, read by running the model's own modules: with their hooks, adapters and quantization.

Published coefficients of TeaCache are for embeddings of the timestep in float32, and rounding these to bfloat16 adds
changes of its own. So what embeds the timestep runs in float32 where its weights are plain numbers, and as the model
runs it where they are quantized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from fastvideo_core.engine.layers import uncompiled

_ROWS = 4096
"""Rows of a weight that are widened at a time: the largest is a gigabyte as a whole."""


class _InFloat32(TorchFunctionMode):
    """Linear layers compute in float32, whatever their weights are stored in."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _wide_linear(*args, **(kwargs or {})) if func is linear else func(*args, **(kwargs or {}))


def _wide_linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    result = torch.cat([inputs.float() @ rows.float().mT for rows in torch.split(weight, _ROWS)], dim=-1)
    return result if bias is None else result + bias.float()


def _is_plain(module: torch.nn.Module) -> bool:
    """Whether its weights are numbers as they are; quantized ones have classes of their own."""
    return all(type(one) is torch.nn.Parameter and one.is_floating_point() for one in module.parameters())


def time_values(
    transformer: Any, modules: Sequence[str], timesteps: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """A signal that depends on the timestep alone.

    Args:
        modules: names of the transformer's submodules that make it, each from what the one before it made.
        timesteps: (n,), where the model computes.
        dtype: what the model computes in; quantized weights are run in it.

    Returns:
        (n, channels) in float32.
    """
    value = timesteps.float()
    with torch.no_grad():
        for name in modules:
            value = _run(transformer.get_submodule(name), value, dtype)
    return value.float()


def _run(module: Any, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    result: torch.Tensor
    if _is_plain(module):
        with _InFloat32():
            result = module(value.float())
            return result
    # A batch is quantized as a whole by some kernels, so that its rows would depend on each other.
    result = torch.cat([module(row.to(dtype)) for row in torch.split(value, 1)])
    return result


def time_changes(
    transformer: Any,
    modules: Sequence[str],
    timesteps: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    shares: Mapping[float, float] | None = None,
) -> tuple[float, ...]:
    """The relative L1 change of a time signal from each timestep to the next; 0.0 for the first. One read in all.

    Args:
        modules, timesteps, dtype: as `time_values` takes them.
        shares: which fractions of the timestep the tokens have, and how many of them, where they differ.
    """
    difference = before = torch.zeros((), device=timesteps.device)
    for fraction, share in (shares or {1.0: 1.0}).items():
        values = time_values(transformer, modules, timesteps * fraction, dtype)
        difference = difference.to(values.device) + share * (values[1:] - values[:-1]).abs().mean(dim=-1)
        before = before.to(values.device) + share * values[:-1].abs().mean(dim=-1)
    return (0.0, *(difference / before).tolist())


class _Reached(BaseException):
    """The first attention of a block was called; no error, and nothing on its way is to take it for one."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.hidden = hidden


def modulated_input(block: Any, args: tuple[Any, ...], attention: torch.nn.Module) -> torch.Tensor:
    """What a block's attention is called with: the block is run up to there, eagerly, and no further.

    Raises:
        RuntimeError: the block did not call it.
    """

    def reached(module: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        raise _Reached(inputs[0] if inputs else named["hidden_states"])

    handle = attention.register_forward_pre_hook(reached, prepend=True, with_kwargs=True)
    try:
        with torch.no_grad():
            # What a compiled block was compiled from: its graph has no place to stop at.
            uncompiled(block)._call_impl(*args)
    except _Reached as stop:
        return stop.hidden
    finally:
        handle.remove()
    raise RuntimeError(f"{type(block).__name__} did not call its {type(attention).__name__}")
