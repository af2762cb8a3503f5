"""A generator whose videos several processes make: what it gives back, what it raises, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvideo_core import VideoGenerator
from fastvideo_core.app.processes import asked_degrees, check_processes
from fastvideo_core.app.workers.small_collective import problem_of_processes
from fastvideo_core.cli.doctor import _links
from fastvideo_core.errors import AttachError, InputError, ParallelError, UnknownPolicyError
from tests.support import models

PROMPT = "cat"
SIZE: dict[str, Any] = models.SIZE


def workers() -> list[Any]:
    return [one for one in active_children() if one.name.startswith("fastvideo-")]


def during_a_run(generator: VideoGenerator, action: Any) -> threading.Thread:
    """Do something a moment after the generator has begun."""

    def act() -> None:
        time.sleep(2)
        action()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_two_processes_are_as_one(wan_folder: Path, tmp_path: Path) -> None:
    with VideoGenerator.from_pretrained(wan_folder, device="cpu") as alone:
        expected = alone.generate_video(PROMPT, output_path=tmp_path / "one", **SIZE)
    with VideoGenerator.from_pretrained(wan_folder, device="cpu", num_processes=2, sp_size=2) as generator:
        ranks = {one.name: one.pid for one in workers()}
        assert sorted(ranks) == ["fastvideo-0", "fastvideo-1"]
        with generator.attention_timed() as seconds:
            results = generator.generate_video([PROMPT, "dog"], output_path=tmp_path / "two", **SIZE)
            assert seconds() > 0
        assert np.allclose(results[0].frames, expected.frames, atol=1e-5)
        first, path = results[0], results[0].video_path
        assert path is not None
        assert expected.video_path is not None
        assert path.read_bytes() == expected.video_path.read_bytes()
        assert sorted(path.suffix for path in (tmp_path / "two").iterdir()) == [".json", ".json", ".mp4", ".mp4"]
        shared = first.receipt.parallel
        assert shared is not None
        assert (shared.sequence, shared.guidance, [one.rank for one in shared.ranks]) == (2, 1, [0, 1])
        assert all(one.communication_seconds for one in shared.ranks)
        assert results[0].receipt.steps_computed == expected.receipt.steps_computed

        with pytest.raises(UnknownPolicyError, match="NOPE") as error:
            generator.generate_video(PROMPT, cache="NOPE", output_path=tmp_path, **SIZE)
        assert "in process 0" in error.value.__notes__[0]
        with pytest.raises(InputError, match="cannot be sent to other processes"):
            generator.generate_video(PROMPT, cache_config={"x": lambda: 0}, output_path=tmp_path, **SIZE)

        killer = during_a_run(generator, lambda: os.kill(ranks["fastvideo-1"], signal.SIGKILL))
        started = time.monotonic()
        with pytest.raises(ParallelError, match=r"process 1 of 2 was killed by SIGKILL.*memory"):
            generator.generate_video(PROMPT, output_path=tmp_path, **{**SIZE, "num_inference_steps": 900})
        assert time.monotonic() - started < 15
        killer.join()
        assert workers() == []
        with pytest.raises(ParallelError, match=r"process 1 of 2 was killed by SIGKILL.*; make a new one"):
            generator.generate_video(PROMPT, output_path=tmp_path, **SIZE)
    assert not list(tmp_path.glob(".partial*"))


@pytest.fixture
def ctrl_c_is_heard() -> Iterator[None]:
    """By these tests and by the processes that they start, also where pytest was started with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_start")
def test_weights_in_parts_and_tiles_make_the_same_video_and_ctrl_c_ends_the_processes(
    wan_folder: Path, tmp_path: Path, ctrl_c_is_heard: None
) -> None:
    size = {**SIZE, "height": 288, "width": 32, "num_frames": 1, "num_inference_steps": 2}
    with VideoGenerator.from_pretrained(wan_folder, device="cpu", vae_tiling=True) as alone:
        expected = alone.generate_video(PROMPT, save_video=False, cache="FIRSTBLOCK@0.3", **size)
    with VideoGenerator.from_pretrained(
        wan_folder, device="cpu", num_processes=2, shard_weights=True, vae_tiling=True
    ) as generator:
        result = generator.generate_video(PROMPT, save_video=False, cache="FIRSTBLOCK@0.3", **size)
        assert np.allclose(result.frames, expected.frames, atol=1e-5)
        assert result.receipt.parallel is not None
        assert result.receipt.parallel.sequence == 2

        during_a_run(generator, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            generator.generate_video(PROMPT, output_path=tmp_path, **{**SIZE, "num_inference_steps": 900})
        assert workers() == []
    with pytest.raises(AttachError, match="closed"):
        generator.generate_video(PROMPT, output_path=tmp_path, **SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_gpus": 2, "device": "cpu"}, "num_gpus is 2, and torch sees .* num_processes=2"),
        ({"num_gpus": 0}, "num_gpus is 0, it must be a whole number from 1 on"),
        ({"num_processes": 4, "device": "cpu", "sp_size": 3}, "3 x 2 = 6 processes, and there are 4"),
        ({"num_processes": 2, "device": "cpu", "cfg_parallel": "yes"}, "cfg_parallel is 'yes'"),
        ({"shard_weights": True}, "shard_weights needs several processes"),
        (
            {"num_processes": 2, "device": "cpu", "shard_weights": True, "cfg_parallel": True},
            "leave out cfg_parallel, and sp_size or give sp_size=2",
        ),
        (
            {"num_processes": 2, "device": "cpu", "distributed_executor_backend": "slurm"},
            "distributed_executor_backend is 'slurm'; installed are 'mp', 'ray'$",
        ),
    ],
)
def test_what_is_not_there_is_refused_before_anything_starts(
    wan_folder: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        VideoGenerator.from_pretrained(wan_folder, **options)
    assert workers() == []


def test_an_executor_that_can_be_had_is_named(wan_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIDEO_DISABLE_PLUGINS", "fv-ray")
    with pytest.raises(InputError, match="is 'ray'; installed are 'mp'; 'ray' comes with fv-ray: pip install fv-ray"):
        VideoGenerator.from_pretrained(wan_folder, device="cpu", num_processes=2, distributed_executor_backend="ray")


@pytest.mark.parametrize(
    ("processes", "sp_size", "cfg_parallel", "expected"),
    [
        (4, None, None, "auto"),
        (4, 4, None, {"sequence": 4, "guidance": 1}),
        (4, 2, None, {"sequence": 2, "guidance": 2}),
        (4, None, True, {"sequence": 2, "guidance": 2}),
        (4, None, False, {"sequence": 4, "guidance": 1}),
        (2, 1, True, {"sequence": 1, "guidance": 2}),
    ],
)
def test_degrees_by_the_names_of_fastvideo(
    processes: int, sp_size: int | None, cfg_parallel: bool | None, expected: object
) -> None:
    assert asked_degrees(processes, sp_size, cfg_parallel) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("quick_start")
def test_a_small_collective_is_tried() -> None:
    assert problem_of_processes(2, "cpu") == ""
    problem = problem_of_processes(1, "abacus")
    assert problem.startswith("process 0: ")
    assert "abacus" in problem
    assert workers() == []


def test_links_between_gpus() -> None:
    assert list(_links(2, lambda a, b: True)) == ["  all 2 GPUs reach one another's memory"]
    (line,) = _links(3, lambda a, b: b != 2)
    assert line.endswith("but for 0 and 2, 1 and 2, which talk through the computer's memory")


def test_processes_without_a_gpu() -> None:
    assert check_processes(1, 3, "cpu") == 3
    assert check_processes(1, 1, "cpu") == 1
