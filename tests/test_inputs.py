"""What models start from beside text, and what leads them: second guidance scale, flow shift, videos."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from fastvideo_core import ModelPreset, SamplingParam, VideoGenerator
from fastvideo_core.app.calling import guided, image_for
from fastvideo_core.app.inputs import PipelineInputs
from fastvideo_core.errors import InputError, UnsupportedModelError
from tests.support.backends import plugins_with
from tests.support.clips import write_clip
from tests.support.conditioned import CONDITIONED
from tests.support.families import FAMILIES
from tests.support.models import SIZE, build_cogvideox_pipeline, build_wan_image_pipeline, build_wan_pipeline, run

SHORT: dict[str, Any] = {**SIZE, "guidance_scale": 3.0, "seed": 7, "save_video": False}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 9 frames of 48x32, each of another grey."""
    return write_clip(tmp_path_factory.mktemp("clip") / "grey.mp4")


@pytest.fixture(scope="module")
def experts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts") / "model"
    build_wan_pipeline(experts=2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def experts(experts_folder: Path) -> Iterator[VideoGenerator]:
    with VideoGenerator.from_pretrained(experts_folder) as generator:
        yield generator


@pytest.fixture(scope="module")
def plain(wan_folder: Path) -> Iterator[VideoGenerator]:
    with VideoGenerator.from_pretrained(wan_folder) as generator:
        yield generator


def test_the_second_expert_has_a_guidance_scale_of_its_own(experts: VideoGenerator, experts_folder: Path) -> None:
    from diffusers import WanPipeline

    steps: dict[str, Any] = {"num_inference_steps": 5}
    bare = run(WanPipeline.from_pretrained(experts_folder), guidance_scale_2=7.0, **steps)
    result = experts.generate_video("cat", **{**SHORT, **steps}, guidance_scale_2=7)
    assert np.array_equal(result.frames, bare)
    assert (result.receipt.guidance_scale, result.receipt.guidance_scale_2) == (3.0, 7.0)
    with_one = experts.generate_video("cat", **{**SHORT, **steps})
    assert not np.array_equal(with_one.frames, bare)
    assert with_one.receipt.guidance_scale_2 is None


def test_a_flow_shift_is_the_scheduler_s_for_one_video(plain: VideoGenerator, wan_folder: Path) -> None:
    from diffusers import UniPCMultistepScheduler, WanPipeline

    pipe = WanPipeline.from_pretrained(wan_folder)
    before = run(pipe)
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config, flow_shift=7.0)
    bare = run(pipe)
    result = plain.generate_video("cat", **SHORT, flow_shift=7)
    assert np.array_equal(result.frames, bare)
    assert not np.array_equal(bare, before)
    assert result.receipt.flow_shift == 7.0
    again = plain.generate_video("cat", **SHORT)
    assert np.array_equal(again.frames, before)
    assert again.receipt.flow_shift == 3.0


def test_prompts_are_padded_to_as_many_tokens_as_asked_for(plain: VideoGenerator, wan_folder: Path) -> None:
    from diffusers import WanPipeline

    pipe = WanPipeline.from_pretrained(wan_folder)
    bare = run(pipe, max_sequence_length=16)
    result = plain.generate_video("cat", **SHORT, max_sequence_length=16)
    assert np.array_equal(result.frames, bare)
    assert not np.array_equal(bare, run(pipe))
    assert result.receipt.max_sequence_length == 16
    with pytest.raises(InputError, match=r"is 17 tokens long, WanPipeline reads 16: .* end, 'cat dog'; shorten it, or"):
        plain.generate_video(" ".join(["cat"] * 16 + ["dog"]), **SHORT, max_sequence_length=16)


@pytest.mark.parametrize(
    ("build", "only"),
    [
        (build_wan_image_pipeline, 512),
        (partial(build_cogvideox_pipeline, use_rotary_positional_embeddings=False), 226),
    ],
)
def test_a_transformer_that_counts_on_a_number_of_text_tokens_has_no_other(
    build: Callable[[], Any], only: int, tmp_path: Path
) -> None:
    """Wan's with an image encoder would take text for tokens of the image, or the other way round, without a word."""
    pipe = build()
    pipe.save_pretrained(tmp_path / "model")
    only = pipe.transformer.config.get("max_text_seq_length", only)
    image = tmp_path / "image.png"
    Image.new("RGB", (48, 32)).save(image)
    for length in (only - 1, only + 1):
        with pytest.raises(InputError, match=rf"max_sequence_length is {length}, but the transformer of .* on {only} "):
            check(tmp_path / "model", max_sequence_length=length, image_path=image if only == 512 else None)
    check(tmp_path / "model", **SIZE, max_sequence_length=only, image_path=image if only == 512 else None)


