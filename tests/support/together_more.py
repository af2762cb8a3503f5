"""More of what processes do together in the tests: many runs, runs that differ, and more families by sequence."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fastvideo_core import AttentionCall, Receipt, attach, setting
from tests.support import models
from tests.support.together_cases import PerHead

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
                models.run_to_latents(pipe, num_inference_steps=2)
        if number == 3:
            before = held()
    return before, held()


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
        return super()._attend(query, key, value, call) * self.settings.factor


def run_scaled(factors: list[float], parallel: Any) -> Receipt:
    """A run whose backend has another setting in each process."""
    pipe = models.build_wan_pipeline()
    pipe.set_progress_bar_config(disable=True)
    config = {"factor": factors[dist.get_rank()]}
    with attach(pipe, attention_backend=Scaled(), attention_config=config, parallel=parallel) as fv:
        models.run_to_latents(pipe, num_inference_steps=2)
        return fv.receipt
