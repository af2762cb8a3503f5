"""A signal is what the model itself computes there, on every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastvideo_core import Signal, attach
from tests.support.models import run_to_latents
from tests.support.policies import PIPELINES, Scripted


def first_attention(transformer: Any) -> Any:
    blocks = transformer.blocks if hasattr(transformer, "blocks") else transformer.transformer_blocks
    return blocks[0].attn1 if hasattr(blocks[0], "attn1") else blocks[0].attn


TIME_MODULES = {
    "Wan 2.1": ("condition_embedder.time_embedder", "condition_embedder.time_proj"),
    "Wan 2.1 image": ("condition_embedder.time_embedder", "condition_embedder.time_proj"),
    "Wan 2.2 per token": ("condition_embedder.time_embedder", "condition_embedder.time_proj"),
    "Wan 2.2 image per token": ("condition_embedder.time_embedder", "condition_embedder.time_proj"),
    "LTX-Video": ("time_embed.emb", "time_embed.linear"),
    "CogVideoX": ("time_embedding", None),
    "HunyuanVideo": ("time_text_embed", None),
    "Mochi": ("time_embed", None),
}
"""Whose output TIME_EMBEDDING is, and TIME_PROJECTION: of a tuple the first."""


CASES = [
    *((kind, Signal.MODULATED_INPUT) for kind in TIME_MODULES),
    *((kind, Signal.TIME_EMBEDDING) for kind in TIME_MODULES),
    *((kind, Signal.TIME_PROJECTION) for kind, (_, projection) in TIME_MODULES.items() if projection),
]


@pytest.mark.parametrize(("kind", "signal"), CASES)
def test_a_signal_is_what_the_model_computes(kind: str, signal: Signal) -> None:
    build, options = PIPELINES[kind]
    pipe = build()
    seen: list[torch.Tensor] = []

    def entered(module: Any, args: Any, kwargs: Any) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).clone())

    def left(module: Any, args: Any, output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output).clone())

    if signal is Signal.MODULATED_INPUT:
        hook = first_attention(pipe.transformer).register_forward_pre_hook(entered, with_kwargs=True)
    else:
        name = TIME_MODULES[kind][signal is Signal.TIME_PROJECTION]
        assert name is not None
        hook = pipe.transformer.get_submodule(name).register_forward_hook(left)
    policy = Scripted("C", signal)
    with attach(pipe, cache=policy):
        run_to_latents(pipe, **options)
    hook.remove()
    assert len(seen) == len(policy.steps) > 0
    for real, step in zip(seen, policy.steps, strict=True):
        assert step.signal is not None
        parts = real.float().reshape(-1, step.signal.numel())  # one for each entry of the batch, or of all
        expected = step.signal.float().reshape(1, -1).expand_as(parts)
        torch.testing.assert_close(parts, expected, rtol=1e-5, atol=1e-6)
