"""A script that was written for FastVideo 0.1.7: with another import, another model and smaller sizes it runs."""

from __future__ import annotations

import inspect
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core import SamplingParam, TeaCacheParams, VideoGenerator
from fastvideo_core.app.known_fields import INSTEAD
from fastvideo_core.errors import InputError, OutputError

SMALL: dict[str, Any] = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2}


@pytest.fixture
def generator(wan_folder: Path) -> Any:
    with VideoGenerator.from_pretrained(wan_folder, device="cpu") as opened:
        yield opened


def test_the_example_of_attention(wan_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIDEO_ATTENTION_FALLBACK", "TORCH_SDPA")  # there is no GPU for the one that it names
    monkeypatch.setitem(os.environ, "FASTVIDEO_ATTENTION_BACKEND", "FLASH_ATTN")
    with pytest.warns(UserWarning, match="offloading text_encoder does nothing: the device is 'cpu'"):
        gen = VideoGenerator.from_pretrained(
            model_path=wan_folder,
            num_gpus=1,
            dit_cpu_offload=False,
            vae_cpu_offload=False,
            text_encoder_cpu_offload=True,
            pin_cpu_memory=True,
            device="cpu",
        )
    result = gen.generate_video(prompt="noodles", seed=1024, output_path="example_outputs/", **SMALL)
    assert result.video_path == Path("example_outputs/noodles.mp4")
    assert result.receipt.seed == 1024
    gen.close()


def test_the_example_of_teacache(wan_folder: Path) -> None:
    gen = VideoGenerator.from_pretrained(
        model_path=wan_folder,
        num_gpus=1,
        dit_cpu_offload=False,
        vae_cpu_offload=False,
        text_encoder_cpu_offload=False,
        pin_cpu_memory=False,
        device=torch.device("cpu"),
    )
    params = SamplingParam.from_pretrained(model_path=str(wan_folder))
    params.teacache_params.teacache_thresh = 0.0
    params.teacache_params.coefficients = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"  # of another model than the one that runs
    with pytest.warns(UserWarning, match=r"threshold 0.0 is outside what was published"):
        result = gen.generate_video(
            prompt="noodles",
            sampling_param=params,
            **SMALL,
            enable_teacache=True,
            seed=1024,
            output_path="example_outputs/",
        )
    assert result.receipt.cache is not None
    assert result.receipt.cache.policy == "TEACACHE"
    assert sum(result.receipt.steps_skipped.values()) == 0
    gen.close()


def test_several_videos_of_a_prompt(generator: VideoGenerator) -> None:
    results: Any = generator.generate_video(
        "cat", seed=7, num_videos_per_prompt=3, output_video_name="tom.mp4", output_path="films", **SMALL
    )
    assert [one.receipt.seed for one in results] == [7, 8, 9]
    assert [one.video_path.name for one in results] == ["tom.mp4", "tom_1.mp4", "tom_2.mp4"]
    alone = generator.generate_video("cat", seed=9, save_video=False, **SMALL)
    assert (results[2].frames == alone.frames).all()


def test_frames_need_not_be_returned(generator: VideoGenerator) -> None:
    result = generator.generate_video("cat", return_frames=False, output_path="films", **SMALL)
    assert result.frames.shape == (0, 32, 32, 3)
    assert result.video_path is not None
    assert result.video_path.stat().st_size > 0


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"output_video_name": "a/b"}, "output_video_name must be the name of a file, without folders, not 'a/b'"),
        ({"output_video_name": "a", "output_path": "b.mp4"}, "both name the file"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt is 0, it must be 1 to 10000"),
        ({"save_video": "no"}, "save_video is 'no', it must be True or False"),
        ({"return_frames": 1}, "return_frames is 1, it must be True or False"),
        ({"sheet": "yes"}, "sheet is 'yes', it must be True or False"),
        ({"enable_teacache": 1}, "enable_teacache is 1, it must be True or False"),
        ({"enable_teacache": "yes"}, "enable_teacache is 'yes', it must be True or False"),
        ({"prompt_path": "p.txt"}, r"use instead: generate_video\(read_prompts\(path\)\)"),
        ({"guidance_rescale": 0.5}, "there is no sampling parameter 'guidance_rescale' here; use instead: attach"),
        ({"frames": 9}, "there is no sampling parameter 'frames' here; use instead: num_frames"),
        ({"steps": 9}, "use instead: num_inference_steps"),
        ({"output": "a.mp4"}, "use instead: output_path"),
        ({"heigth": 64}, "unknown sampling parameter 'heigth'; did you mean height"),
        ({"num_frames": 4093, "height": 16384, "width": 16384}, r"tokens: .* would take at least .* bytes .* has"),
    ],
)
def test_what_does_not_fit_is_refused(generator: VideoGenerator, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        generator.generate_video("cat", **{**SMALL, **fields})
    assert not list(Path.cwd().iterdir())


def test_unknown_attributes_are_refused() -> None:
    params = SamplingParam()
    with pytest.raises(InputError, match=r"unknown field of SamplingParam 'heigth'; did you mean height"):
        params.heigth = 64
    with pytest.raises(InputError, match=r"TeaCacheParams 'teacache_tresh'; did you mean teacache_thresh"):
        params.teacache_params.teacache_tresh = 0.9
    assert TeaCacheParams(teacache_thresh=0.1).settings() == {"threshold": 0.1}


def test_what_is_to_be_used_instead_is_there() -> None:
    """Where a piece of advice is the name of a parameter or names several, they are those of the generator."""
    taken = {
        *vars(SamplingParam()),
        *inspect.signature(VideoGenerator.from_pretrained).parameters,
        *inspect.signature(VideoGenerator.generate_video).parameters,
    }
    named = [advice for advice in INSTEAD.values() if re.fullmatch(r"\w+(, \w+)*( and \w+)?", advice)]
    assert {"guidance_scale", "image_path", "compile", "dtype"} <= set(named)
    for advice in named:
        assert set(re.split(", | and ", advice)) <= taken, advice
    assert not taken & set(INSTEAD) - {"prompt"}


def test_a_name_that_is_no_text_does_not_cost_the_video(generator: VideoGenerator) -> None:
    with pytest.raises((InputError, OutputError)):
        generator.generate_video("cat", output_video_name="w\udcff", **SMALL)
    result = generator.generate_video("cat", output_path="w\udcff", **SMALL)
    assert result.video_path is not None
    assert result.video_path.exists()


def test_loading_shows_no_bars_where_there_is_no_terminal(wan_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from diffusers.utils import logging

    before = logging.is_progress_bar_enabled()
    VideoGenerator.from_pretrained(wan_folder, device="cpu").close()
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert logging.is_progress_bar_enabled() == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_loading_is_one_bar_of_ours(wan_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", shown)
    VideoGenerator.from_pretrained(wan_folder, device="cpu").close()
    assert "loading transformer" in shown.getvalue()
    for theirs in ("Loading pipeline", "Loading weights", "Loading checkpoint", "it/s"):
        assert theirs not in shown.getvalue()
