"""A Ray cluster of this machine alone, for as long as a test needs it; skipped in words where Ray cannot start."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

not_waited_for = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
"""Of a test, or of all in a module: Ray kills the processes that it has started, and forgets them."""


@contextmanager
def local_ray(num_cpus: int) -> Iterator[None]:
    """Ray with so many CPU slots; at the end none of its processes is left."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, logging_level=logging.ERROR)
    except Exception as error:
        ray.shutdown()
        pytest.skip(f"Ray cannot start here: {error}")
    try:
        yield
    finally:
        ray.shutdown()
        gone()


def gone(seconds: float = 20) -> None:
    """Wait until no process of Ray's is left of those that this one started; fails if one stays."""
    until = time.monotonic() + seconds
    while left := {**processes_with("ray::"), **processes_with("raylet"), **processes_with("gcs_server")}:
        assert time.monotonic() < until, left
        time.sleep(0.05)
    gc.collect()  # what Ray has of them ends here, and not in whatever test comes later


def processes_with(text: str) -> dict[int, str]:
    """The descendants of this process whose command has the text, by id."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if state[0] != "Z":
            parents[int(folder.name)], commands[int(folder.name)] = int(state[1]), command

    def ours(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid == os.getpid():
                return True
        return False

    return {pid: command for pid, command in commands.items() if text in command and ours(pid)}
