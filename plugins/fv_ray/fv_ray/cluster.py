"""The Ray cluster: the one that there is, or one of our own; what its machines have, and whether that is enough."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastvideo_core.errors import InputError

_PASSED_ON = ("FASTVIDEO_", "HF_HUB_OFFLINE")
_KEPT = ("FASTVIDEO_API_KEY",)


@dataclass(frozen=True)
class Connection:
    """How we came to the cluster.

    Attributes:
        ours: whether it was connected to here, and is to be left here again.
        started: whether it was started for that, so that no machine can join it.
    """

    ours: bool
    started: bool


def connect(address: str | None = None) -> Connection:
    """Connect to a Ray cluster, unless this process is connected.

    Args:
        address: "auto", "local", HOST:PORT or ray://HOST:PORT; None: what RAY_ADDRESS names, else the cluster that
            runs on this machine, else a new one on this machine for as long as this process lives.

    Raises:
        InputError: there is no cluster at the address.
    """
    # Without these, Ray reports its use to its makers, and warns of what it will do without GPUs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return Connection(ours=False, started=False)
    named = address or os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address=named or "auto", logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if named:
            raise InputError(
                f"no Ray cluster can be reached at {named!r} ({_first_line(error)}); start one with `ray start "
                '--head`, or give "local" as address for one on this machine'
            ) from error
        named = "local"
        ray.init(address=named, logging_level=logging.ERROR)
    return Connection(ours=True, started=named == "local")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def machines() -> list[dict[str, float]]:
    """What each machine that is up has: such as {"CPU": 8.0, "GPU": 2.0}."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def problem_of(need: Mapping[str, float], sets: int, nodes: Sequence[Mapping[str, float]]) -> str:
    """Why the machines cannot hold so many sets of resources at once, each on one machine; "" where they can.

    Args:
        need: what a set is, such as {"GPU": 2.0}; only what is above 0 counts.
    """
    wanted = {name: amount for name, amount in need.items() if amount > 0}
    if not wanted:
        return ""
    fit = sum(min(int(node.get(name, 0.0) // amount) for name, amount in wanted.items()) for node in nodes)
    if fit >= sets:
        return ""
    each = " and ".join(f"{amount:g} {name}" for name, amount in wanted.items())
    have = "; ".join(", ".join(f"{node.get(name, 0.0):g} {name}" for name in wanted) for node in nodes)
    times = f"{sets} times {each}" if sets > 1 else each
    return f"{times}, each on one machine, {'are' if sets > 1 else 'is'} asked for, and the machines have: {have}"


def passed_on(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The option of an actor that gives it what this process's environment says of kernels and policies."""
    environment = os.environ if environment is None else environment
    variables = {
        name: value for name, value in environment.items() if name.startswith(_PASSED_ON) and name not in _KEPT
    }
    return {"runtime_env": {"env_vars": variables}} if variables else {}
