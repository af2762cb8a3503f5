"""Attention as the model's processors call it: eager, or as one opaque operator in compiled code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fastvideo_core.contract.attention import Role
from fastvideo_core.engine.attention.masks import is_of_text, square_mask
from fastvideo_core.engine.attention.text_mask import TextMask
from fastvideo_core.engine.forward_pass import ForwardPass, current_pass


class Traced:
    """The block that torch.compile is tracing, where it traces a whole transformer: a constant of the graph.

    In compiled blocks it stays -1, as they all share one graph: which of them is running is found when it runs.
    """

    block = -1


TRACED = Traced()


def attend(
    role: Role,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | TextMask | None,
    scale: float | None,
) -> torch.Tensor:
    """Attention of the pass that is under way; of no pass, as bare diffusers computes it.

    Compiled code calls one operator for all layers, backends and pipelines: where the run stands is found when it runs,
    so nothing of it becomes part of a graph.

    Args:
        query, key, value: (batch, tokens, heads, head_dim).
        mask: as diffusers passes it, or what stands for it; None for none.
        scale: factor on the scores; None for 1/sqrt(head_dim).
    """
    if isinstance(mask, TextMask):
        mask = mask.text
    if torch.compiler.is_compiling():
        result: torch.Tensor = _opaque(query, key, value, mask, scale, role.value, TRACED.block)
        return result
    current = current_pass()
    if isinstance(current, ForwardPass):
        return current.attend(role, query, key, value, mask, scale)
    return bare_attention(role, query, key, value, mask, scale)


# CUDA graphs would freeze what the operator does in Python: the step, the choice of a kernel, the receipt.
@torch.library.custom_op("fastvideo_core::attention", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def _opaque(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    role: str,
    block: int,
) -> torch.Tensor:
    current = current_pass()
    if isinstance(current, ForwardPass):
        result = current.attend(Role(role), query, key, value, mask, scale, block)
    else:
        if mask is not None and is_of_text(mask, key.shape[1]):
            mask = square_mask(mask, key.shape[1])
        result = bare_attention(Role(role), query, key, value, mask, scale, block)
    # The graph was told of a new tensor in plain memory; a kernel may give back a view, or what it was given.
    own = all(result.untyped_storage().data_ptr() != one.untyped_storage().data_ptr() for one in (query, key, value))
    return result.contiguous() if own else result.clone(memory_format=torch.contiguous_format)


@_opaque.register_fake
def _(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    role: str,
    block: int,
) -> torch.Tensor:
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


def bare_attention(
    role: Role,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    block: int = -1,
    options: Mapping[str, Any] | None = None,
) -> torch.Tensor:
    """Attention that belongs to no run, as bare diffusers would compute it."""
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    current = current_pass()
    slot = None if current is None or isinstance(current, ForwardPass) else current.slot(role, block)
    grouped = query.shape[2] != key.shape[2]
    result: torch.Tensor = dispatch_attention_fn(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped, backend=slot, **(options or {})
    )
    return result
