"""A signal is what the model itself computes there, on every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastvideo_core import Signal, attach, relative_change
from tests.support import models
from tests.support.models import run_to_latents
from tests.support.policies import PIPELINES, Scripted


def first_attention(transformer: Any) -> Any:
    blocks = transformer.blocks if hasattr(transformer, "blocks") else transformer.transformer_blocks
    return blocks[0].attn1 if hasattr(blocks[0], "attn1") else blocks[0].attn


TIME_SIGNALS: dict[str, tuple[str, int, int | None]] = {
    "Wan 2.1": ("condition_embedder", 0, 1),
    "Wan 2.1 image": ("condition_embedder", 0, 1),
    "Wan 2.2 per token": ("condition_embedder", 0, 1),
    "Wan 2.2 image per token": ("condition_embedder", 0, 1),
    "LTX-Video": ("time_embed", 1, 0),
    "CogVideoX": ("transformer_blocks.0", 2, None),
    "HunyuanVideo": ("time_text_embed", 0, None),
    "Mochi": ("time_embed", 0, None),
}
"""The module that returns them as a tuple, and which of it TIME_EMBEDDING is, and TIME_PROJECTION.

CogVideoX has none such: there it is what enters the first block. The modules that embed are run by the core too.
"""

CASES = [
    *((kind, Signal.MODULATED_INPUT) for kind in TIME_SIGNALS),
    *((kind, Signal.TIME_EMBEDDING) for kind in TIME_SIGNALS),
    *((kind, Signal.TIME_PROJECTION) for kind, (*_, projection) in TIME_SIGNALS.items() if projection is not None),
]


@pytest.mark.parametrize(("kind", "signal"), CASES)
def test_a_signal_is_what_the_model_computes(kind: str, signal: Signal) -> None:
    build, options = PIPELINES[kind]
    pipe = build()
    seen: list[torch.Tensor] = []

    def entered(module: Any, args: Any, kwargs: Any) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).clone())

    if signal is Signal.MODULATED_INPUT:
        hook = first_attention(pipe.transformer).register_forward_pre_hook(entered, with_kwargs=True)
    else:
        name, embedding, projection = TIME_SIGNALS[kind]
        place = embedding if signal is Signal.TIME_EMBEDDING else projection
        assert place is not None
        module = pipe.transformer.get_submodule(name)
        if kind == "CogVideoX":
            hook = module.register_forward_pre_hook(
                lambda module, args, kwargs: seen.append([*args, *kwargs.values()][place].clone()), with_kwargs=True
            )
        else:
            hook = module.register_forward_hook(lambda module, args, output: seen.append(output[place].clone()))
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


@pytest.mark.parametrize(
    ("kind", "signal"),
    [
        ("Wan 2.1", Signal.TIME_PROJECTION),
        ("LTX-Video", Signal.TIME_PROJECTION),
        ("CogVideoX", Signal.TIME_EMBEDDING),
    ],
)
def test_embeddings_are_float32_also_of_weights_in_bfloat16(kind: str, signal: Signal) -> None:
    """Published coefficients are for those: the same weights, widened, give the same changes."""
    build, options = PIPELINES[kind]
    changes = []
    for dtype in (torch.bfloat16, torch.float32):
        pipe = build()
        pipe.transformer.to(torch.bfloat16).to(dtype)
        pipe.text_encoder.to(dtype)
        policy = Scripted("C", signal, ahead=True)
        with attach(pipe, cache=policy):
            pipe(**{**models.SIZE, "prompt": "cat", "output_type": "latent", **options})
        changes.append(policy.branches[0].changes)
    assert changes[0] is not None
    assert len(set(changes[0])) == len(changes[0])
    assert changes[0] == pytest.approx(changes[1], rel=1e-5)


class Packed(torch.nn.Parameter):
    """As quantized weights are, a class of its own."""


class ScaledByTheBatch(torch.nn.Linear):
    """As some kernels of 8 bits do: the numbers of a batch share a scale."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)
        self.weight = Packed(self.weight.data, requires_grad=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name
        scale = input.abs().amax() / 7
        return super().forward((input / scale).round() * scale)


def test_quantized_embeddings_are_those_of_one_step_at_a_time() -> None:
    """A pass embeds one timestep, so what is known ahead is computed one by one, too."""
    pipe = PIPELINES["Wan 2.1"][0]()
    embedder = pipe.transformer.condition_embedder
    torch.manual_seed(1)
    embedder.time_embedder.linear_2 = ScaledByTheBatch(embedder.time_embedder.linear_2.out_features)
    ahead, in_the_loop = Scripted("C", Signal.TIME_EMBEDDING, ahead=True), Scripted("C", Signal.TIME_EMBEDDING)
    for policy in (ahead, in_the_loop):
        with attach(pipe, cache=policy):
            run_to_latents(pipe, num_inference_steps=5)
    values = [step.signal for step in in_the_loop.steps[::2] if step.signal is not None]
    assert len(values) == 5
    changes = [relative_change(now, before) for now, before in zip(values[1:], values, strict=False)]
    assert ahead.branches[0].changes == pytest.approx((0.0, *changes), rel=1e-5)
