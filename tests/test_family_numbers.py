"""What a backend is told of a model is what the model's own modules have: heads, layers, tokens, text."""

from __future__ import annotations

import inspect
import math
from typing import Any

import diffusers
import pytest
import torch

from fastvideo_core import Role, Run, attach
from fastvideo_core.engine.caching.run_caching import experts_timesteps
from tests.support.backends import Recorder
from tests.support.families import FAMILIES, family_of_transformer
from tests.support.models import (
    SIZE,
    build_cogvideox_pipeline,
    build_wan_pipeline,
    build_wan_transformer,
    run_to_latents,
)
from tests.support.policies import PIPELINES


class Announced(Recorder):
    """Keeps what it is told before the first step, and the shapes that it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[Role, Run] = {}
        self.shapes: set[tuple[int, ...]] = set()

    def start_run(self, run: Run) -> None:
        self.runs[run.role] = run

    def load(self) -> Any:
        attend = super().load()

        def noted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: Any) -> torch.Tensor:
            self.shapes.add(tuple(query.shape[2:]))
            return attend(query, key, value, call)

        return noted


def attentions(transformer: Any) -> dict[str, Any]:
    """The attention modules within blocks, by their names in the model, which tell self attention from cross."""
    return {
        name: module
        for name, module in transformer.named_modules()
        if hasattr(module, "to_q")
        and name.split(".")[0] in ("blocks", "transformer_blocks", "single_transformer_blocks")
    }


@pytest.mark.parametrize("kind", PIPELINES)
def test_a_backend_is_told_what_the_model_has(kind: str) -> None:
    build, options = PIPELINES[kind]
    pipe = build()
    modules = attentions(pipe.transformer)
    first = next(iter(modules.values()))
    tokens: list[tuple[int, int]] = []

    def entered(module: Any, args: Any, kwargs: Any) -> None:
        named = {**dict(zip(("hidden_states", "encoder_hidden_states"), args, strict=False)), **kwargs}
        text = named.get("encoder_hidden_states")
        tokens.append((named["hidden_states"].shape[1], 0 if text is None else text.shape[1]))

    hook = first.register_forward_pre_hook(entered, with_kwargs=True)
    backend = Announced()
    with attach(pipe, attention_backend=backend) as fv:
        run_to_latents(pipe, **options)
    hook.remove()
    size = {**SIZE, **options}
    geometry = family_of_transformer(pipe).geometry(pipe.transformer.config, pipe.vae.config)
    grid = geometry.grid(size["num_frames"], size["height"], size["width"])
    assert fv.receipt.token_grid == grid
    assert len(set(tokens)) == 1
    video, text = tokens[0]
    assert math.prod(grid) == video
    heads, head_dim = first.heads, first.to_q.out_features // first.heads
    assert backend.shapes == {(heads, head_dim)}
    layers = {
        Role.CROSS: sum(name.endswith("attn2") for name in modules),
        Role.SELF: sum(name.endswith("attn1") for name in modules),
        Role.JOINT: len(modules),
    }
    assert set(backend.runs) in ({Role.JOINT}, {Role.SELF, Role.CROSS})
    for role, told in backend.runs.items():
        assert (told.num_heads, told.head_dim, told.num_layers) == (heads, head_dim, layers[role])
        assert (told.dtype, told.device, told.num_steps) == ("float32", "cpu", size["num_inference_steps"])
        assert told.layout.grid == grid
        if role is Role.JOINT:
            assert told.layout.text_before + told.layout.text_after == text


@pytest.mark.parametrize("kind", ["Wan 2.1", "Wan 2.1 image", "Wan 2.2"])
def test_the_axes_of_wan_s_grid_are_those_of_its_patches(kind: str) -> None:
    build, options = PIPELINES[kind]
    pipe = build()
    shapes: list[tuple[int, ...]] = []
    hook = pipe.transformer.patch_embedding.register_forward_hook(
        lambda module, args, output: shapes.append(tuple(output.shape[2:]))
    )
    with attach(pipe) as fv:
        run_to_latents(pipe, **{**options, "height": 64, "width": 48, "num_frames": 5})
    hook.remove()
    assert set(shapes) == {fv.receipt.token_grid} == {(2, 4, 3)}


def test_a_patch_need_not_be_square() -> None:
    pipe = build_wan_pipeline()
    pipe.register_modules(transformer=build_wan_transformer(patch_size=(1, 2, 4)))
    shapes: set[tuple[int, ...]] = set()
    pipe.transformer.patch_embedding.register_forward_hook(
        lambda module, args, output: shapes.add(tuple(output.shape[2:]))
    )
    with attach(pipe) as fv:
        run_to_latents(pipe, height=32, width=96)
    geometry = family_of_transformer(pipe).geometry(pipe.transformer.config, pipe.vae.config)
    assert shapes == {fv.receipt.token_grid} == {geometry.grid(9, 32, 96)} == {(3, 2, 3)}
    assert geometry.pixels_per_token == (16, 32)


def test_frames_that_are_padded_to_whole_tokens_count() -> None:
    pipe = build_cogvideox_pipeline(patch_size_t=2, patch_bias=False)
    tokens: set[int] = set()
    pipe.transformer.transformer_blocks[0].attn1.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.add(kwargs["hidden_states"].shape[1]), with_kwargs=True
    )
    with attach(pipe):
        run_to_latents(pipe, max_sequence_length=16)
    geometry = family_of_transformer(pipe).geometry(pipe.transformer.config, pipe.vae.config)
    assert tokens == {math.prod(geometry.grid(9, 32, 48))} == {2 * 2 * 3}


@pytest.mark.parametrize(
    ("transformer", "autoencoder"),
    [
        ("WanTransformer3DModel", "AutoencoderKLWan"),
        ("HunyuanVideoTransformer3DModel", "AutoencoderKLHunyuanVideo"),
        ("LTXVideoTransformer3DModel", "AutoencoderKLLTXVideo"),
        ("MochiTransformer3DModel", "AutoencoderKLMochi"),
        ("Kandinsky5Transformer3DModel", "AutoencoderKLHunyuanVideo"),
        ("HeliosTransformer3DModel", "AutoencoderKLWan"),
    ],
)
def test_what_a_configuration_leaves_out_is_diffusers_default(transformer: str, autoencoder: str) -> None:
    of_transformer, of_autoencoder = defaults(transformer), defaults(autoencoder)
    geometry = next(family for family in FAMILIES.values() if family.transformer == transformer).geometry
    needed: dict[str, Any] = {
        name: of_transformer[name] for name in ("patch_size", "patch_size_t") if name in of_transformer
    }
    assert geometry(needed, {}) == geometry(of_transformer, of_autoencoder)


def defaults(kind: str, method: str = "__init__") -> dict[str, Any]:
    parameters = inspect.signature(getattr(getattr(diffusers, kind), method)).parameters
    return {name: one.default for name, one in parameters.items() if one.default is not inspect.Parameter.empty}


@pytest.mark.parametrize("name", [name for family in FAMILIES.values() for name in sorted(family.pipelines)])
def test_a_family_knows_which_of_its_pipelines_start_from_an_image(name: str) -> None:
    (family,) = (family for family in FAMILIES.values() if name in family.pipelines)
    takes = inspect.signature(getattr(diffusers, name).__call__).parameters
    starts_from_an_image = "image" in takes and "video" not in takes  # some start from whatever is given
    assert starts_from_an_image == (name in family.image_pipelines)


def test_a_timestep_at_the_boundary_is_the_first_expert_s() -> None:
    """WanPipeline takes the first transformer where t >= boundary_ratio * num_train_timesteps."""
    assert experts_timesteps((950.0, 900.0, 899.0), 2, 0.9, 1000) == [(950.0, 900.0), (899.0,)]
