"""Call a pipeline with the sampling parameters, by the names that its own call has for them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from fastvideo_core.app.flow_shift import shift_in, shift_of_size, shifted
from fastvideo_core.app.input_files import open_image, open_video
from fastvideo_core.app.inputs import PipelineInputs
from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.app.result import Audio
from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.contract.receipt import Receipt
from fastvideo_core.errors import InputError


@contextmanager
def prepared(pipe: Any, params: SamplingParam, info: ModelInfo) -> Iterator[None]:
    """Give the pipeline what is no argument of its call, while the context lasts: the flow shift, a guider's scale."""
    with ExitStack() as stack:
        stack.enter_context(shifted(pipe, effective_shift(params, info)))
        if "guidance_scale" not in info.inputs.arguments:
            stack.enter_context(guided(pipe, params, f"{info.name}, a {info.pipeline},"))
        yield


def effective_shift(params: SamplingParam, info: ModelInfo) -> float | None:
    """The shift that is given, or that the preset has for the size; None where the scheduler's own stays."""
    if params.flow_shift is not None:
        return float(params.flow_shift)
    own = shift_of_size(info.preset, params.height, params.width)
    return own if shift_in(info.scheduler) is not None else None


def arguments_of(pipe: Any, prompt: str, params: SamplingParam, info: ModelInfo) -> dict[str, Any]:
    """Keyword arguments for the pipeline's call.

    Raises:
        InputError: a file cannot be read, or the pipeline makes a video of the image in another size.
    """
    inputs = info.inputs
    frame_rate = info.family.frame_rate_argument or ("frame_rate" if "frame_rate" in inputs.arguments else "fps")
    every: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": params.negative_prompt,
        "height": params.height,
        "width": params.width,
        "num_frames": params.num_frames,
        "frames": params.num_frames,  # as Sana calls it
        frame_rate: params.fps,
        "max_sequence_length": params.max_sequence_length,
        "num_inference_steps": params.num_inference_steps,
        "guidance_scale": float(params.guidance_scale),
        "guidance_scale_2": params.guidance_scale_2 and float(params.guidance_scale_2),
        "generator": torch.Generator("cpu").manual_seed(params.seed),
        "output_type": "np",
    }
    given = {name: value for name, value in every.items() if name in inputs.arguments | _ALWAYS and value is not None}
    if params.image_path is not None:
        given["image"] = image_for(pipe, params.image_path, params, inputs)
    if params.video_path is not None and inputs.video:
        given[inputs.video] = open_video(params.video_path, params.num_frames)
    return given


_ALWAYS = frozenset({"prompt", "generator", "output_type"})


def frames_of(output: Any) -> Any:
    """The frames of the one video that a pipeline has made, (num_frames, height, width, 3)."""
    return output.frames[0] if hasattr(output, "frames") else output.video[0]


def audio_of(output: Any, pipe: Any) -> Audio | None:
    """The audio that a pipeline with a vocoder has made."""
    audio = getattr(output, "audio", None)
    if audio is None:
        return None
    return Audio(audio[0].float().cpu().numpy(), int(pipe.vocoder.config.output_sampling_rate))


def note(receipt: Receipt, frames: Any, params: SamplingParam, info: ModelInfo) -> None:
    """Write into the receipt how the video was asked for, and what size it has."""
    shift = effective_shift(params, info)
    made, asked = (*frames.shape[:3],), (params.num_frames, params.height, params.width)
    if made != asked:
        told = "{0} frames of {2}x{1}, where {3} of {5}x{4} were asked for".format(*made, *asked)
        warnings.warn(f"the {info.pipeline} of {info.name} made {told}", stacklevel=2)
    receipt.num_frames, receipt.height, receipt.width = frames.shape[:3]
    receipt.fps, receipt.seed, receipt.guidance_scale = params.fps, params.seed, float(params.guidance_scale)
    receipt.guidance_scale_2 = None if params.guidance_scale_2 is None else float(params.guidance_scale_2)
    receipt.flow_shift = shift_in(info.scheduler) if shift is None else shift
    receipt.max_sequence_length = params.max_sequence_length
    receipt.input_image = None if params.image_path is None else str(params.image_path)
    receipt.input_video = None if params.video_path is None else str(params.video_path)


def image_for(pipe: Any, path: str | Path, params: SamplingParam, inputs: PipelineInputs) -> Any:
    """The image to start from; of the video's own size where the pipeline takes the size from it.

    Raises:
        InputError: it cannot be read, or the pipeline would make of it a video of another size.
    """
    image = open_image(path)
    if "height" in inputs.arguments:
        return image
    image = image.resize((params.width, params.height))
    sizes = getattr(getattr(pipe, "video_processor", None), "calculate_default_height_width", None)
    if sizes is not None:
        height, width = sizes(params.height, params.width, pipe.target_size)
        if (height, width) != (params.height, params.width):
            raise InputError(
                f"height {params.height} and width {params.width} are none of the sizes that {inputs.pipeline} picks "
                f"from for an image; the nearest is height {height}, width {width}"
            )
    return image


@contextmanager
def guided(pipe: Any, params: SamplingParam, what: str) -> Iterator[None]:
    """With a guider of that scale, where guidance is a component of the pipeline; 1 or less: none.

    Raises:
        InputError: it has no guider.
    """
    own = getattr(pipe, "guider", None)
    if own is None or "guidance_scale" not in own.config:
        raise InputError(f"{what} takes no guidance_scale, and has no guider that does")
    pipe.guider = own.new(guidance_scale=max(1.0, float(params.guidance_scale)))
    try:
        yield
    finally:
        pipe.guider = own
