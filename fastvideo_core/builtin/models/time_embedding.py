"""Embeddings of timesteps in float32, whatever the weights are stored in and wherever they lie.

Published coefficients of TeaCache are for embeddings in float32; rounding them to bfloat16 adds changes of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_ROWS = 4096


def linear(layer: Any, inputs: torch.Tensor) -> torch.Tensor:
    """A linear layer in float32, some rows of its weights at a time, on the weights' own device."""
    import torch

    inputs = inputs.to(layer.weight.device)
    result = torch.cat([inputs @ rows.float().mT for rows in layer.weight.split(_ROWS)], dim=-1)
    return result if layer.bias is None else result + layer.bias.float()


def embed(sinusoids: Any, embedder: Any, timesteps: torch.Tensor) -> torch.Tensor:
    """The embedding of timesteps, (n,), by diffusers' `Timesteps` and `TimestepEmbedding`: (n, channels)."""
    hidden = linear(embedder.linear_1, sinusoids(timesteps.float()).float())
    return linear(embedder.linear_2, embedder.act(hidden))
