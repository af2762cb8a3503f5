"""What is served: a model with its defaults, and what a request may choose."""

from __future__ import annotations

import os.path
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fv_serve.limits import Limits

if TYPE_CHECKING:
    from fastvideo_core import Choices, SamplingParam

SAMPLING = (
    "height",
    "width",
    "num_frames",
    "fps",
    "num_inference_steps",
    "guidance_scale",
    "guidance_scale_2",
    "flow_shift",
    "max_sequence_length",
    "negative_prompt",
    "seed",
)
"""Sampling parameters that a request may give."""


@dataclass(frozen=True)
class Served:
    """A model that is served.

    Attributes:
        model: its name for clients.
        info: what the core knows of it: `VideoGenerator.info`.
        defaults: the sampling parameters of a request that gives none.
        attention_backend, cache: those of a request that gives none, as they were given; None: the core's choice.
        choices: what a request may choose.
        check_choices: raises where settings do not fit: `VideoGenerator.check_choices`.
    """

    model: str
    info: Any
    defaults: SamplingParam
    attention_backend: str | None
    cache: str | None
    choices: Choices
    check_choices: Callable[..., None]
    limits: Limits

    def as_dict(self) -> dict[str, Any]:
        """For clients; beside what OpenAI's API has, what can be chosen here."""
        return {
            "id": self.model,
            "object": "model",
            "created": 0,
            "owned_by": "fastvideo-core",
            "defaults": {name: getattr(self.defaults, name) for name in SAMPLING},
            "default_attention_backend": self.attention_backend,
            "default_cache": self.cache,
            "attention_backends": list(self.choices.attention_backends),
            "cache_policies": list(self.choices.cache_policies),
            "takes_image": bool(self.info.inputs.takes_image),
        }


def name_for_clients(model: str) -> str:
    """A folder is called by its own name alone: where it lies is nobody's business."""
    path = Path(os.path.expanduser(model))
    return path.resolve().name if path.is_dir() else model
