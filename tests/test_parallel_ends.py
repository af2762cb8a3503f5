"""A rank that hangs, under the built-in executor and under another distribution's; processes that torchrun starts."""

from __future__ import annotations

import runpy
import time
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fastvideo_core import ParallelReceipt, VideoGenerator
from fastvideo_core.errors import PeerError
from tests.support import models
from tests.support.installed import write_distribution
from tests.support.together_cases import Failing

SIZE: dict[str, Any] = {**models.SIZE, "save_video": False}
LIMIT = 4
"""Seconds; to load a model at once two processes need some."""


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with an executor is installed."""
    folder = tmp_path / "site"
    source = "from tests.support.executors import api_version, fastvideo_executors\n"
    write_distribution(folder, "acme-sockets", "1.0", "acme_sockets", source, plugin="acme")
    monkeypatch.syspath_prepend(str(folder))


def workers() -> list[str]:
    return [one.name for one in active_children() if one.name.startswith(("fastvideo-", "sockets-"))]


@pytest.mark.slow
@pytest.mark.usefixtures("sockets", "quick_start")
@pytest.mark.parametrize(("executor", "hangs"), [("mp", 0), ("sockets", 1)])
def test_a_rank_that_hangs_is_an_error_in_time(
    wan_folder: Path, monkeypatch: pytest.MonkeyPatch, executor: str, hangs: int
) -> None:
    monkeypatch.setenv("FASTVIDEO_PARALLEL_TIMEOUT", str(LIMIT))
    with VideoGenerator.from_pretrained(
        wan_folder,
        attention_backend=Failing(hangs, sleeps=600.0),
        device="cpu",
        num_processes=2,
        sp_size=2,
        distributed_executor_backend=executor,
    ) as generator:
        assert len(workers()) == 2
        began = time.monotonic()
        with pytest.raises(PeerError) as error:
            generator.generate_video("cat", **SIZE)
        assert time.monotonic() - began < 2 * LIMIT
        assert workers() == []
    waited = rf"process {1 - hangs} of 2 did not get an answer from the others within {LIMIT} s"
    assert error.match(rf"^{waited} \(FASTVIDEO_PARALLEL_TIMEOUT\), in all_to_all of step 1, branch '\w+'\. ")
    assert error.match(rf"process {hangs} was last heard of \d+ s ago, in step 1, branch '\w+'")
    assert f"processes [{hangs}] did not come to an end, and were ended" in error.value.__notes__[-1]


def example(size: dict[str, Any]) -> ParallelReceipt:
    """What examples/parallel.py does in each of torchrun's processes, with a smaller video."""
    names = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "parallel.py"))
    names["SIZE"].update(size)
    shared: ParallelReceipt = names["under_torchrun"]().parallel
    return shared


@pytest.mark.slow
def test_the_example_in_four_processes_of_torchrun() -> None:
    get_context("forkserver").set_forkserver_preload(["tests.support.together_preload"])
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=4,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        start_method="forkserver",
    )
    size = {"height": 64, "width": 64, "num_frames": 5, "num_inference_steps": 2}
    receipts = elastic_launch(config, example)(size)
    assert sorted(receipts) == [0, 1, 2, 3]
    first = receipts[0]
    assert all(one == first for one in receipts.values())
    assert (first.processes, first.guidance, first.sequence) == (4, 2, 2)
    assert [(one.rank, one.device) for one in first.ranks] == [(rank, "cpu") for rank in range(4)]
    # Seven layers of shapes, each of them in both branches of the first step, and then in one.
    assert [one.calls for one in first.ranks] == [{"SELF": 21, "CROSS": 21}] * 4
    assert all(one.bytes_sent > 0 for one in first.ranks)
