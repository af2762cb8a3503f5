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
        score: tells of frames, (num_frames, height, width, 3) in 0…1, and a prompt what of it they show, per attribute;
            of a prompt that it cannot judge, a sentence that says why. None if nothing can tell.
    """

    name: str
    location: str
    sampling: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    score: Callable[[Any, str], dict[str, bool] | str] | None = None
