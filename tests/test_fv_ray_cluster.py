"""fv-ray on a real Ray, of this machine alone: an actor that is killed, and processes that make a video together."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from fastvideo_core import VideoGenerator, read_rows
from fastvideo_core.cli import fv
from fastvideo_core.errors import ParallelError
from tests.support.raying import gone, local_ray, not_waited_for, processes_with

pytestmark = [
    pytest.mark.slow,
    not_waited_for,
    pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning"),  # Ray Data's own, of its own settings
]

SMALL: dict[str, Any] = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 6}
OPTIONS = ("--height", "32", "--width", "32", "--frames", "5", "--steps", "6", "--device", "cpu")
PROMPT = "a red circle moving left on a white background"


@pytest.fixture(scope="module")
def alone() -> Iterator[VideoGenerator]:
    """A generator of this process alone."""
    pytest.importorskip("ray", reason="Ray is not installed")
    with VideoGenerator.from_pretrained("shapes", device="cpu") as generator:
        yield generator


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray that is there already; to start one takes as long as what the tests do with it."""
    with local_ray(2):
        yield


class Killer(threading.Thread):
    """Kills an actor as soon as the folder has a video, which is in the middle of another one.

    The other is stopped until the one that comes instead has made a video: it may make all that are left before.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder, self.seen = folder, set[int]()
        self.killed: int | None = None
        self.start()

    def run(self) -> None:
        if not within(200, lambda: self._videos() and len(processes_with("ray::MapWorker")) == 2):
            return
        self.seen = set(processes_with("ray::MapWorker"))
        self.killed, other = sorted(self.seen)
        os.kill(other, signal.SIGSTOP)
        try:
            os.kill(self.killed, signal.SIGKILL)
            before = self._videos()
            within(100, lambda: self._videos() - before)
        finally:
            os.kill(other, signal.SIGCONT)

    def _videos(self) -> set[Path]:
        return set(self._folder.glob("*.mp4"))


def within(seconds: float, what: Callable[[], object]) -> bool:
    """Wait until something is so, and whether it came to be."""
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_a_batch_of_videos_by_two_processes_each_and_ray_that_it_starts_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first, while there is no cluster that it would take instead."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    assert not ray.is_initialized()
    (tmp_path / "p.txt").write_text(f"{PROMPT}\n")
    monkeypatch.setenv("FASTVIDEO_CACHE_POLICY", "teacache")
    command = ["batch", "p.txt", "--output", "out", *OPTIONS, "--num-processes", "2", "--address", "local"]
    done = CliRunner().invoke(fv, [*command, "--set", "TEACACHE.threshold=0.35"])
    gone()
    assert done.exit_code == 0, done.output
    (file,) = (path for path in Path("out").glob("*.json"))
    receipt = json.loads(file.read_text())
    assert receipt["parallel"]["processes"] == 2
    assert (receipt["cache"]["policy"], receipt["cache"]["settings"]["threshold"]) == ("TEACACHE", 0.35)


def test_an_actor_that_is_killed_is_replaced_and_nothing_is_made_twice(
    alone: VideoGenerator, cluster: None, tmp_path: Path
) -> None:
    rows = [{"prompt": PROMPT, "id": f"row-{number}", "seed": number} for number in range(4)]
    file, folder, table = tmp_path / "p.jsonl", tmp_path / "out", tmp_path / "t.parquet"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    killer = Killer(folder)
    command = ["batch", str(file), "--output", str(folder), *OPTIONS, "--concurrency", "2", "--table", str(table)]
    done = CliRunner().invoke(fv, command)
    killer.join()
    assert done.exit_code == 0, done.output
    assert killer.killed is not None
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert sorted(line["id"] for line in lines) == [row["id"] for row in rows]
    assert {path.name for path in folder.iterdir()} == {
        "results.jsonl",
        *(f"{row['id']}{end}" for row in rows for end in (".mp4", ".json")),
    }
    from pyarrow import parquet

    made = parquet.read_table(table).to_pylist()
    pids = {int(row["process"].rpartition(":")[2]) for row in made}
    assert pids - killer.seen, "the actor that came for it made the row again"
    assert {row["status"] for row in made} <= {"made", "found"}
    found = list(alone.generate_videos(read_rows(file), **SMALL, output_path=folder))
    assert [(one.id, one.status.value) for one in found] == [(row["id"], "found") for row in rows]


def test_actors_make_a_video_together_and_one_that_dies_ends_it(
    alone: VideoGenerator, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone.generate_video(PROMPT, **SMALL, seed=5, save_video=False)
    generator = VideoGenerator.from_pretrained(
        "shapes", device="cpu", num_processes=2, distributed_executor_backend="ray"
    )
    result = generator.generate_video(PROMPT, **SMALL, seed=5, save_video=False)
    assert np.abs(result.frames - expected.frames).max() < 1e-4
    assert result.receipt.parallel is not None
    assert result.receipt.parallel.processes == 2
    workers = processes_with("ray::FastVideoWorker")
    assert len(workers) == 2
    os.kill(min(workers), signal.SIGKILL)
    with pytest.raises(ParallelError, match=r"^process \d of 2 died; Ray's logs of the actor may tell why; "):
        generator.generate_video(PROMPT, **SMALL, save_video=False)
    assert not generator.is_open
    monkeypatch.setenv("FASTVIDEO_PARALLEL_TIMEOUT", "0.5")
    told = r"within 0.5 s \(FASTVIDEO_PARALLEL_TIMEOUT\): 3 CPU, .* is asked for, and the machines have: 2 CPU"
    with pytest.raises(ParallelError, match=told):
        VideoGenerator.from_pretrained("shapes", device="cpu", num_processes=3, distributed_executor_backend="ray")
