"""Videos of the embedded model that are made quickly, whatever a page or an example asks for."""

from __future__ import annotations

from typing import Any

import pytest

from fastvideo_core import SamplingParam

SMALL = {"height": 64, "width": 64, "num_frames": 9}


def make_small(monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """Give the preset of the embedded model a smaller size, and more of other values."""
    made = SamplingParam.from_preset.__func__  # type: ignore[attr-defined]

    def from_preset(cls: Any, preset: Any) -> SamplingParam:
        params: SamplingParam = made(cls, preset)
        return params.with_overrides(**SMALL, **more) if preset is not None and preset.name == "shapes" else params

    monkeypatch.setattr(SamplingParam, "from_preset", classmethod(from_preset))