def test_a_preset_s_flow_shift_is_that_of_the_nearest_size(wan_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = ModelPreset("m", str(wan_folder), dict(SIZE), flow_shift={(32, 48): 2.0, (320, 480): 9.0})
    for module in ("app.generator", "app.sampling", "engine.attachment"):
        monkeypatch.setattr(f"fastvideo_core.{module}.load_plugins", lambda: plugins_with(presets=[preset]))
    with VideoGenerator.from_pretrained("m") as generator:
        assert generator.generate_video("cat", save_video=False).receipt.flow_shift == 2.0
        large = generator.generate_video("cat", save_video=False, height=160, width=160, num_frames=1)
        assert large.receipt.flow_shift == 9.0
        assert generator.generate_video("cat", save_video=False, flow_shift=4.0).receipt.flow_shift == 4.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"guidance_scale_2": 3.0}, "guidance_scale_2 is 3.0, but .* has one transformer"),
        ({"guidance_scale_2": "3"}, "guidance_scale_2 must be a number, not '3'"),
        ({"guidance_scale_2": -1}, "guidance_scale_2 is -1, it must be 0 to 1000"),
        ({"flow_shift": True}, "flow_shift must be a number, not True"),
        ({"flow_shift": 0}, r"flow_shift is 0, it must be 0.01 to 100"),
        ({"max_sequence_length": 16.0}, "max_sequence_length must be a whole number, not 16.0"),
        ({"max_sequence_length": 0}, "max_sequence_length is 0, it must be 1 to 4096"),
        ({"video_path": 5}, "video_path must be a path, not 5"),
        ({"video_path": "a.mp4"}, "a WanPipeline, makes videos from text alone; it takes no video_path"),
        ({"video": "a.mp4"}, "there is no sampling parameter 'video' here; use instead: video_path"),
    ],
)
def test_what_does_not_fit_is_refused(plain: VideoGenerator, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plain.generate_video("cat", **{**SHORT, **given})


def test_a_second_scale_that_would_do_nothing_is_refused(experts: VideoGenerator) -> None:
    with pytest.raises(InputError, match=r"guidance_scale_2 is 4.0, which does nothing where guidance_scale is 1 or"):
        experts.generate_video("cat", **{**SHORT, "guidance_scale": 1.0}, guidance_scale_2=4.0)


def test_schedulers_without_a_shift_of_their_own_are_named(wan_folder: Path, tmp_path: Path) -> None:
    import shutil

    build_cogvideox_pipeline().save_pretrained(tmp_path / "cog")
    shutil.copytree(wan_folder, tmp_path / "dynamic")
    file = tmp_path / "dynamic" / "scheduler" / "scheduler_config.json"
    content = json.loads(file.read_text())
    for change, message in (
        ({"use_dynamic_shifting": True}, "a UniPCMultistepScheduler, computes it from the number of tokens"),
        ({"use_flow_sigmas": False}, "a UniPCMultistepScheduler, has no flow sigmas"),
        ({"_class_name": "DDIMScheduler"}, "a DDIMScheduler, has none"),
    ):
        file.write_text(json.dumps({**content, **change}))
        with pytest.raises(InputError, match=f"flow_shift is 5.0, but .* takes none: its scheduler, {message}"):
            check(tmp_path / "dynamic", flow_shift=5.0)
    with pytest.raises(InputError, match=r"flow_shift is 5.0, .*guidance|guidance_scale_2 is 2.0, .* has one guidance"):
        check(tmp_path / "cog", flow_shift=5.0, guidance_scale_2=2.0)


def check(folder: Path, **given: Any) -> None:
    from fastvideo_core import check_sampling

    check_sampling(str(folder), {**SIZE, **given})


@pytest.mark.parametrize(
    ("kind", "argument"),
    [("WanVideoToVideo", "video"), ("CogVideoXVideoToVideo", "video"), ("CogVideoXFunControl", "control_video")],
)
def test_a_video_is_made_of_a_video(kind: str, argument: str, clip: Path, tmp_path: Path) -> None:
    built = CONDITIONED[kind][0]()
    built.save_pretrained(tmp_path / "model")
    pipe = type(built).from_pretrained(tmp_path / "model")
    options: dict[str, Any] = {"num_frames": None, argument: frames_of(clip), "negative_prompt": "dog"}
    bare = run(pipe, **options)
    with VideoGenerator.from_pretrained(tmp_path / "model") as generator:
        given = {**SHORT, "negative_prompt": "dog"}
        result = generator.generate_video("cat", **given, video_path=clip)
        assert np.array_equal(result.frames, bare)
        assert result.receipt.input_video == str(clip)
        assert result.receipt.num_frames == 9
        Path("text.mp4").write_text("no video")
        for path, message in {
            None: "starts from a video; give it as video_path",
            "none.mp4": "video_path 'none.mp4' is no file",
            "text.mp4": "video_path 'text.mp4' cannot be read as a video",
        }.items():
            with pytest.raises(InputError, match=message):
                generator.generate_video("cat", **given, video_path=path)
        with pytest.raises(InputError, match="has 9 frames, num_frames is 13; give a longer video, or fewer"):
            generator.generate_video("cat", **{**given, "num_frames": 13}, video_path=clip)
        with pytest.raises(InputError, match="starts from text and video; it takes no image_path"):
            generator.generate_video("cat", **given, video_path=clip, image_path=clip)


def frames_of(path: Path) -> list[Any]:
    from PIL import Image

    with av.open(str(path)) as container:
        return [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def test_the_first_frames_of_a_longer_video_count(clip: Path, tmp_path: Path) -> None:
    """CogVideoX's own autoencoder makes eight frames of five: the receipt says what came out, and a warning that."""
    CONDITIONED["CogVideoXVideoToVideo"][0]().save_pretrained(tmp_path / "model")
    given = {**SHORT, "num_frames": 5, "negative_prompt": "dog"}
    with VideoGenerator.from_pretrained(tmp_path / "model") as generator:
        with pytest.warns(UserWarning, match="made 8 frames of 48x32, where 5 of 48x32 were asked for"):
            result = generator.generate_video("cat", **given, video_path=clip)
        assert result.receipt.num_frames == len(result.frames) == 8


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("WanAnimatePipeline", "which needs face_video and pose_video beside text"),
        ("HeliosPyramidPipeline", "which takes no num_inference_steps"),
    ],
)
def test_pipelines_that_need_more_are_refused(wan_folder: Path, tmp_path: Path, pipeline: str, message: str) -> None:
    import shutil

    shutil.copytree(wan_folder, tmp_path / "model")
    index = tmp_path / "model" / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": pipeline}))
    with pytest.raises(UnsupportedModelError, match=rf"is a {pipeline}, {message}.*attach\(pipe\)"):
        VideoGenerator.from_pretrained(tmp_path / "model")


