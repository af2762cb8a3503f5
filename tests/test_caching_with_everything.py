"""Caching policies on models whose weights are offloaded, cast, quantized, adapted or compiled, and on batches.

Each is held to the same model without a policy where nothing is skipped, and where something is, to a model whose
weights are the same numbers kept plainly: by what the package that changed them itself makes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import attach
from tests.support import models, weights
from tests.support.cached import CASES, STEPS
from tests.support.models import run_to_latents as run

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Way:
    """A way to keep weights, and how far from those of plain numbers what it computes may be."""

    change: Callable[[Any, Path], None]
    tolerance: float = 1e-5


WAYS = {
    "sequential offload": Way(weights.offload_layers),
    "offload by leaf": Way(weights.offload_groups("leaf_level")),
    "offload by block": Way(weights.offload_groups("block_level")),
    "FP8": Way(weights.cast_layers),
    "torchao int8": Way(weights.quantize_torchao),
    "bitsandbytes int8": Way(weights.quantize_bitsandbytes_int8, tolerance=0.2),  # activations are rounded too
    "bitsandbytes nf4": Way(weights.quantize_nf4),
    "GGUF": Way(weights.quantize_gguf, tolerance=1e-3),  # its scales are float16
    "LoRA": Way(weights.add_adapter, tolerance=1e-4),
    "LoRA fused": Way(weights.fuse_adapter),
    "LoRA removed": Way(weights.remove_adapter),
    "compiled blocks": Way(weights.compile_blocks),
}


def generate(pipe: Any, options: dict[str, Any], steps: int = STEPS) -> Any:
    """Latents, without guidance: how weights are kept is the same in both branches; batches below have both."""
    return run(pipe, num_inference_steps=steps, guidance_scale=1.0, **options)


PLAIN = ("offload", "compiled blocks", "LoRA removed")
"""Ways that leave the numbers as they are."""

NO_SIGNAL = {"MAGCACHE": "before attaching", "TAYLORSEER": "after attaching"}
"""Policies that read nothing of the model: one reuses and the other forecasts, and each is tried with one order."""

TRIED = [
    (way, order, case)
    for way, case, order in product(WAYS, CASES, ("before attaching", "after attaching"))
    if NO_SIGNAL.get(case, order) == order
]


@pytest.mark.parametrize(("way", "order", "case"), TRIED)
def test_a_policy(way: str, order: str, case: str, tmp_path: Path) -> None:
    pipe, options = CASES[case].model()
    if order == "before attaching":
        WAYS[way].change(pipe.transformer, tmp_path)
    with attach(pipe) as fv:
        if order == "after attaching":
            WAYS[way].change(pipe.transformer, tmp_path)
        bare = generate(pipe, options, steps=3)
        fv.use_cache(CASES[case].never())
        assert np.array_equal(generate(pipe, options, steps=3), bare)
        assert set(fv.receipt.steps_skipped.values()) == {0}
        fv.use_cache(CASES[case].skips())
        made = generate(pipe, options)
        assert fv.receipt.cache is not None
        schedule = fv.receipt.cache.schedule

    expected, of_plain = with_plain_numbers("" if any(one in way for one in PLAIN) else way, case)
    assert of_plain == schedule
    assert set("".join(schedule.values())) in ({"C", "R"}, {"C", "F"})
    np.testing.assert_allclose(made, expected, atol=WAYS[way].tolerance * np.abs(expected).max())


@cache
def with_plain_numbers(way: str, case: str) -> tuple[Any, dict[str, str]]:
    """Latents and schedule of the case on a model whose weights are those of the way, kept plainly; "" changes none."""
    plain, options = CASES[case].model()
    if way:
        with TemporaryDirectory() as folder:
            plain.transformer.load_state_dict(numbers(way, case, Path(folder)))
    with attach(plain, cache=CASES[case].skips()) as fv:
        expected = generate(plain, options)
        assert fv.receipt.cache is not None
        return expected, fv.receipt.cache.schedule


def numbers(way: str, case: str, folder: Path) -> dict[str, torch.Tensor]:
    """What the weights are, as numbers, of the case's transformer changed in that way."""
    transformer = CASES[case].model()[0].transformer
    WAYS[way].change(transformer, folder)
    if way == "LoRA":
        transformer.fuse_lora()
    found = weights.plain_weights(transformer)
    return {name.replace(".base_layer", ""): value for name, value in found.items() if ".lora_" not in name}


DOUBLED = [(doubled, case) for doubled in ("prompts", "videos a prompt") for case in CASES]
DOUBLED.remove(("videos a prompt", "TEACACHE by TIME_EMBEDDING"))  # CogVideoXPipeline makes one, whatever is asked


@pytest.mark.parametrize(("doubled", "case"), DOUBLED)
def test_a_policy_on_a_batch(doubled: str, case: str) -> None:
    """Two alike are decided as one is, and come out as one does."""
    pipe, options = CASES[case].model()
    if doubled == "prompts":
        two: dict[str, Any] = {"prompt": ["cat", "cat"], "negative_prompt": ["dog", "dog"]}
    else:
        two = {"num_videos_per_prompt": 2, "negative_prompt": "dog"}
    options = {**options, "negative_prompt": "dog", "num_inference_steps": STEPS}
    noise = torch.randn(first_latents(pipe, options).shape, generator=torch.Generator().manual_seed(2))
    with attach(pipe, cache=CASES[case].skips()) as fv:
        alone = batch(pipe, {**options, "latents": noise})
        assert fv.receipt.cache is not None
        schedule = fv.receipt.cache.schedule
        both = batch(pipe, {**options, **two, "latents": noise.repeat_interleave(2, 0)})
        assert fv.receipt.cache.schedule == schedule
        fv.use_cache(CASES[case].never())
        computed = batch(pipe, {**options, **two, "latents": noise.repeat_interleave(2, 0)})
    assert set("".join(schedule.values())) in ({"C", "R"}, {"C", "F"})
    assert np.array_equal(computed, batch(pipe, {**options, **two, "latents": noise.repeat_interleave(2, 0)}))
    np.testing.assert_allclose(both, np.concatenate([alone, alone]), atol=1e-5 * np.abs(alone).max())


def batch(pipe: Any, options: dict[str, Any]) -> Any:
    """All latents of a call, (videos, …)."""
    arguments = {**models.SIZE, "prompt": "cat", "guidance_scale": 3.0, "output_type": "latent", **options}
    return pipe(generator=torch.Generator().manual_seed(7), **arguments).frames.numpy()


def first_latents(pipe: Any, options: dict[str, Any]) -> torch.Tensor:
    """What a call begins with."""
    seen: list[torch.Tensor] = []
    prepare = pipe.prepare_latents

    def prepare_latents(*args: Any, **kwargs: Any) -> Any:
        made = prepare(*args, **kwargs)
        seen.append(made)
        return made

    pipe.prepare_latents = prepare_latents
    batch(pipe, {**options, "num_inference_steps": 2})
    del pipe.prepare_latents
    return seen[0]
