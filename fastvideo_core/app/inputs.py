"""What the call of a pipeline takes, read off its signature: the same for pipelines that no family names."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Self

from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.discovery.importing import uncollected
from fastvideo_core.errors import UnsupportedModelError

_VIDEOS = ("video", "control_video")
_USUAL = frozenset({"prompt", "negative_prompt", "height", "width", "num_frames", "num_inference_steps"})
_GIVEN = frozenset({"prompt", "image", *_VIDEOS})
_AS_LONG_AS_THE_VIDEO = frozenset({"WanVACEPipeline", "LucyEditPipeline"})
"""Pipelines that take a number of frames beside a video, which must have as many."""


@dataclass(frozen=True)
class PipelineInputs:
    """What a pipeline starts from, and how its call names it.

    Attributes:
        pipeline: its class.
        arguments: the names that its call takes.
        video: the argument for a video, if there is one: "video" or "control_video".
        needs: which of "image" and "video" it cannot do without.
        needs_any: whether it needs an image or a video, whichever.
        whole_video: whether a video must have as many frames as are to be made.
    """

    pipeline: str
    arguments: frozenset[str]
    video: str | None
    needs: frozenset[str]
    needs_any: bool
    whole_video: bool

    @classmethod
    def of(cls, pipeline: str, family: ModelFamily, model: str) -> Self:
        """What a pipeline of diffusers takes; one that diffusers lacks is taken for what its family says.

        Raises:
            UnsupportedModelError: it needs something that a generator cannot give.
        """
        parameters = _parameters(pipeline)
        if not parameters:
            image = {"image"} if pipeline in family.image_pipelines else set()
            rate = {family.frame_rate_argument} if family.frame_rate_argument else set()
            given = _USUAL | {"guidance_scale"} | image | rate
            return cls(pipeline, frozenset(given), None, frozenset(image), False, False)
        required = {name for name, one in parameters.items() if one.default is inspect.Parameter.empty}
        video = next((name for name in _VIDEOS if name in parameters), None)
        _check(pipeline, model, set(parameters), required)
        if video in required or video == "control_video" or (video and "VideoToVideo" in pipeline):
            required.add("video")
        if "image" in parameters and ("ImageToVideo" in pipeline or "Image2Video" in pipeline):
            required.add("image")
        whole = video is not None and ("num_frames" not in parameters or pipeline in _AS_LONG_AS_THE_VIDEO)
        any_will_do = "VideoToWorld" in pipeline or "Video2World" in pipeline
        return cls(pipeline, frozenset(parameters), video, frozenset(required & {"image", "video"}), any_will_do, whole)

    @property
    def takes_image(self) -> bool:
        return "image" in self.arguments

    @property
    def task(self) -> str:
        """What it makes a video of, for listings: such as "text to video" or "image to video"."""
        optional = [kind for kind, there in (("image", self.takes_image), ("video", self.video)) if there]
        if self.needs_any:
            return "image or video to video"
        if self.needs:
            return f"{' and '.join(sorted(self.needs))} to video"
        return " or ".join(["text", *optional]) + " to video"


def _parameters(pipeline: str) -> dict[str, inspect.Parameter]:
    with uncollected():
        import diffusers

        kind = getattr(diffusers, pipeline, None)
    if not isinstance(kind, type):
        return {}
    every = list(inspect.signature(kind.__call__).parameters.values())[1:]
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {one.name: one for one in every if one.kind not in unnamed}


def _check(pipeline: str, model: str, arguments: set[str], required: set[str]) -> None:
    by_hand = "load it with diffusers, and call fastvideo_core.attach(pipe)"
    if unknown := sorted(required - _GIVEN):
        raise UnsupportedModelError(
            f"{model} is a {pipeline}, which needs {' and '.join(unknown)} beside text, image and video; a "
            f"VideoGenerator has none: {by_hand}"
        )
    if "num_inference_steps" not in arguments:
        raise UnsupportedModelError(
            f"{model} is a {pipeline}, which takes no num_inference_steps, as a VideoGenerator gives them: {by_hand}"
        )
