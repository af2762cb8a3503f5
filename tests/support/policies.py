"""Small caching policies, and the pipelines of every family to try them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from fastvideo_core import Action, Branch, CachePolicy, Computed, Signal, Step, setting
from tests.support import models

PIPELINES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "Wan 2.1": (models.build_wan_pipeline, {}),
    "Wan 2.1 image": (models.build_wan_image_pipeline, {"image": torch.full((3, 32, 48), 0.5)}),
    "Wan 2.2": (lambda: models.build_wan_pipeline(experts=2), {"num_inference_steps": 5}),
    "Wan 2.2 per token": (models.build_wan_per_token_pipeline, {}),
    "Wan 2.2 image per token": (models.build_wan_image_per_token_pipeline, {"image": torch.full((3, 32, 48), 0.5)}),
    "HunyuanVideo": (models.build_hunyuan_pipeline, {}),
    "LTX-Video": (
        models.build_ltx_pipeline,
        {"height": 64, "width": 96, "num_frames": 17, "negative_prompt": "dog"},
    ),
    "CogVideoX": (models.build_cogvideox_pipeline, {"max_sequence_length": 16}),
    "Mochi": (models.build_mochi_pipeline, {"num_frames": 13, "max_sequence_length": 16, "negative_prompt": "dog cat"}),
}
"""A pipeline of each kind with random weights, and what `run` needs beside the usual."""


@dataclass
class Scripted(CachePolicy):
    """Does what a script of letters says, C, R or F; keeps what it saw."""

    name = "SCRIPTED"
    main_setting: ClassVar[str | None] = "script"
    history = 3
    script: str = setting("C", "a letter a step")
    signal: Signal = Signal.NONE
    ahead: bool = setting(False, "whether it plans")
    first_blocks: int = 0
    last_blocks: int = 0
    branches_decide_together: bool = False
    sees_others: bool = False
    branches: list[Branch] = field(default_factory=list, compare=False)
    steps: list[Step] = field(default_factory=list, compare=False)
    residuals: list[torch.Tensor] = field(default_factory=list, compare=False)
    histories: list[tuple[int, ...]] = field(default_factory=list, compare=False)

    def _action(self, index: int) -> Action:
        letter = self.script[min(index, len(self.script) - 1)]
        return {"C": Action.COMPUTE, "R": Action.REUSE, "F": Action.FORECAST}[letter]

    def plan(self, branch: Branch) -> list[Action] | None:
        self.branches.append(branch)
        return [self._action(index) for index in range(branch.num_steps)] if self.ahead else None

    def decide(self, step: Step, state: Any) -> Action:
        self.steps.append(step)
        return self._action(step.index)

    def forecast(self, step: Step, state: Any, computed: Sequence[Computed]) -> torch.Tensor:
        self.histories.append(tuple(one.index for one in computed))
        return torch.stack([one.residual for one in computed]).mean(dim=0)

    def observe(self, step: Step, state: Any, residual: torch.Tensor) -> None:
        self.residuals.append(residual)
