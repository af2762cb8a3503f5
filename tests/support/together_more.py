"""More of what processes do together in the tests: many runs, runs that differ, and more families by sequence."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fastvideo_core import AttentionCall, Receipt, attach, setting
from tests.support import conditioned, models, models_hunyuan, models_ltx, models_more, models_wan
from tests.support.together_cases import (
    DECIDING,
    FIRST_BLOCK,
    FORECASTING,
    PLANNED,
    Case,
    PerHead,
    compared,
)

RUNS = 20


def held() -> dict[str, int]:
    """What this process has: threads, open files, tensors, and MiB of memory."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
    return {
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "tensors": sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()),
        "MiB": int(resident) // 1024,
    }


def run_many() -> tuple[dict[str, int], dict[str, int]]:
    """What is held after a few of 20 runs, two to an attachment, and after all of them."""
    pipe = models.build_wan_pipeline()
    pipe.set_progress_bar_config(disable=True)
    before: dict[str, int] = {}
    for number in range(RUNS // 2):
        parallel = {"sequence": 2} if number % 2 else {"guidance": 2}
        with attach(pipe, attention_backend="TORCH_SDPA", parallel=parallel):
            for _ in range(2):
                models.run_to_latents(pipe, num_inference_steps=1)
        if number == 3:
            before = held()
    after, until = held(), time.monotonic() + 5
    while after["tensors"] > before["tensors"] and time.monotonic() < until:  # gloo's threads may still hold the last
        time.sleep(0.05)
        after = held()
    return before, after


@dataclass
class Scale:
    """What two processes may have differently."""

    factor: float = setting(1.0, "what the result is multiplied by")


class Scaled(PerHead):
    """Has a setting."""

    name = "SCALED"
    settings_type = Scale

    def __init__(self) -> None:
        super().__init__(ordered=False)

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        scaled: torch.Tensor = super()._attend(query, key, value, call) * self.settings.factor
        return scaled


def run_scaled(factors: list[float], parallel: Any) -> Receipt:
    """A run whose backend has another setting in each process."""
    pipe = models.build_wan_pipeline()
    pipe.set_progress_bar_config(disable=True)
    config = {"factor": factors[dist.get_rank()]}
    with attach(pipe, attention_backend=Scaled(), attention_config=config, parallel=parallel) as fv:
        models.run_to_latents(pipe, num_inference_steps=2)
        return fv.receipt


_LTX2: dict[str, Any] = {**models_ltx.LTX2_SIZE, "num_inference_steps": 3}
_HUNYUAN15: dict[str, Any] = {**models_hunyuan.TEXT, "prompt": None, "guidance_scale": None}

MORE_MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "HunyuanVideo-1.5": (models_hunyuan.build_hunyuan15_pipeline, _HUNYUAN15),
    "LTX-2": (models_ltx.build_ltx2_pipeline, _LTX2),
    "Allegro": (models_hunyuan.build_allegro_pipeline, {}),
    **{name: conditioned.CONDITIONED[name] for name in ("HunyuanVideoImageToVideo", "CogVideoXImageToVideo")},
    **{name: models_wan.WANS[name] for name in ("VACE", "Animate", "SkyReels forcing image", "ChronoEdit")},
    **{name: models_more.MORE[name] for name in ("Kandinsky 5", "Cosmos 1", "Cosmos 2.5 video", "EasyAnimate")},
}
"""What builds a pipeline, and what it is called with."""


def _run_ltx2(pipe: Any, **options: Any) -> Any:
    return models_ltx.run_ltx2(pipe, **options).numpy()


def _run_allegro(pipe: Any, **options: Any) -> Any:
    given = {**models_hunyuan.PROMPTS, "negative_prompt": None, **models.SIZE, **options}
    generator = torch.Generator("cpu").manual_seed(7)
    return pipe(generator=generator, output_type="latent", **given).frames.numpy()


_RUNS: dict[str, Callable[..., Any]] = {"LTX-2": _run_ltx2, "Allegro": _run_allegro}
"""What calls it, where it takes or makes something else than others."""


FOUR_STEPS = {"num_inference_steps": 4}


def more_cases(size: int) -> dict[str, Case]:
    """What that many processes run of these: every kind of policy, and each model in an order of its own."""
    sequence: dict[str, int] = {"sequence": size}
    kinds = {
        "planned": Case("", sequence, PerHead, PLANNED, FOUR_STEPS),
        "forecasting": Case("", sequence, PerHead, FORECASTING, FOUR_STEPS),
        "behind the first block": Case("", sequence, PerHead, FIRST_BLOCK, FOUR_STEPS),
    }
    found = {
        f"{model}, {kind}": replace(kinds[kind], model=model)
        for model, kind in zip(MORE_MODELS, cycle(kinds), strict=False)
    }
    for model in ("VACE", "LTX-2"):
        found[f"{model}, deciding"] = Case(model, sequence, partial(PerHead, False), DECIDING, FOUR_STEPS)
    for model in ("LTX-2", "EasyAnimate"):
        found[f"{model}, in halves"] = Case(model, {"guidance": 2, "sequence": size // 2})
    # Its rotary embedding has a table with a row for each frame of latents: as many as there are branches.
    halves = {"guidance": 2, "sequence": size // 2}
    found["Allegro, two frames in halves"] = Case("Allegro", halves, options={"num_frames": 5})
    return found


def difference(size: int, name: str) -> Any:
    """As `together_cases.difference`."""
    case = more_cases(size)[name]
    return compared(case, *MORE_MODELS[case.model], _RUNS.get(case.model, models.run_to_latents))