def test_the_command_takes_them(experts: VideoGenerator, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from fastvideo_core.cli import fv

    size = ["--height", "32", "--width", "48", "--frames", "5", "--steps", "5", "--output", str(tmp_path)]
    led = ["--guidance-2", "4", "--flow-shift", "6", "--max-sequence-length", "16"]
    done = CliRunner().invoke(
        fv,
        ["generate", "cat", "--model", experts.info.name, *size, *led, "--json"],
    )
    receipt = json.loads(done.stdout)
    assert [receipt[name] for name in ("guidance_scale_2", "flow_shift", "max_sequence_length")] == [4.0, 6.0, 16]
    done = CliRunner().invoke(fv, ["generate", "cat", "--model", experts.info.name, *size, "--video", "a.mp4"])
    assert "it takes no video_path" in done.output


def test_fields_have_the_defaults_of_a_pipeline() -> None:
    params = SamplingParam()
    left_open = (params.guidance_scale_2, params.flow_shift, params.max_sequence_length, params.video_path)
    assert left_open == (None, None, None, None)


def test_a_guider_has_the_guidance_scale_for_one_video(tmp_path: Path) -> None:
    """HunyuanVideo-1.5 takes no guidance scale: a component of its pipeline has it."""
    models = pytest.importorskip("tests.support.models_hunyuan")
    pipe = models.build_hunyuan15_pipeline()
    inputs = PipelineInputs.of("HunyuanVideo15Pipeline", FAMILIES["HunyuanVideo-1.5"], "m")
    assert "guidance_scale" not in inputs.arguments
    own, seen = pipe.guider, []
    with guided(pipe, SamplingParam(guidance_scale=3.0), "m"):
        seen.append(pipe.guider.config.guidance_scale)
    with guided(pipe, SamplingParam(guidance_scale=0.0), "m"):
        seen.append(pipe.guider.config.guidance_scale)
    assert (seen, pipe.guider) == ([3.0, 1.0], own)


def test_a_pipeline_that_has_no_guidance_at_all_says_so() -> None:
    with (
        pytest.raises(InputError, match="m takes no guidance_scale, and has no guider that does"),
        guided(build_cogvideox_pipeline(), SamplingParam(), "m"),
    ):
        pass


def test_a_pipeline_that_picks_the_size_itself_takes_none_that_it_would_not_pick(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from diffusers.pipelines.hunyuan_video1_5.image_processor import HunyuanVideo15ImageProcessor
    from PIL import Image

    Image.new("RGB", (100, 80), "red").save(tmp_path / "red.png")
    inputs = PipelineInputs.of("HunyuanVideo15ImageToVideoPipeline", FAMILIES["Wan"], "m")
    assert "height" not in inputs.arguments
    assert inputs.needs == {"image"}
    processor = HunyuanVideo15ImageProcessor(vae_scale_factor=16, do_resize=True, do_convert_rgb=True)
    pipe = SimpleNamespace(video_processor=processor, target_size=640)
    assert image_for(pipe, tmp_path / "red.png", SamplingParam(height=480, width=848), inputs).size == (848, 480)
    with pytest.raises(InputError, match="height 480 and width 640 are none of the sizes that HunyuanVideo15Image"):
        image_for(pipe, tmp_path / "red.png", SamplingParam(height=480, width=640), inputs)
