"""A model under a short name, with the sampling parameters it was made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelPreset:
    """A model that users can name.

    Attributes:
        name: what users type, for example `shapes`.
        location: a local folder in diffusers format, or a hub id.
        sampling: values of `SamplingParam` fields that differ from its defaults.
        description: one line for listings.
        transformer: the class name of its transformer, by which its family is known; "" if only its files tell.
        task: what it makes a video of, such as "text to video"; "" likewise.
        parameters: by component of its pipeline, how many parameters that has, where it is known.
        flow_shift: by height and width, what the model's card gives for that size; that of the nearest size counts.
        score: tells of frames, (num_frames, height, width, 3) in 0…1, and a prompt what of it they show, per attribute;
            of a prompt that it cannot judge, a sentence that says why. None if nothing can tell.
    """

    name: str
    location: str
    sampling: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    score: Callable[[Any, str], dict[str, bool] | str] | None = None
    transformer: str = ""
    task: str = ""
    parameters: dict[str, int] = field(default_factory=dict)
    flow_shift: dict[tuple[int, int], float] = field(default_factory=dict)
