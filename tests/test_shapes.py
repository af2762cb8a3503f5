"""fv-shapes: the domain, the checker, and the trained model that stock WanPipeline loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from fv_shapes.captions import caption, parse, vocabulary
from fv_shapes.plugin import MODEL_FOLDER, fastvideo_model_presets
from fv_shapes.render import render
from fv_shapes.scenes import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SIZES,
    MovingShape,
    Scene,
    random_pair,
    random_scene,
)
from fv_shapes.score import ATTRIBUTES, score
from hypothesis import given
from hypothesis import strategies as st

from fastvideo_core import VideoGenerator

pytestmark = pytest.mark.slow

SEEDS = st.integers(0, 2**32)


def test_the_domain_is_as_large_as_promised() -> None:
    assert len(SHAPES) >= 4
    assert len(COLOURS) >= 8
    assert len(DIRECTIONS) == 9
    assert len(BACKGROUNDS) >= 4


@given(seed=SEEDS, make=st.sampled_from((random_scene, random_pair)))
def test_captions_say_what_the_scene_is_in_words_of_the_vocabulary(seed: int, make: Callable[[Random], Scene]) -> None:
    rng = Random(seed)
    scene = make(rng)
    text = caption(scene, rng)
    found = parse(text)
    assert found.background in (scene.background, None)
    assert [(one.shape, one.colour, one.direction, one.size) for one in found.shapes] == [
        (one.shape, one.colour, one.direction, one.size) for one in scene.shapes
    ], text
    words = text.lower().replace(",", " ").replace(".", " ").replace("-", " ").split()
    assert set(words) <= set(vocabulary())


def test_captions_vary() -> None:
    rng = Random(0)
    scene = Scene((MovingShape("circle", "red", "left"),), "white")
    assert len({caption(scene, rng) for _ in range(200)}) > 60


def test_a_prompt_outside_the_domain_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="names no shape and no direction; shapes: circle"):
        parse("a red cat on a white background")


@given(seed=SEEDS, side=st.sampled_from((64, 128)), frames=st.integers(1, 9))
def test_rendering_gives_the_size_asked_for_with_the_background_in_a_corner(seed: int, side: int, frames: int) -> None:
    scene = random_scene(Random(seed))
    video = render(scene, frames, side, 2 * side)
    assert video.shape == (frames, side, 2 * side, 3)
    assert tuple(video[0, 0, 0]) == BACKGROUNDS[str(scene.background)]
    assert scene.shapes[0].size in SIZES


def test_the_model_is_small_and_in_the_format_of_diffusers() -> None:
    files = [path for path in MODEL_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors"}
    assert not [path for path in files if path.suffix == ".json" and "_name_or_path" in path.read_text()]


@pytest.fixture(scope="module")
def shapes() -> Any:
    with VideoGenerator.from_pretrained("shapes") as generator:
        yield generator


def test_the_preset_has_the_numbers_of_parameters_of_the_files() -> None:
    from safetensors import safe_open

    def count(component: str) -> int:
        (file,) = (MODEL_FOLDER / component).glob("*.safetensors")
        with safe_open(file, "pt") as weights:
            return sum(int(np.prod(weights.get_slice(name).get_shape())) for name in weights.keys())  # noqa: SIM118

    (preset,) = fastvideo_model_presets()
    assert preset.parameters == {name: count(name) for name in ("transformer", "text_encoder", "vae")}


def test_the_stock_pipeline_gives_the_same_frames(shapes: VideoGenerator) -> None:
    import torch
    from diffusers import WanPipeline

    prompt = "a blue square moving up on a black background"
    size: dict[str, Any] = {
        "height": 128,
        "width": 128,
        "num_frames": 9,
        "num_inference_steps": 2,
    }
    bare = WanPipeline.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
    bare.set_progress_bar_config(disable=True)
    expected = bare(
        prompt,
        **size,
        max_sequence_length=64,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).frames[0]
    result = shapes.generate_video(prompt, **size, seed=3, save_video=False)
    assert np.array_equal(result.frames, expected)


def test_prompts_come_true(shapes: VideoGenerator, tmp_path: Path) -> None:
    prompts = [
        "a red circle moving left on a white background",
        "On a black background, a yellow square stands still.",
    ]
    hits = [
        score(result.frames, result.prompt)
        for result in shapes.generate_video(prompts, num_inference_steps=12, output_path=tmp_path)
    ]
    assert hits == [dict.fromkeys(ATTRIBUTES, True)] * 2


def test_the_largest_canvas_is_a_grid_of_12_16_16(shapes: VideoGenerator) -> None:
    geometry = shapes.info.geometry
    assert geometry.grid(45, 256, 256) == (12, 16, 16)
    assert geometry.grid(33, 128, 128) == (9, 8, 8)
    assert shapes.info.transformer["attention_head_dim"] == 64


def test_latent_channels_that_carry_nothing_are_neither_seen_nor_changed() -> None:
    vae = json.loads((MODEL_FOLDER / "vae" / "config.json").read_text())
    empty = torch.tensor(vae["latents_std"]) < 0.05
    assert empty.sum() == 15
    transformer = WanTransformer3DModel.from_pretrained(MODEL_FOLDER / "transformer").eval()
    latents = torch.randn(1, 32, 2, 4, 4)
    others = torch.where(empty.view(1, -1, 1, 1, 1), torch.randn_like(latents), latents)
    how: dict[str, Any] = {"timestep": torch.tensor([500.0]), "encoder_hidden_states": torch.randn(1, 8, 128)}
    with torch.no_grad():
        (velocity,), (other,) = (transformer(given, **how, return_dict=False) for given in (latents, others))
    assert torch.equal(velocity, other)
    assert not velocity[:, empty].any()
    assert velocity[:, ~empty].any()
