"""The model families beside text-to-video Wan: their roles, masks and layers on stock pipelines with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import Role, TokenLayout, VideoGenerator, attach
from fastvideo_core.errors import AttachError, InputError
from tests.support.backends import Recorder
from tests.support.models import (
    SIZE,
    build_cogvideox_pipeline,
    build_hunyuan_pipeline,
    build_ltx_pipeline,
    build_mochi_pipeline,
    build_wan_image_pipeline,
)
from tests.support.models import run_to_latents as run

STEPS = SIZE["num_inference_steps"]


@pytest.fixture
def hunyuan() -> Any:
    return build_hunyuan_pipeline()


def text(lengths: tuple[int, ...], tokens: int = 7) -> dict[str, Any]:
    """Text embeddings of a batch, padded behind."""
    torch.manual_seed(1)
    batch = len(lengths)
    return {
        "prompt": None,
        "prompt_embeds": torch.randn(batch, tokens, 16),
        "pooled_prompt_embeds": torch.randn(batch, 16),
        "prompt_attention_mask": (torch.arange(tokens) < torch.tensor(lengths)[:, None]).long(),
    }


def test_hunyuan_s_padding_never_reaches_a_backend(hunyuan: Any, recorder: Recorder) -> None:
    bare = run(hunyuan, **text((4,)))
    with attach(hunyuan, attention_backend="RECORDER") as fv:
        frames = run(hunyuan, **text((4,)))
    np.testing.assert_allclose(frames, bare, atol=1e-5)
    layout = TokenLayout((3, 2, 3), text_after=7, text_lengths=(4,))
    assert recorder.seen == [
        (Role.JOINT, "cond", step, STEPS, layer, layout) for step in range(STEPS) for layer in range(3)
    ]
    assert set(recorder.masks) == {(18 + 4, None, None)}
    assert fv.receipt.attention["JOINT"].calls == 3 * STEPS
    assert fv.receipt.token_grid == (3, 2, 3)


def test_prompts_of_two_lengths_in_one_batch(hunyuan: Any, recorder: Recorder) -> None:
    bare = frames_of_both(hunyuan)
    with attach(hunyuan, attention_backend="RECORDER"):
        np.testing.assert_allclose(frames_of_both(hunyuan), bare, atol=1e-5)
    assert {keys for keys, _, _ in recorder.masks} == {18 + 4, 18 + 2}
    with attach(hunyuan, attention_backend="TORCH_SDPA"):
        assert np.array_equal(frames_of_both(hunyuan), bare)


def frames_of_both(pipe: Any) -> Any:
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in (7, 8)]
    return pipe(generator=generators, output_type="np", guidance_scale=6.0, **SIZE, **text((4, 2))).frames


def test_masks_are_read_once_a_generation(hunyuan: Any, mask_reads: list[Any]) -> None:
    """A read of the mask is a wait for the device; diffusers makes the mask anew at each step."""
    with attach(hunyuan):
        for runs in (1, 2):
            run(hunyuan, **text((4,)))
            assert len(mask_reads) == runs
            run(hunyuan, **text((4,)), num_inference_steps=5, height=48)
            mask_reads.pop()


def test_the_text_refiner_stays_with_diffusers(hunyuan: Any) -> None:
    with attach(hunyuan):
        touched = {
            name: processor._attention_backend is not None
            for name, processor in hunyuan.transformer.attn_processors.items()
            if hasattr(processor, "_attention_backend")
        }
    assert {name.split(".")[0] for name, ours in touched.items() if ours} == {
        "transformer_blocks",
        "single_transformer_blocks",
    }
    assert not any(ours for name, ours in touched.items() if name.startswith("context_embedder"))


def test_hunyuan_from_a_folder(hunyuan: Any, tmp_path: Path) -> None:
    hunyuan.save_pretrained(tmp_path / "model")
    arguments: dict[str, Any] = {**SIZE, "guidance_scale": 6.0, "save_video": False}
    with VideoGenerator.from_pretrained(tmp_path / "model") as generator:
        result = generator.generate_video("cat", **arguments)
        assert result.frames.shape == (9, 32, 48, 3)
        assert list(result.receipt.attention) == ["JOINT"]
        with pytest.raises(InputError, match="has its guidance built in; it takes no negative_prompt"):
            generator.generate_video("cat", negative_prompt="blurred", **arguments)
        with pytest.raises(InputError, match="height 40 is not a multiple of 16"):
            generator.generate_video("cat", **{**arguments, "height": 40})


LTX_SIZE: dict[str, Any] = {"height": 64, "width": 96, "num_frames": 17, "negative_prompt": "dog"}
"""A 3x2x3 grid of tokens; the tests' tokenizer makes nothing of an empty prompt."""


