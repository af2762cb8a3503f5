"""What a model starts from and what leads it: checked against what its pipeline takes, before weights are loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from fastvideo_core.app.flow_shift import shift_problem
from fastvideo_core.app.input_files import video_length
from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.discovery.home import expanded
from fastvideo_core.errors import InputError


class Asked(Protocol):
    """What is looked at of the sampling parameters, which import this module."""

    image_path: str | Path | None
    video_path: str | Path | None
    num_frames: int
    negative_prompt: str
    guidance_scale: float
    guidance_scale_2: float | None
    flow_shift: float | None
    max_sequence_length: int | None


def misfits(params: Asked, info: ModelInfo) -> Iterator[str]:
    """What of the parameters the model's pipeline does not take, or lacks."""
    yield from _wrong_files(params, info)
    yield from _wrong_guidance(params, info)
    if params.flow_shift is not None and (problem := shift_problem(info.scheduler)):
        yield f"flow_shift is {params.flow_shift}, but {info.name} takes none: {problem}"
    yield from _wrong_text(params.max_sequence_length, info)


def _wrong_text(length: int | None, info: ModelInfo) -> Iterator[str]:
    if length is None:
        return
    if "max_sequence_length" not in info.inputs.arguments:
        yield f"max_sequence_length is {length}, but {info.name}, a {info.inputs.pipeline}, takes none"
    elif (only := _only_text_length(info.transformer)) not in (None, length):
        yield f"max_sequence_length is {length}, but the transformer of {info.name} counts on {only} tokens of text"


def _only_text_length(config: Mapping[str, Any]) -> int | None:
    """The number of text tokens that the transformer cannot do without; None if it takes any.

    Wan's, with an image encoder, takes its last 512 tokens for text and those before for the image's. CogVideoX's has
    positions for a fixed number, but for those with rotary embeddings alone.
    """
    if config.get("added_kv_proj_dim") is not None:
        return 512
    rotary_alone = config.get("use_rotary_positional_embeddings") and not config.get(
        "use_learned_positional_embeddings"
    )
    fixed = config.get("max_text_seq_length")
    return fixed if isinstance(fixed, int) and not rotary_alone else None


def _wrong_files(params: Asked, info: ModelInfo) -> Iterator[str]:
    inputs, sources = info.inputs, {"image": params.image_path, "video": params.video_path}
    taken = {"image": inputs.takes_image, "video": inputs.video is not None}
    for kind, path in sources.items():
        if path is None:
            if kind in inputs.needs:
                yield f"{info.name} starts from {'an image' if kind == 'image' else 'a video'}; give it as {kind}_path"
        elif not taken[kind]:
            yield f"{info.name}, a {inputs.pipeline}, {_takes(taken)}; it takes no {kind}_path"
        elif not expanded(path).is_file():
            yield f"{kind}_path {str(path)!r} is no file"
        elif kind == "video" and inputs.whole_video:
            yield from _wrong_length(path, params.num_frames)
    given = [kind for kind, path in sources.items() if path is not None]
    if inputs.needs_any and len(given) != 1:
        yield f"{info.name} starts from an image or a video; give one of image_path and video_path"


def _takes(taken: dict[str, bool]) -> str:
    kinds = [kind for kind, there in taken.items() if there]
    return f"starts from text and {kinds[0]}" if kinds else "makes videos from text alone"


def _wrong_length(path: str | Path, num_frames: int) -> Iterator[str]:
    try:
        there = video_length(path, num_frames)
    except InputError as error:
        yield str(error)
        return
    if there < num_frames:
        yield f"video_path {str(path)!r} has {there} frames, num_frames is {num_frames}; give a longer video, or fewer"


def _wrong_guidance(params: Asked, info: ModelInfo) -> Iterator[str]:
    if params.negative_prompt and info.family.guidance_is_built_in:
        yield f"{info.name} has its guidance built in; it takes no negative_prompt"
    elif params.negative_prompt and "negative_prompt" not in info.inputs.arguments:
        yield f"{info.name}, a {info.inputs.pipeline}, takes no negative_prompt"
    second = params.guidance_scale_2
    if second is None:
        return
    if "guidance_scale_2" not in info.inputs.arguments:
        yield f"guidance_scale_2 is {second}, but {info.name}, a {info.inputs.pipeline}, has one guidance scale"
    elif not info.has_two_experts:
        yield f"guidance_scale_2 is {second}, but {info.name} has one transformer, which guidance_scale is for"
    elif params.guidance_scale <= 1 < second:
        yield (
            f"guidance_scale_2 is {second}, which does nothing where guidance_scale is 1 or less; it is "
            f"{params.guidance_scale}"
        )
