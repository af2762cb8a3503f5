"""VideoGenerator on a saved model: what comes out, and what is refused before anything runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from fastvideo_core import SamplingParam, VideoGenerator
from fastvideo_core.errors import (
    AttachError,
    BackendMismatchError,
    InputError,
    ModelNotFoundError,
    OutputError,
    UnknownBackendError,
    UnsupportedModelError,
)
from tests.support.backends import Recorder, plugins_with
from tests.support.models import SIZE, run

SHORT: dict[str, Any] = {**SIZE, "guidance_scale": 3.0, "seed": 7}


@pytest.fixture(scope="module")
def shared(wan_folder: Path) -> Iterator[VideoGenerator]:
    with VideoGenerator.from_pretrained(wan_folder) as generator:
        yield generator


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to load weights fails the test."""

    def load(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", load)


def test_frames_equal_the_bare_pipeline_s_bit_for_bit(shared: VideoGenerator, wan_folder: Path) -> None:
    from diffusers import WanPipeline

    bare = run(WanPipeline.from_pretrained(wan_folder))
    result = shared.generate_video("cat", **SHORT, save_video=False)
    assert np.array_equal(result.frames, bare)
    assert result.frames.dtype == np.float32
    assert result.video_path is result.receipt_path is result.sheet_path is None


def test_the_negative_prompt_reaches_the_pipeline(shared: VideoGenerator, wan_folder: Path) -> None:
    from diffusers import WanPipeline

    bare = run(WanPipeline.from_pretrained(wan_folder), negative_prompt="dog")
    with_dog = shared.generate_video("cat", negative_prompt="dog", **SHORT, save_video=False).frames
    assert np.array_equal(with_dog, bare)
    assert not np.array_equal(shared.generate_video("cat", **SHORT, save_video=False).frames, bare)


def test_the_file_is_h264_yuv420p_with_its_receipt_and_sheet(shared: VideoGenerator, tmp_path: Path) -> None:
    result = shared.generate_video("A cat, running!", **SHORT, fps=12, sheet=True, output_path=tmp_path / "new" / "out")
    assert result.video_path == tmp_path / "new" / "out" / "a-cat-running.mp4"
    with av.open(str(result.video_path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 12
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert decoded.shape == (SIZE["num_frames"], SIZE["height"], SIZE["width"], 3)
    assert np.abs(decoded.mean((0, 1, 2)) / 255 - result.frames.mean((0, 1, 2))).max() < 0.05
    assert result.receipt_path is not None
    assert json.loads(result.receipt_path.read_text()) == json.loads(result.receipt.to_json())
    assert result.sheet_path is not None
    assert result.sheet_path.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.suffix for path in result.video_path.parent.iterdir()) == [".json", ".mp4", ".png"]


def test_the_receipt_says_what_was_asked_for(shared: VideoGenerator, wan_folder: Path) -> None:
    receipt = shared.generate_video("cat", **SHORT, save_video=False).receipt
    assert (receipt.model, receipt.prompt, receipt.seed) == (str(wan_folder), "cat", 7)
    assert (receipt.height, receipt.width, receipt.num_frames, receipt.guidance_scale) == (32, 48, 9, 3.0)
    assert (receipt.device, receipt.dtype, receipt.pipeline) == ("cpu", "float32", "WanPipeline")
    assert list(receipt.seconds) == ["load", "text", "denoise", "decode"]
    assert all(value >= 0 for value in receipt.seconds.values())
    assert receipt.requested_backend is None


def test_the_same_seed_gives_the_same_video_and_another_another(shared: VideoGenerator) -> None:
    one, two = (shared.generate_video("cat", **SHORT, save_video=False).frames for _ in range(2))
    other = shared.generate_video("cat", **{**SHORT, "seed": 8}, save_video=False).frames
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_a_list_of_prompts_gives_a_list_each_as_if_alone(shared: VideoGenerator, tmp_path: Path) -> None:
    results = shared.generate_video(["cat", "cat", "dog"], **SHORT, output_path=tmp_path)
    assert [result.video_path.name for result in results if result.video_path] == ["cat.mp4", "cat_1.mp4", "dog.mp4"]
    assert np.array_equal(results[0].frames, results[1].frames)
    assert results[2].receipt.prompt == "dog"


def test_two_generators_with_different_backends_side_by_side(wan_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    for module in ("engine.attachment", "app.generator"):
        monkeypatch.setattr(f"fastvideo_core.{module}.load_plugins", lambda: plugins_with(recorder))
    with (
        VideoGenerator.from_pretrained(wan_folder, attention_backend="RECORDER") as one,
        VideoGenerator.from_pretrained(wan_folder, attention_backend="TORCH_SDPA") as two,
    ):
        for generator, name in ((one, "RECORDER"), (two, "TORCH_SDPA"), (one, "RECORDER")):
            receipt = generator.generate_video("cat", **SHORT, save_video=False).receipt
            assert receipt.attention["SELF"].backend == name
    assert len(recorder.seen) == 2 * 2 * 2 * 2 * SIZE["num_inference_steps"]


def test_ctrl_c_leaves_no_file_and_a_usable_generator(
    shared: VideoGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = type(shared._pipe.scheduler)
    step, count = scheduler.step, 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    expected = shared.generate_video("cat", **SHORT, save_video=False).frames
    monkeypatch.setattr(scheduler, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shared.generate_video("cat", **SHORT, output_path=tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(scheduler, "step", step)
    assert np.array_equal(shared.generate_video("cat", **SHORT, save_video=False).frames, expected)


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("where", "error", "expected"),
    [
        ("fastvideo_core.app.output.to_bytes", KeyboardInterrupt(), KeyboardInterrupt),
        ("fastvideo_core.app.output.to_bytes", FULL, OutputError),
        ("fastvideo_core.app.output.contact_sheet", KeyboardInterrupt(), KeyboardInterrupt),
        ("os.link", KeyboardInterrupt(), KeyboardInterrupt),
        ("os.link", FULL, OutputError),
    ],
)
def test_an_interruption_while_writing_leaves_nothing(
    shared: VideoGenerator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    error: BaseException,
    expected: type[BaseException],
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(where, fail)
    with pytest.raises(expected):
        shared.generate_video("cat", **SHORT, sheet=True, output_path=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"height": 100}, "height 100 is not a multiple of 16, .*; near it: 96 or 112"),
        ({"width": 7}, "width 7 is not a multiple of 16, .*; near it: 16"),
        ({"num_frames": 8}, "num_frames 8 is not one more than a multiple of 4, .*; near it: 5 or 9"),
        ({"num_frames": 0}, "num_frames is 0, it must be 1 or more"),
        ({"num_frames": 5.0}, "num_frames must be a whole number, not 5.0"),
        ({"height": 100, "width": 50}, "height 100 .*; width 50"),
        ({"height": 16 * 1025}, "height 16400 is too large, .* reaches 16384"),
        ({"num_frames": 4097}, "num_frames 4097 is too many, .* reaches 4093"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0, it must be 1 to 1000"),
        ({"num_inference_steps": True}, "num_inference_steps must be a whole number, not True"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_scale": "high"}, "guidance_scale must be a number, not 'high'"),
        ({"seed": -1}, "seed is -1, it must be 0 to"),
        ({"fps": 0}, "fps is 0, it must be 1 to 240"),
        ({"negative_prompt": None}, "negative_prompt must be text, not None"),
        ({"output_path": None}, "output_path must be a path, not None"),
        ({"output_path": "a.gif"}, "ends in .gif; videos are written as .mp4"),
        ({"output_path": "a.webp"}, "ends in .webp; videos are written as .mp4"),
        ({"hieght": 480}, "unknown sampling parameter 'hieght'; did you mean height?"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_before_a_step(
    shared: VideoGenerator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(shared._studio, "pipe", lambda **kwargs: pytest.fail("a step was run"))
    with pytest.raises(InputError, match=message):
        shared.generate_video("cat", **{**SHORT, "output_path": tmp_path, **overrides})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ([], "list of prompts is empty"),
        (["cat", ""], "empty"),
        (3, "must be text"),
    ],
)
def test_prompts_that_say_nothing_are_refused(shared: VideoGenerator, prompt: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        shared.generate_video(prompt, **SHORT)


@pytest.mark.parametrize("blocked", ["file", "null\0byte"])
def test_a_folder_that_cannot_be_written_is_refused(
    shared: VideoGenerator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blocked: str
) -> None:
    monkeypatch.setattr(shared._studio, "pipe", lambda **kwargs: pytest.fail("a step was run"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="no file can be written to"):
        shared.generate_video("cat", **SHORT, output_path=tmp_path / blocked / "videos")


def test_models_that_are_none_are_refused_before_loading(unloadable: None, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"is a folder but no model .* no model_index.json"):
        VideoGenerator.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(
        UnsupportedModelError,
        match=r"a StableDiffusionPipeline, has no transformer; installed plugins know .*CogVideoXTransformer3DModel, ",
    ):
        VideoGenerator.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "WanPip')
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        VideoGenerator.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text(
        '{"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}'
    )
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        VideoGenerator.from_pretrained(tmp_path)
    for name in ("transformer", "vae"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="lacks 'patch_size'"):
        VideoGenerator.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "name", ["shape", "/no/such/folder", "./here", "no-such-user/no-such-model", "", "a\0b", "a/b/c", "x" * 5000]
)
def test_names_that_lead_nowhere(unloadable: None, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="shapes"):
        VideoGenerator.from_pretrained(name)


def test_backends_that_do_not_fit_are_refused_before_loading(
    unloadable: None, wan_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownBackendError, match="unknown attention backend 'NOSUCH_ATTN'"):
        VideoGenerator.from_pretrained(wan_folder, attention_backend="NOSUCH_ATTN")
    narrow = Recorder("NARROW_ATTN", head_dims=frozenset({128}))
    monkeypatch.setattr("fastvideo_core.app.generator.load_plugins", lambda: plugins_with(narrow))
    with pytest.raises(BackendMismatchError, match="head size is 16, it takes 128"):
        VideoGenerator.from_pretrained(wan_folder, attention_backend="NARROW_ATTN")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_gpus": 2}, "num_gpus is 2"),
        ({"device": "quantum"}, "device 'quantum' is none that torch knows"),
        ({"dtype": "int8"}, "dtype 'int8' is none of"),
        (
            {"attention_config": {"file": "w\udcff.json"}},
            r"attention_config\['file'\] is 'w.*', which is no text: it holds bytes",
        ),
        ({"device": "meta"}, "device 'meta' was asked for, which torch .* cannot compute on here"),
        ({"device": "mps"}, "device 'mps' was asked for, which torch .* cannot compute on here"),
        ({"device": torch.device("meta")}, "device 'meta' was asked for"),
        ({"device": 5}, "device 5 is none; give a name such as 'cuda'"),
        ({"compile": "no"}, "compile is 'no', it must be True or False"),
        ({"dit_cpu_offload": "yes"}, "dit_cpu_offload is 'yes', it must be True or False"),
        ({"use_cpu_offload": False}, "use instead: dit_cpu_offload, vae_cpu_offload and text_encoder_cpu_offload"),
        ({"tp_size": 1}, "leave it out: num_gpus shares the video's tokens and guidance branches"),
        ({"compyle": True}, "unknown argument of from_pretrained 'compyle'; did you mean compile"),
    ],
)
def test_options_that_do_not_fit(unloadable: None, wan_folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VideoGenerator.from_pretrained(wan_folder, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(unloadable: None, wan_folder: Path) -> None:
    with pytest.raises(InputError, match="sees no CUDA device"):
        VideoGenerator.from_pretrained(wan_folder, device="cuda")


def test_weights_that_are_not_safetensors_are_not_loaded(wan_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "pickled"
    shutil.copytree(wan_folder, folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        VideoGenerator.from_pretrained(folder)


def test_closing_frees_the_generator(wan_folder: Path) -> None:
    generator = VideoGenerator.from_pretrained(wan_folder, dtype="bfloat16")
    assert generator.generate_video("cat", **SHORT, save_video=False).receipt.dtype == "bfloat16"
    generator.close()
    generator.close()
    with pytest.raises(AttachError, match="closed"):
        generator.generate_video("cat")


def test_presets() -> None:
    from diffusers.pipelines.wan import pipeline_wan

    params = SamplingParam.from_pretrained("Wan-AI/Wan2.1-T2V-14B-Diffusers")
    assert (params.height, params.width, params.num_frames) == (720, 1280, 81)
    assert f'negative_prompt = "{params.negative_prompt}"' in pipeline_wan.EXAMPLE_DOC_STRING
    assert SamplingParam.from_pretrained("unknown/model") == SamplingParam()


def test_a_preset_on_a_hub_that_cannot_be_reached_is_not_called_unknown(unloadable: None) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"lies on the hub, from which model_index.json cannot be fetched"
    ) as e:
        VideoGenerator.from_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    assert "did you mean" not in str(e.value)