def test_ltx_reads_its_text_mask_once_a_generation(recorder: Recorder, mask_reads: list[Any]) -> None:
    pipe = build_ltx_pipeline()
    bare = run(pipe, prompt="cat dog cat", **LTX_SIZE)
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        assert np.array_equal(run(pipe, prompt="cat dog cat", **LTX_SIZE), bare)
        assert (fv.receipt.token_grid, fv.receipt.steps_computed) == ((3, 2, 3), {"cond_uncond": STEPS})
    assert len(mask_reads) == 1
    with attach(pipe, attention_backend="RECORDER"):
        np.testing.assert_allclose(run(pipe, prompt="cat dog cat", **LTX_SIZE), bare, atol=1e-5)
    cross = [keys for (role, *_), (keys, _, _) in zip(recorder.seen, recorder.masks, strict=True) if role is Role.CROSS]
    assert cross == [1, 3] * 2 * STEPS


def test_ltx_from_a_folder_is_told_the_frame_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import LTXPipeline

    build_ltx_pipeline().save_pretrained(tmp_path / "model")
    rates = []
    call = LTXPipeline.__call__

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        rates.append(kwargs["frame_rate"])
        return call(self, *args, **kwargs)

    monkeypatch.setattr(LTXPipeline, "__call__", noted)
    arguments: dict[str, Any] = {**SIZE, **LTX_SIZE, "guidance_scale": 3.0, "save_video": False}
    with VideoGenerator.from_pretrained(tmp_path / "model") as generator:
        assert generator.generate_video("cat", fps=30, **arguments).frames.shape == (17, 64, 96, 3)
        with pytest.raises(InputError, match="height 80 is not a multiple of 32"):
            generator.generate_video("cat", **{**arguments, "height": 80})
        with pytest.raises(InputError, match="num_frames 12 is not one more than a multiple of 8"):
            generator.generate_video("cat", **{**arguments, "num_frames": 12})
    assert rates == [30]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    path = tmp_path_factory.mktemp("image") / "red.png"
    Image.new("RGB", (48, 32), "red").save(path)
    return path


@pytest.fixture(scope="module")
def image_to_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("i2v") / "model"
    build_wan_image_pipeline().save_pretrained(folder)
    return folder


def test_image_to_video_wan_has_two_cross_attentions_a_layer(image: Path, recorder: Recorder) -> None:
    from PIL import Image

    pipe = build_wan_image_pipeline()
    bare = run(pipe, image=Image.open(image))
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        assert np.array_equal(run(pipe, image=Image.open(image)), bare)
        assert (fv.receipt.attention["SELF"].calls, fv.receipt.attention["CROSS"].calls) == (12, 24)
    with attach(pipe, attention_backend="RECORDER"):
        np.testing.assert_allclose(run(pipe, image=Image.open(image)), bare, atol=1e-5)
    cross = [seen[4] for seen in recorder.seen if seen[0] is Role.CROSS]
    assert cross == [0, 0, 1, 1] * 2 * STEPS
    keys = [keys for seen, (keys, _, _) in zip(recorder.seen, recorder.masks, strict=True) if seen[0] is Role.CROSS]
    assert set(keys) == {5, 512}


def test_image_to_video_from_a_folder(image_to_video: Path, image: Path) -> None:
    arguments: dict[str, Any] = {**SIZE, "guidance_scale": 3.0, "save_video": False}
    with VideoGenerator.from_pretrained(image_to_video) as generator:
        assert generator.generate_video("cat", image_path=image, **arguments).frames.shape == (9, 32, 48, 3)
        with pytest.raises(InputError, match="starts from an image; give it as image_path"):
            generator.generate_video("cat", **arguments)
        with pytest.raises(InputError, match=r"image_path 'none.png' is no file"):
            generator.generate_video("cat", image_path="none.png", **arguments)
        Path("text.png").write_text("no image")
        with pytest.raises(InputError, match=r"image_path 'text.png' cannot be read as an image"):
            generator.generate_video("cat", image_path="text.png", **arguments)


def test_a_text_to_video_model_takes_no_image(wan_folder: Path, image: Path) -> None:
    with (
        VideoGenerator.from_pretrained(wan_folder) as generator,
        pytest.raises(InputError, match="makes videos from text alone; it takes no image_path"),
    ):
        generator.generate_video("cat", image_path=image)


