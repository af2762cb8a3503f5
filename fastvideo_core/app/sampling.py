"""Sampling parameters, their presets, and the check that they fit a model before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from fastvideo_core.app.conditions import misfits
from fastvideo_core.app.known_fields import KnownFields
from fastvideo_core.app.model_info import ModelInfo, find_preset, read_model
from fastvideo_core.app.prompts import is_writable
from fastvideo_core.contract.model import Geometry
from fastvideo_core.contract.preset import ModelPreset
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.errors import InputError, PluginError

MAX_STEPS = 1000


_WHOLE_NUMBERS = (
    "height",
    "width",
    "num_frames",
    "fps",
    "num_inference_steps",
    "max_sequence_length",
    "seed",
    "num_videos_per_prompt",
)


@dataclass
class TeaCacheParams(KnownFields):
    """Settings of the caching policy TEACACHE, as FastVideo names them; for any other policy they mean nothing.

    Attributes:
        teacache_thresh: the higher, the more steps are skipped; None for the policy's default for the model.
        use_ret_steps: the other published variant for Wan 2.1; None for the policy's default.
        coefficients: of the polynomial, highest power first; or a file that `fv teacache calibrate` wrote; or the name
            of a model whose published ones to use; None for those of the model itself.
    """

    teacache_thresh: float | None = None
    use_ret_steps: bool | None = None
    coefficients: Sequence[float] | str | Path | None = None

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Settings from a line of JSON.

        Raises:
            InputError: a name is not a field.
        """
        cls.check_known("setting in teacache_params", values)
        return cls(**values)

    def settings(self) -> dict[str, Any]:
        """Those that are given, under the policy's own names."""
        named = {
            "threshold": self.teacache_thresh,
            "use_ret_steps": self.use_ret_steps,
            "coefficients": self.coefficients,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass
class SamplingParam(KnownFields):
    """How to generate a video. Defaults are those of Wan 2.1 at 480p.

    Attributes:
        height: in pixels; must be a multiple that the model can do, it is never changed.
        width: likewise.
        num_frames: length; must be one more than a multiple of what the autoencoder compresses (4 for Wan).
        fps: frames per second of the file.
        num_inference_steps: denoising steps.
        guidance_scale: classifier-free guidance; 1 or less switches it off and halves the work.
        guidance_scale_2: that of the second expert of Wan 2.2; None for the first one's.
        flow_shift: of the noise schedule; None for what the model's preset says for the size, else for the scheduler's.
        negative_prompt: what the guidance leads away from.
        max_sequence_length: tokens that a prompt is padded to, the most that is read of it; None for the pipeline's.
        image_path: the image that an image-to-video model starts from; scaled to height and width.
        video_path: the video that a video-to-video or control model starts from; its first num_frames frames, scaled.
        seed: same seed, same video.
        teacache_params: settings of TEACACHE, where that is asked for.
        num_videos_per_prompt: how many videos of each prompt, the first of `seed`, the next of `seed` + 1, ….
        output_path: a folder, or a file ending in .mp4; nothing is ever overwritten.
        output_video_name: the name of the file in that folder; default: made of the prompt.
        save_video: whether to write files at all.
        return_frames: whether the result has the frames; False where many videos would fill the memory.
        sheet: whether to write a PNG contact sheet beside the video.
    """

    height: int = 480
    width: int = 832
    num_frames: int = 81
    fps: int = 16
    num_inference_steps: int = 50
    guidance_scale: float = 5.0
    guidance_scale_2: float | None = None
    flow_shift: float | None = None
    negative_prompt: str = ""
    max_sequence_length: int | None = None
    image_path: str | Path | None = None
    video_path: str | Path | None = None
    seed: int = 1024
    teacache_params: TeaCacheParams = field(default_factory=TeaCacheParams)
    num_videos_per_prompt: int = 1
    output_path: str | Path = "outputs/"
    output_video_name: str | None = None
    save_video: bool = True
    return_frames: bool = True
    sheet: bool = False

    @classmethod
    def from_pretrained(cls, model_path: str | Path) -> Self:
        """The parameters that a model was made for, if a preset knows it; the defaults otherwise."""
        return cls.from_preset(find_preset(load_plugins(), str(model_path)))

    @classmethod
    def from_preset(cls, preset: ModelPreset | None) -> Self:
        """The parameters of a preset; the defaults without one."""
        try:
            return cls().with_overrides(**preset.sampling) if preset else cls()
        except InputError as error:
            raise PluginError(f"the model preset {preset and preset.name} gives an {error}; report it") from error

    def with_overrides(self, **overrides: Any) -> Self:
        """A copy with some fields changed.

        Raises:
            InputError: a name is not a field.
        """
        self.check_known("sampling parameter", overrides)
        return replace(self, **overrides)

    def grid(self, info: ModelInfo) -> tuple[int, int, int]:
        """Tokens of the video along time, height and width."""
        return info.geometry.grid(self.num_frames, self.height, self.width)

    def check(self, info: ModelInfo) -> None:
        """Refuse what does not fit the model.

        Raises:
            InputError: with every problem, its numbers, and what would fit.
        """
        if problems := [*self._wrong_types(), *self._wrong_values()] or [
            *self._misfits(info.geometry, info.name),
            *misfits(self, info),
        ]:
            raise InputError("; ".join(problems))

    def check_steps(self) -> None:
        """Refuse a number of steps that no model can do.

        Raises:
            InputError: it is not a whole number from 1 to 1000.
        """
        if problems := [
            p for p in (*self._wrong_types(), *self._wrong_values()) if p.startswith("num_inference_steps")
        ]:
            raise InputError("; ".join(problems))

    def _wrong_types(self) -> Iterator[str]:
        for name in _WHOLE_NUMBERS:
            value = getattr(self, name)
            left_open = value is None and name == "max_sequence_length"
            if not left_open and (isinstance(value, bool) or not isinstance(value, int)):
                yield f"{name} must be a whole number, not {value!r}"
        for name in ("guidance_scale", "guidance_scale_2", "flow_shift"):
            value = getattr(self, name)
            left_open = value is None and name != "guidance_scale"
            if not left_open and (isinstance(value, bool) or not isinstance(value, int | float)):
                yield f"{name} must be a number, not {value!r}"
        if not isinstance(self.negative_prompt, str):
            yield f"negative_prompt must be text, not {self.negative_prompt!r}"
        elif not is_writable(self.negative_prompt):
            yield f"negative_prompt {self.negative_prompt!r} holds half a character (a lone surrogate)"
        for name in ("image_path", "video_path"):
            if not isinstance(getattr(self, name), str | Path | None):
                yield f"{name} must be a path, not {getattr(self, name)!r}"
        if not isinstance(self.teacache_params, TeaCacheParams):
            yield f"teacache_params must be TeaCacheParams, not {self.teacache_params!r}"
        if not isinstance(self.output_path, str | Path):
            yield f"output_path must be a path, not {self.output_path!r}"
        if self.output_video_name is not None and not _is_file_name(self.output_video_name):
            yield f"output_video_name must be the name of a file, without folders, not {self.output_video_name!r}"
        for name in ("save_video", "return_frames", "sheet"):
            if not isinstance(getattr(self, name), bool):
                yield f"{name} is {getattr(self, name)!r}, it must be True or False"

    def _wrong_values(self) -> Iterator[str]:
        limits = {
            "height": (1, math.inf),
            "width": (1, math.inf),
            "num_frames": (1, math.inf),
            "fps": (1, 240),
            "num_inference_steps": (1, MAX_STEPS),
            "seed": (0, 2**63 - 1),
            "guidance_scale": (0, 1000),
            "guidance_scale_2": (0, 1000),
            "flow_shift": (0.01, 100),
            "max_sequence_length": (1, 4096),
            "num_videos_per_prompt": (1, 10_000),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if isinstance(value, int | float) and not low <= value <= high:
                yield f"{name} is {value}, it must be " + (f"{low} or more" if high == math.inf else f"{low} to {high}")

    def _misfits(self, geometry: Geometry, what: str) -> Iterator[str]:
        longest = math.inf if geometry.max_tokens is None else geometry.max_tokens
        for name, multiple in zip(("height", "width"), geometry.pixels_per_token, strict=True):
            value = getattr(self, name)
            if value % multiple:
                near = _near(value, multiple)
                yield f"{name} {value} is not a multiple of {multiple}, as {what} needs; near it: {near}"
            elif value // multiple > longest:
                yield f"{name} {value} is too large, {what} reaches {longest * multiple}"
        stride = geometry.frames_per_token
        if (self.num_frames - 1) % stride:
            yield (
                f"num_frames {self.num_frames} is not one more than a multiple of {stride}, as {what} needs; near it: "
                f"{_near(self.num_frames - 1, stride, 1)}"
            )
        elif (self.num_frames - 1) // stride >= longest:
            yield f"num_frames {self.num_frames} is too many, {what} reaches {(longest - 1) * stride + 1}"


def check_sampling(model_path: str, given: Mapping[str, Any]) -> tuple[SamplingParam, ModelInfo]:
    """The sampling parameters for a model, with those that were given, checked before its weights are loaded.

    Raises:
        ModelError: the model is not found, or not supported.
        InputError: a parameter does not fit it.
    """
    info = read_model(load_plugins(), model_path)
    params = SamplingParam.from_preset(info.preset).with_overrides(**given)
    params.check(info)
    return params, info


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and is_writable(name) and bool(name.strip(" .")) and not set(name) & set("/\\\0\n")


def _near(value: int, multiple: int, offset: int = 0) -> str:
    below = value // multiple * multiple
    candidates = (below, below + multiple) if below or offset else (below + multiple,)
    return " or ".join(str(candidate + offset) for candidate in candidates)
