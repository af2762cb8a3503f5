"""Where the processes of a video run: all on one machine, in a placement group."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from fastvideo_core.errors import ParallelError
from fv_ray.cluster import machines, problem_of

BESIDE = 0.01
"""The part of the first GPU that the actor has which starts the processes, for checking what the GPU can do."""

_SECONDS = 600.0
_SILENT_SECONDS = 5.0


def bundles_for(processes: int, gpus: bool, num_cpus: float = 1) -> list[dict[str, float]]:
    """The bundles of a placement group: one for each process."""
    return [{"GPU": 1.0} if gpus else {"CPU": num_cpus or 1.0} for _ in range(processes)]


@dataclass
class Placement:
    """A placement group, and whether it was made for this."""

    group: Any
    ours: bool

    def options(self, rank: int) -> dict[str, Any]:
        """Those of the actor for a process."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        bundle = self.group.bundle_specs[rank]
        gpus = bundle.get("GPU", 0.0)
        if gpus and not rank and not self.ours:
            gpus -= BESIDE
        return {
            "num_gpus": gpus,
            "num_cpus": bundle.get("CPU", 0.0),
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self.group, rank, True),
        }

    def remove(self) -> None:
        """Give the resources back."""
        from ray.util.placement_group import remove_placement_group

        if self.ours:
            remove_placement_group(self.group)


def reserve(processes: int, gpus: bool, fixed: bool) -> Placement:
    """The placement group that this actor is in, or a new one.

    Args:
        fixed: whether no other machine can join the cluster.

    Raises:
        ParallelError: the machines have too little; or it did not become free within FASTVIDEO_PARALLEL_TIMEOUT.
    """
    from ray.util import get_current_placement_group, placement_group

    current = get_current_placement_group()
    if current is not None and current.bundle_count >= processes:
        return Placement(current, ours=False)
    bundles = bundles_for(processes, gpus)
    need = {name: amount * processes for name, amount in bundles[0].items()}
    if fixed and (problem := problem_of(need, 1, machines())):
        raise ParallelError(f"{problem}; give fewer processes")
    placement = Placement(placement_group(bundles, strategy="STRICT_PACK", name="fastvideo"), ours=True)
    try:
        _wait(placement, need)
    except BaseException:
        placement.remove()
        raise
    return placement


def _wait(placement: Placement, need: dict[str, float]) -> None:
    limit = float(os.environ.get("FASTVIDEO_PARALLEL_TIMEOUT", "").strip() or _SECONDS)
    until = time.monotonic() + limit
    if placement.group.wait(min(limit, _SILENT_SECONDS)):
        return
    why = problem_of(need, 1, machines()) or f"others have what is asked for: {need} on one machine"
    print(f"waiting for Ray to place {len(placement.group.bundle_specs)} processes: {why}", file=sys.stderr, flush=True)
    if not placement.group.wait(max(0.0, until - time.monotonic())):
        raise ParallelError(
            f"Ray could not place the processes within {limit:g} s (FASTVIDEO_PARALLEL_TIMEOUT): {why}; give fewer, or "
            "wait until they are free"
        )
