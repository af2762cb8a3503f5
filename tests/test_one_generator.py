"""One generator: many prompts, several threads, videos that are not finite, and its end."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from fastvideo_core import AttentionCall, AttentionFunction, VideoGenerator
from fastvideo_core.cli import fv
from fastvideo_core.errors import AttachError, BackendOutputError, InputError, UnknownBackendError
from tests.support.backends import Recorder, plugins_with
from tests.support.models import SIZE

SHORT: dict[str, Any] = {**SIZE, "guidance_scale": 3.0, "seed": 7, "save_video": False}


@pytest.fixture
def generator(wan_folder: Path) -> Iterator[VideoGenerator]:
    with VideoGenerator.from_pretrained(wan_folder, device="cpu") as made:
        yield made


def parts(generator: VideoGenerator) -> dict[str, Any]:
    components: dict[str, Any] = generator._pipe.components
    return components


def fail_at(generator: VideoGenerator, video: int) -> None:
    """The autoencoder fails at the video of that number, from 1."""
    calls = count(1)

    def decoding(*args: Any) -> None:
        if next(calls) == video:
            raise RuntimeError("out of memory")

    parts(generator)["vae"].post_quant_conv.register_forward_pre_hook(decoding)


def test_a_list_that_fails_brings_along_what_is_done(generator: VideoGenerator) -> None:
    alone = [generator.generate_video(prompt, **SHORT).frames for prompt in ("cat", "dog")]
    fail_at(generator, 3)
    with pytest.raises(RuntimeError, match="out of memory") as failed:
        generator.generate_video(["cat", "dog", "cat dog", "cat"], **SHORT)
    done = failed.value.results  # type: ignore[attr-defined]
    assert [one.prompt for one in done] == ["cat", "dog"]
    assert all(np.array_equal(one.frames, frames) for one, frames in zip(done, alone, strict=True))


def test_an_iterator_keeps_no_video(generator: VideoGenerator) -> None:
    expected = generator.generate_video(["cat", "dog"], **SHORT)
    videos = generator.generate_videos(["cat", "dog", "cat"], **SHORT)
    first = next(videos)
    assert np.array_equal(first.frames, expected[0].frames)
    frames = weakref.ref(first.frames)
    gc.disable()
    try:
        del first
        assert frames() is None
        assert np.array_equal(next(videos).frames, expected[1].frames)
    finally:
        gc.enable()
    assert [one.prompt for one in videos] == ["cat"]


def test_an_iterator_refuses_before_its_first_video(generator: VideoGenerator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        generator.generate_videos(["cat", ""], **SHORT)
    with pytest.raises(InputError, match="height 100"):
        generator.generate_videos(["cat"], **{**SHORT, "height": 100})
    videos = generator.generate_videos(["cat", "dog"], **SHORT)
    next(videos)
    generator.close()
    with pytest.raises(AttachError, match="closed"):
        next(videos)


def test_each_video_of_an_iterator_has_the_policy_that_was_asked_for(generator: VideoGenerator) -> None:
    videos = generator.generate_videos(["cat", "dog"], **SHORT, cache="TAYLORSEER@2:warm_up=1")
    assert next(videos).receipt.cache is not None
    assert generator.generate_video("cat", **SHORT).receipt.cache is None
    assert next(videos).receipt.cache is not None


class Paused:
    """A video in a thread of its own that stops at some place until it is let go."""

    def __init__(self, generator: VideoGenerator, **options: Any) -> None:
        self.reached, self._go_on = threading.Event(), threading.Event()
        self._result: list[Any] = []
        self._thread = threading.Thread(
            target=lambda: self._result.append(generator.generate_video("cat", **{**SHORT, **options})), name="other"
        )

    def wait(self, *args: Any) -> None:
        if threading.current_thread() is self._thread:
            self.reached.set()
            assert self._go_on.wait(60)

    def __enter__(self) -> Paused:
        self._thread.start()
        assert self.reached.wait(60)
        return self

    def __exit__(self, *error: object) -> None:
        self._go_on.set()
        self._thread.join(60)

    @property
    def frames(self) -> Any:
        return self._result[0].frames


@pytest.mark.parametrize("place", ["text_encoder", "transformer", "vae", "file"])
def test_a_second_call_is_refused_at_once_and_the_first_is_right(
    generator: VideoGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    expected = generator.generate_video("cat", **SHORT).frames
    saved = {"save_video": True, "output_path": tmp_path}
    first = Paused(generator, **(saved if place == "file" else {}))
    if place == "file":
        from fastvideo_core.app import output

        to_bytes = output.to_bytes

        def paused(frames: Any) -> Any:
            first.wait()
            return to_bytes(frames)

        monkeypatch.setattr(output, "to_bytes", paused)
    else:
        module = parts(generator)[place]
        (module.decoder if place == "vae" else module).register_forward_pre_hook(first.wait)
    with first:
        for call in (
            lambda: generator.generate_video("dog", **SHORT),
            lambda: generator.generate_videos(["dog"], **SHORT),
        ):
            with pytest.raises(AttachError, match="it is generating in thread 'other', one video at a time"):
                call()
        with pytest.raises(AttachError, match="cannot close in thread"):
            generator.close()
        with pytest.raises(ZeroDivisionError) as error, generator:
            _ = 1 / 0
        assert "cannot close in thread" in error.value.__notes__[0]
    assert np.array_equal(first.frames, expected)
    assert np.array_equal(generator.generate_video("cat", **SHORT).frames, expected)


def test_a_call_within_a_call_is_refused(generator: VideoGenerator) -> None:
    seen: list[AttachError] = []

    def again(*args: Any) -> None:
        with pytest.raises(AttachError, match="one video at a time") as refused:
            generator.generate_video("dog", **SHORT)
        seen.append(refused.value)

    parts(generator)["text_encoder"].register_forward_pre_hook(again)
    generator.generate_video("cat", **SHORT)
    assert seen


class Nans(Recorder):
    """Returns NaN everywhere."""

    def load(self) -> AttentionFunction:
        def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            return torch.full_like(query, torch.nan)

        return attend


def test_frames_that_are_not_finite_name_the_backend(
    wan_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("engine.attachment", "app.generator"):
        monkeypatch.setattr(f"fastvideo_core.{module}.load_plugins", lambda: plugins_with(Nans("NANS")))
    with VideoGenerator.from_pretrained(wan_folder, attention_backend="NANS") as generator:
        message = r"9 of 9 frames hold NaN or infinity, .* computed by NANS in float32; no file was written"
        with pytest.raises(BackendOutputError, match=message) as failed:
            generator.generate_video("cat", **{**SHORT, "save_video": True, "output_path": tmp_path / "out"})
    assert np.isnan(failed.value.result.frames).all()
    assert failed.value.result.receipt.attention["SELF"].backend == "NANS"
    assert failed.value.result.video_path is None
    assert list((tmp_path / "out").iterdir()) == []


def test_generate_ends_with_one_line_where_frames_are_not_finite(wan_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(wan_folder, tmp_path / "model")
    file = tmp_path / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["proj_out.bias"][0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    options = ("--height", "32", "--width", "48", "--frames", "5", "--steps", "2", "--output", str(tmp_path / "out"))
    done = CliRunner().invoke(fv, ["generate", "cat", "--model", str(tmp_path / "model"), *options])
    assert done.exit_code == 1
    (line,) = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    assert "5 of 5 frames hold NaN or infinity" in line
    assert list((tmp_path / "out").iterdir()) == []


def generate(generator: VideoGenerator) -> None:
    generator.generate_video("cat", **SHORT)


def generate_cached(generator: VideoGenerator) -> None:
    generator.generate_video("cat", **SHORT, cache="TAYLORSEER@2:warm_up=1")


def fail(generator: VideoGenerator) -> None:
    fail_at(generator, 1)
    with pytest.raises(RuntimeError, match="out of memory"):
        generator.generate_video("cat", **SHORT)


def leave_an_iterator(generator: VideoGenerator) -> None:
    next(generator.generate_videos(["cat", "dog"], **SHORT))


def nothing(generator: VideoGenerator) -> None:
    pass


def offload(generator: VideoGenerator) -> None:
    from diffusers.hooks import apply_group_offloading

    for name in ("transformer", "vae", "text_encoder"):
        apply_group_offloading(parts(generator)[name], onload_device=torch.device("cpu"), offload_type="leaf_level")
    generate(generator)


@pytest.mark.parametrize("use", [nothing, generate, generate_cached, fail, leave_an_iterator, offload])
def test_a_closed_generator_lets_go_of_its_model(wan_folder: Path, use: Callable[[VideoGenerator], None]) -> None:
    gc.collect()
    gc.disable()
    try:
        generator = VideoGenerator.from_pretrained(wan_folder, device="cpu")
        models = [part for part in parts(generator).values() if isinstance(part, torch.nn.Module)]
        modules = [module for model in models for module in model.modules()]
        held: list[weakref.ref[Any]] = [weakref.ref(generator._pipe), *map(weakref.ref, modules)]
        assert len(models) == 3
        del models, modules
        use(generator)
        generator.close()
        generator.close()
        assert [reference() for reference in held] == [None] * len(held)
    finally:
        gc.enable()
    with pytest.raises(AttachError, match="closed"):
        generator.generate_video("cat", **SHORT)


def test_the_attention_backend_can_be_changed(generator: VideoGenerator) -> None:
    assert "TORCH_SDPA" in generator.choices().attention_backends
    assert {"TAYLORSEER", "FIRSTBLOCK"} <= {*generator.choices().cache_policies}
    assert generator.choices().file_settings.keys().isdisjoint({"TAYLORSEER", "FIRSTBLOCK", "NEIGHBORHOOD"})
    plain = generator.generate_video("cat", **SHORT)
    generator.use_attention("NEIGHBORHOOD@frames=0:dense=0:dense_layers=0")
    windowed = generator.generate_video("cat", **SHORT)
    assert windowed.receipt.attention["SELF"].settings["dense"] == 0
    assert not np.array_equal(windowed.frames, plain.frames)
    with pytest.raises(UnknownBackendError):
        generator.use_attention("NO_SUCH")
    assert np.array_equal(generator.generate_video("cat", **SHORT).frames, windowed.frames)
    generator.use_attention(None)
    again = generator.generate_video("cat", **SHORT)
    assert np.array_equal(again.frames, plain.frames)
    assert again.receipt.requested_backend is None


def test_rows_that_are_found_are_of_the_backend_of_now(generator: VideoGenerator, tmp_path: Path) -> None:
    options = {**SHORT, "save_video": True, "output_path": tmp_path}
    row = {"prompt": "cat", "id": "x"}
    for backend, status in (
        ("NEIGHBORHOOD@frames=1", "made"),
        ("TORCH_SDPA", "failed"),
        ("NEIGHBORHOOD@frames=0", "failed"),
    ):
        generator.use_attention(backend)
        assert next(generator.generate_videos([row], **options)).status == status
    generator.use_attention("NEIGHBORHOOD@frames=1")
    assert next(generator.generate_videos([row], **options)).status == "found"