COGVIDEOX: dict[str, Any] = {"max_sequence_length": 16}
MOCHI: dict[str, Any] = {"num_frames": 13, "max_sequence_length": 16, "negative_prompt": "dog cat dog"}


@pytest.mark.parametrize("rotary", [True, False])
def test_cogvideox_s_text_stands_before_its_video(recorder: Recorder, rotary: bool) -> None:
    pipe = build_cogvideox_pipeline(use_rotary_positional_embeddings=rotary)
    processors = dict(pipe.transformer.attn_processors)
    bare = run(pipe, **COGVIDEOX)
    with attach(pipe, attention_backend="TORCH_SDPA"):
        assert np.array_equal(run(pipe, **COGVIDEOX), bare)
    with attach(pipe, attention_backend="RECORDER") as fv:
        np.testing.assert_allclose(run(pipe, **COGVIDEOX), bare, atol=1e-5)
    assert fv.receipt.attention["JOINT"].calls == 2 * STEPS
    layout = TokenLayout((3, 2, 3), text_before=16)
    assert recorder.seen == [
        (Role.JOINT, "cond_uncond", step, STEPS, layer, layout) for step in range(STEPS) for layer in range(2)
    ]
    assert pipe.transformer.attn_processors == processors


def test_cogvideox_1_5_pads_its_frames() -> None:
    pipe = build_cogvideox_pipeline(patch_size_t=2, patch_bias=False)
    bare = run(pipe, **COGVIDEOX)
    with attach(pipe) as fv:
        assert np.array_equal(run(pipe, **COGVIDEOX), bare)
    assert fv.receipt.token_grid == (2, 2, 3)


def test_mochi_s_batch_entries_come_one_by_one(recorder: Recorder, mask_reads: list[Any]) -> None:
    pipe = build_mochi_pipeline()
    bare = run(pipe, **MOCHI)
    with attach(pipe, attention_backend="TORCH_SDPA"):
        assert np.array_equal(run(pipe, **MOCHI), bare)
    with attach(pipe, attention_backend="RECORDER") as fv:
        np.testing.assert_allclose(run(pipe, **MOCHI), bare, atol=1e-5)
    assert fv.receipt.attention["JOINT"].calls == 2 * 2 * STEPS
    layouts = [TokenLayout((3, 2, 3), text_after=words) for words in (3, 1)]
    assert recorder.seen == [
        (Role.JOINT, "cond_uncond", step, STEPS, layer, layout)
        for step in range(STEPS)
        for layer in range(2)
        for layout in layouts
    ]
    assert [keys for keys, _, _ in recorder.masks] == [18 + 3, 18 + 1] * 2 * STEPS
    assert not mask_reads


@pytest.mark.parametrize("build", [build_cogvideox_pipeline, build_mochi_pipeline])
def test_a_processor_of_another_kind_is_refused(build: Any) -> None:
    pipe = build()
    kind = type(pipe.transformer.transformer_blocks[0].attn1.processor)
    pipe.transformer.transformer_blocks[0].attn1.processor = type("Mine", (kind,), {})()
    with pytest.raises(AttachError, match="the attention processor Mine does not go through diffusers'"):
        attach(pipe)


@pytest.mark.parametrize(
    ("build", "options"),
    [(build_cogvideox_pipeline, {"height": 32, "width": 48}), (build_mochi_pipeline, {"num_frames": 13})],
)
def test_cogvideox_and_mochi_from_a_folder(build: Any, options: dict[str, Any], tmp_path: Path) -> None:
    build().save_pretrained(tmp_path / "model")
    arguments = {**SIZE, "guidance_scale": 3.0, "save_video": False, "negative_prompt": "dog", **options}
    with VideoGenerator.from_pretrained(tmp_path / "model") as generator:
        result = generator.generate_video("cat", **arguments)
        assert result.frames.shape == (arguments["num_frames"], 32, 48, 3)
        with pytest.raises(InputError, match="height 40 is not a multiple of 16"):
            generator.generate_video("cat", **{**arguments, "height": 40})
    with pytest.raises(InputError, match="diffusers does not say which blocks"):
        VideoGenerator.from_pretrained(tmp_path / "model", compile=True)


def test_a_transformer_of_a_class_derived_from_the_family_s_is_known() -> None:
    pipe = build_cogvideox_pipeline()
    bare = run(pipe, **COGVIDEOX)
    pipe.transformer.__class__ = type("Mine", (type(pipe.transformer),), {})
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        assert np.array_equal(run(pipe, **COGVIDEOX), bare)
    assert fv.receipt.token_grid == (3, 2, 3)
