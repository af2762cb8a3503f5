"""Join the processes that a launcher has started, with torch.distributed initialised or not."""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from fastvideo_core.discovery.environment import read_settings
from fastvideo_core.errors import ParallelError

_PORTS = (20000, 40000)


@dataclass(frozen=True)
class Launch:
    """Which process this is, and where the first one listens."""

    rank: int
    size: int
    address: str
    port: int


def time_limit() -> timedelta:
    """How long a process waits for the others."""
    return timedelta(seconds=read_settings().parallel_timeout)


def ensure_started(device: torch.device) -> None:
    """Have torch.distributed initialised, from what the launcher left in the environment if nobody has done it yet.

    Raises:
        ParallelError: there is nothing of a launcher, or the others cannot be reached.
    """
    if not dist.is_available():
        raise ParallelError(f"torch {torch.__version__} was built without torch.distributed; install one that has it")
    if dist.is_initialized():
        return
    launch = launch_of(os.environ)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"
    url = f"tcp://{launch.address}:{launch.port}"
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's agent has a store for all
            dist.init_process_group(backend, timeout=time_limit())
        else:
            dist.init_process_group(
                backend, init_method=url, rank=launch.rank, world_size=launch.size, timeout=time_limit()
            )
    except (RuntimeError, ValueError) as error:
        raise ParallelError(
            f"process {launch.rank} of {launch.size} cannot reach the others through {url}: {error}; start all of "
            "them, with the same MASTER_ADDR and MASTER_PORT"
        ) from error
    atexit.register(_leave)


def launch_of(environment: Mapping[str, str]) -> Launch:
    """What torchrun, SLURM, or another launcher that sets RANK and WORLD_SIZE, says of this process.

    Raises:
        ParallelError: nothing.
    """
    with suppress(KeyError, ValueError):
        return Launch(
            int(environment["RANK"]),
            int(environment["WORLD_SIZE"]),
            environment.get("MASTER_ADDR", "127.0.0.1"),
            int(environment.get("MASTER_PORT", "29500")),
        )
    with suppress(KeyError, ValueError):
        job = int(environment["SLURM_JOB_ID"])
        return Launch(
            int(environment["SLURM_PROCID"]),
            int(environment["SLURM_NTASKS"]),
            environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"]),
            int(environment.get("MASTER_PORT") or _PORTS[0] + job % (_PORTS[1] - _PORTS[0])),
        )
    raise ParallelError(
        "parallel= was asked for, and this process knows of no others: start them with torchrun --nproc-per-node N "
        "SCRIPT, or srun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; or let "
        "VideoGenerator.from_pretrained(…, num_gpus=N) start them"
    )


def first_host(nodes: str) -> str:
    """The first of SLURM's list of hosts, such as gpu[03-05,9],login."""
    match = re.match(r"([^\[,]+)(?:\[([^\],-]+)[^\]]*\])?([^,]*)", nodes)
    return "".join(part or "" for part in match.groups()) if match else nodes


def _leave() -> None:
    if dist.is_initialized():
        with suppress(Exception):  # the others may be gone
            dist.destroy_process_group()
