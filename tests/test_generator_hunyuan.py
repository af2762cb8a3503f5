"""A generator makes what bare diffusers makes of HunyuanVideo-1.5 and Framepack, loaded from the same folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastvideo_core import VideoGenerator
from fastvideo_core.errors import InputError
from tests.support.models_hunyuan import (
    build_framepack_pipeline,
    build_hunyuan15_image_pipeline,
    build_hunyuan15_pipeline,
)

SIZE: dict[str, Any] = {"height": 32, "width": 48, "num_inference_steps": 2}


def saved(build: Callable[[], Any], folder: Path) -> tuple[Path, Any]:
    """A folder with the pipeline, and the pipeline as diffusers loads it."""
    pipe = build()
    pipe.save_pretrained(folder / "model")
    loaded = type(pipe).from_pretrained(folder / "model")
    loaded.set_progress_bar_config(disable=True)
    return folder / "model", loaded


def pixels_of(picture: Path) -> Image.Image:
    with Image.open(picture) as image:
        return image.copy()


def frames_of(pipe: Any, **options: Any) -> Any:
    return pipe(prompt="cat", **options, generator=torch.Generator().manual_seed(7), output_type="np").frames[0]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A gradient, so that no two places are alike."""
    pixels = np.linspace(0, 255, 32 * 48 * 3).reshape(32, 48, 3).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "gradient.png")
    return tmp_path / "gradient.png"


@pytest.mark.parametrize("of_image", [False, True])
def test_hunyuanvideo15_has_the_scale_in_its_guider(of_image: bool, picture: Path, tmp_path: Path) -> None:
    folder, pipe = saved(build_hunyuan15_image_pipeline if of_image else build_hunyuan15_pipeline, tmp_path)
    # Of an image, the pipeline picks the size: the one of its target's area that is nearest in shape.
    own: dict[str, Any] = {"image": pixels_of(picture)} if of_image else {"height": 32, "width": 48}
    given: dict[str, Any] = {"image_path": picture} if of_image else {}
    options: dict[str, Any] = {"num_frames": 9, "num_inference_steps": 2, "negative_prompt": "dog"}
    expected = {}
    for scale in (3.0, 6.0):
        pipe.guider = pipe.guider.new(guidance_scale=scale)
        expected[scale] = frames_of(pipe, **options, **own)
    height, width = expected[3.0].shape[1:3]
    with VideoGenerator.from_pretrained(folder) as generator:
        for scale, frames in expected.items():
            made = generator.generate_video(
                "cat", **options, height=height, width=width, seed=7, guidance_scale=scale, save_video=False, **given
            )
            np.testing.assert_allclose(made.frames, frames, atol=1e-5)  # padded text is cut off, not masked
            assert made.receipt.guidance_scale == scale
        assert set(made.receipt.attention) == {"JOINT"}
    assert np.abs(expected[3.0] - expected[6.0]).max() > 1e-4


def test_framepack_makes_whole_sections(picture: Path, tmp_path: Path) -> None:
    folder, pipe = saved(build_framepack_pipeline, tmp_path)
    options = {**SIZE, "num_frames": 9, "guidance_scale": 3.0}
    expected = pipe(
        pixels_of(picture), prompt="cat", **options, generator=torch.Generator().manual_seed(7), output_type="np"
    ).frames[0]
    with VideoGenerator.from_pretrained(folder) as generator:
        with pytest.warns(UserWarning, match="made 37 frames of 48x32, where 9 of 48x32 were asked for"):
            made = generator.generate_video("cat", **options, seed=7, image_path=picture, save_video=False)
        with pytest.raises(InputError, match="image"):
            generator.generate_video("cat", **options, seed=7, save_video=False)
    np.testing.assert_allclose(made.frames, expected, atol=1e-5)
    assert len(expected) == 37
