"""`examples/serve_ray.py` on a Ray of this machine: two generators, of which one is killed, and then the replica."""

from __future__ import annotations

import os
import runpy
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from click.testing import CliRunner

from tests.support.raying import local_ray, not_waited_for, processes_with

pytest.importorskip("ray.serve", reason="ray[serve] is not installed")

from fv_serve.job import Asked, Job
from fv_serve.limits import Limits
from fv_serve.making import Made
from fv_serve.running import Running
from fv_serve.start import Settings, alone, bound_to

pytestmark = [pytest.mark.slow, not_waited_for]

EXAMPLE = Path(__file__).parents[1] / "examples" / "serve_ray.py"
SMALL = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 4}
LONG = {"height": 128, "width": 128, "num_frames": 33, "num_inference_steps": 900}
"""Still being made when the test ends."""


@pytest.fixture(scope="module")
def example() -> Iterator[dict[str, Any]]:
    """The example's names, with a Ray to run them on; what diffusers says where it is first imported has been said."""
    import diffusers.pipelines.wan.pipeline_wan  # noqa: F401

    with local_ray(2):
        yield runpy.run_path(str(EXAMPLE))


def until(what: Callable[[], Any], seconds: float = 120) -> Any:
    """What a call gives, as soon as that is something; a service that is away is asked again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := what():
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def kill_one(name: str) -> int:
    killed = min(processes_with(name))
    os.kill(killed, signal.SIGKILL)
    return killed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "a-file"), "'a-file' cannot be written to: "),
        (("--output", "in-use"), "another fv serve has the folder 'in-use'"),
        (("--cache", "TEACASH"), "unknown caching policy 'TEACASH'"),
        (("--cache", "TEACACHE@-1"), "TEACACHE"),
        (("--attention-backend", "FLASH_ATN"), "unknown attention backend 'FLASH_ATN'"),
        (("--model", "shape"), "there is no model 'shape'"),
        (("--height", "30"), "height 30 is not a multiple of"),
        (("--host", "0.0.0.0"), "--host 0.0.0.0 lets other machines in"),
        (("--address", "127.0.0.1:1", "--port", "70000"), "70000 is not in the range"),
    ],
)
def test_what_is_wrong_is_one_line_before_ray_starts(options: tuple[str, ...], message: str) -> None:
    import ray

    Path("a-file").write_text("")
    with alone(Path("in-use")):
        done = CliRunner().invoke(runpy.run_path(str(EXAMPLE))["main"], options)
    said = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert (done.exit_code in (1, 2), len(said), message in said[0]) == (True, 1, True), done.output
    assert not ray.is_initialized()


def test_a_port_that_is_taken_is_one_line(example: dict[str, Any]) -> None:
    with bound_to("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(example["main"], ["--output", "out", "--port", port])
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert done.stderr.startswith(f"Error: --host 127.0.0.1 --port {port} cannot be had: ")


def test_a_job_whose_generator_dies_is_made_again_or_fails(example: dict[str, Any]) -> None:
    import ray

    class Mortal:
        """A generator that dies of every video."""

        def ready(self) -> bool:
            return True

        def make(self, job: Job) -> Made:
            os._exit(1)

        def steps(self, job_id: str) -> tuple[int, int]:
            return 1, 2

    started: list[Any] = []

    def start() -> Any:
        started.append(ray.remote(Mortal).options(max_concurrency=2, num_cpus=0).remote())
        return started[-1]

    def made(remote: Any, name: str) -> Made:
        until(remote.ready)
        found: Made = remote.make(Job(name, Asked("cat")), Running(name))
        return found

    died = Counter[str]()
    first, second = (example["Remote"](start, True, died) for _ in range(2))
    assert made(first, "a").again
    assert made(second, "b").again, "each job has tries of its own"
    assert made(second, "a").failure == ("interrupted", "the process that made the video died 2 times")
    assert len(started) == 3, "one that died is replaced when the next job may come"
    fails = example["Remote"](start, False, died)
    assert made(fails, "c") == Made(("interrupted", "the process that made the video died"))


def test_it_serves_from_several_generators_and_outlives_them_and_itself(
    example: dict[str, Any], tmp_path: Path
) -> None:
    with bound_to("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    folder = tmp_path / "served"
    cpu = {"device": "cpu"}
    example["deploy"](Settings("shapes", "127.0.0.1", port, folder, None, None, Limits(), True, SMALL, cpu), 2, 0)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

        def create(**fields: Any) -> str:
            answer = client.post("/v1/videos", json={"prompt": "a red circle moving left", **fields})
            assert answer.status_code == 200, answer.text
            return str(answer.json()["id"])

        def jobs(status: str) -> set[str]:
            found = client.get("/v1/videos?limit=100").json()["data"]
            assert {job["id"]: job["error"] for job in found if job["status"] == "failed"} == {}
            return {job["id"] for job in found if job["status"] == status}

        refused = client.post("/v1/videos", json={"prompt": "x", "cache": "TEACACHE@-1"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "cache"), refused.text
        short = [create(seed=seed, cache="TEACACHE@0.2") for seed in range(3)]
        until(lambda: jobs("completed") == set(short))
        long = [create(**LONG, seed=seed) for seed in (1, 2)]
        until(lambda: jobs("in_progress") == set(long))
        moving = until(lambda: client.get(f"/v1/videos/{long[0]}").json()["steps_done"])
        assert until(lambda: client.get(f"/v1/videos/{long[0]}").json()["steps_done"] > moving)
        kill_one("ray::FastVideoGenerator")
        (waits,) = until(lambda: jobs("queued"))
        assert waits in long, "a video whose generator died waits again"
        short.append(create(seed=3))
        written = {path: path.stat().st_mtime_ns for path in folder.glob("*.mp4")}
        kill_one("ray::ServeReplica")
        until(lambda: jobs("in_progress") == set(long))
        for video in long:
            assert client.delete(f"/v1/videos/{video}").json()["deleted"]
        until(lambda: jobs("completed") == set(short))
        for video in short:
            (tmp_path / "v.mp4").write_bytes(client.get(f"/v1/videos/{video}/content").content)
            with av.open(str(tmp_path / "v.mp4")) as container:
                assert sum(1 for _ in container.decode(video=0)) == 5
        assert client.get(f"/v1/videos/{short[0]}/receipt").json()["cache"]["policy"] == "TEACACHE"
        assert {path: path.stat().st_mtime_ns for path in written} == written, "no video was written again"
        assert {path.stem for path in folder.glob("*.mp4")} == set(short)
    assert not list(folder.glob(".partial-*"))
