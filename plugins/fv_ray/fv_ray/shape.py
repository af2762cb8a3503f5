"""How many actors a cluster gets, and what each of them has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastvideo_core.errors import InputError
from fv_ray.cluster import problem_of


@dataclass(frozen=True)
class Asked:
    """What `fv batch` was asked for: see its options."""

    concurrency: int | None = None
    num_gpus: int = 1
    num_processes: int = 1
    device: str | None = None


@dataclass(frozen=True)
class Shape:
    """What there is to be.

    Attributes:
        problem: why the machines that are there cannot hold that; "" where they can.
    """

    device: str
    concurrency: int
    num_gpus: int
    num_processes: int
    problem: str

    def arguments(self) -> dict[str, Any]:
        """Those of `map_videos`."""
        cpu = {"num_processes": self.num_processes, "num_cpus": 1}
        return {
            "concurrency": self.concurrency,
            "num_gpus": self.num_gpus,
            "device": self.device,
            **(cpu if self.device == "cpu" else {}),
        }


def shape_for(asked: Asked, machines: Sequence[Mapping[str, float]], rows: int) -> Shape:
    """As many actors as there are GPUs for, at most one for each row; one without GPUs, unless more are asked for.

    Raises:
        InputError: the options do not go together.
    """
    device = asked.device or ("cuda" if any(machine.get("GPU", 0) for machine in machines) else "cpu")
    if device == "cpu" and asked.num_gpus > 1:
        raise InputError(
            f"--num-gpus-per-video is {asked.num_gpus}, and the machines of the cluster have no GPUs: to try it give "
            f"--device cpu --num-processes {asked.num_gpus}"
            if asked.device is None
            else f"--num-gpus-per-video is {asked.num_gpus} with --device cpu; give --num-processes {asked.num_gpus}"
        )
    if device == "cuda" and asked.num_processes > 1:
        raise InputError(
            f"--num-processes is {asked.num_processes} on GPUs: give --num-gpus-per-video {asked.num_processes}, or "
            "--device cpu"
        )
    gpus = asked.num_gpus if device == "cuda" else 0
    need = {"GPU": float(gpus)} if gpus else {"CPU": float(asked.num_processes)}
    fitting = sum(int(machine.get("GPU", 0) // gpus) for machine in machines) if gpus else 1
    concurrency = min(asked.concurrency or max(1, fitting), max(1, rows))
    problem = problem_of(need, concurrency, machines)
    return Shape(device, concurrency, gpus, asked.num_processes, problem)
