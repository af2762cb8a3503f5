"""Processes that run test cases together, over gloo: started once, for many cases."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

PATIENCE = 120.0
"""Seconds that a case may take."""

_CASES = "tests.support.together_preload"


class Together:
    """A group of processes, each with an end of a pipe."""

    def __init__(self, processes: list[Any], pipes: list[Any]) -> None:
        self.processes, self._pipes = processes, pipes

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What the function returns in each process; of one that raises, the exception."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        results = []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(PATIENCE), f"process {rank} did not come to the end of {function.__name__}{arguments}"
            results.append(pipe.recv())
        return results


@contextmanager
def together(
    size: int, folder: Path, environments: Mapping[int, Mapping[str, str]] | None = None
) -> Iterator[Together]:
    """That many processes, in one group of torch.distributed.

    Args:
        environments: variables of the environment, by rank.
    """
    context = get_context("forkserver")  # what takes longest, to import the libraries, is done once
    context.set_forkserver_preload([_CASES])
    store = folder / f"store-{size}-{len(list(folder.iterdir()))}"
    processes, pipes = [], []
    for rank in range(size):
        here, there = context.Pipe()
        arguments = (rank, size, str(store), dict((environments or {}).get(rank, {})), there)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        there.close()
        processes.append(process)
        pipes.append(here)
    try:
        yield Together(processes, pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(10)
            process.kill()
            process.join()


def _serve(rank: int, size: int, store: str, environment: dict[str, str], pipe: Any) -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", **environment}
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            result = function(*arguments)
        except BaseException as error:
            error.add_note("".join(traceback.format_exception(error)))
            result = error
        pipe.send(result)
