"""Videos of the embedded model that are made quickly, whatever a page or an example asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from diffusers import WanPipeline

from fastvideo_core import SamplingParam

SMALL = {"height": 64, "width": 64, "num_frames": 9}
FEW = {"num_inference_steps": 4, "max_sequence_length": 64}
"""What diffusers' pipeline takes where none is asked for, in place of 50 steps and 512 tokens of text."""


def make_small(monkeypatch: pytest.MonkeyPatch, steps: Callable[[], int] | None = None) -> None:
    """Give the preset of the embedded model a smaller size, and as many steps as the function says."""
    made = SamplingParam.from_preset.__func__  # type: ignore[attr-defined]

    def from_preset(cls: Any, preset: Any) -> SamplingParam:
        params: SamplingParam = made(cls, preset)
        if preset is None or preset.name != "shapes":
            return params
        return params.with_overrides(**SMALL, **({"num_inference_steps": steps()} if steps else {}))

    monkeypatch.setattr(SamplingParam, "from_preset", classmethod(from_preset))
    call = inspect.unwrap(WanPipeline.__call__)
    defaults = {name: one.default for name, one in inspect.signature(call).parameters.items() if name != "self"}
    monkeypatch.setattr(call, "__defaults__", tuple({**defaults, **FEW}.values()))
