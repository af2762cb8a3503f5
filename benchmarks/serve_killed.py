"""Kill `fv serve` again and again: python benchmarks/serve_killed.py [--kills 20].

At random moments, also while it starts, and while clients create videos. In the end every video that was accepted is
there, once, and none that was there before a kill has been written again.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

import click
import httpx

SMALL = ("--height", "32", "--width", "32", "--frames", "5", "--steps", "4")


class Server:
    """A server's process."""

    def __init__(self, model: str, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "fastvideo_core", "serve", "--port", "0", "--model", model]
        self.process = subprocess.Popen(
            [*command, "--output", str(folder), *SMALL, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def address(self) -> str:
        """Where it answers, as soon as it does; "" if it has ended."""
        stream: IO[str] | None = self.process.stdout
        line = stream.readline() if stream else ""
        return line.split(" at ")[1].split(";")[0] if line else ""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def create(address: str, count: int, accepted: list[str]) -> None:
    """Create videos until the server is gone; those that it accepted are noted."""
    with httpx.Client(base_url=address, timeout=10) as client:
        for number in range(count):
            try:
                answer = client.post("/v1/videos", json={"prompt": "a red circle", "seed": number})
            except httpx.HTTPError:
                return
            if answer.status_code == 200:
                accepted.append(answer.json()["id"])


def kill_again_and_again(model: str, folder: Path, kills: int, each: int, seed: int = 0) -> dict[str, int]:
    """Start and kill a server so many times, with so many videos created each time; then let it end its queue.

    Raises:
        AssertionError: a video is lost, or was written twice, or something unfinished is left.
    """
    chosen, accepted = random.Random(seed), list[str]()
    written: dict[Path, int] = {}
    for number in range(kills):
        server = Server(model, folder)
        if number % 4 == 3:  # while it starts
            time.sleep(chosen.uniform(0, 8))
        elif address := server.address():
            client = threading.Thread(target=create, args=(address, each, accepted))
            client.start()
            time.sleep(chosen.uniform(0.01, 1.5))
            server.kill()
            client.join()
        server.kill()
        for path, when in written.items():
            assert path.stat().st_mtime_ns == when, f"{path.name} was written again"
        written = {path: path.stat().st_mtime_ns for path in folder.glob("video_*.mp4")}
    server = Server(model, folder)
    try:
        jobs = _ended(server.address())
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0, "a stop by Ctrl-C is no error"
    finally:
        server.kill()
    assert not [*folder.glob(".partial-*"), *folder.glob("*-wal")], "something unfinished is left"
    assert set(accepted) <= jobs.keys(), "a video that was accepted is lost"
    assert set(jobs.values()) <= {"completed"}, jobs
    for path, when in written.items():
        assert path.stat().st_mtime_ns == when, f"{path.name} was written again"
    assert {path.stem for path in folder.glob("video_*.mp4")} == jobs.keys(), "a file for each job, and no other"
    return {"kills": kills, "accepted": len(accepted), "made": len(jobs), "made before the last start": len(written)}


def _ended(address: str, seconds: float = 600) -> dict[str, str]:
    """The status of each job, when none waits or runs any more."""
    end = time.monotonic() + seconds
    with httpx.Client(base_url=address, timeout=30) as client:
        while time.monotonic() < end:
            jobs, after = {}, ""
            while True:
                page = client.get(f"/v1/videos?limit=100&order=asc{after}").json()
                jobs.update({job["id"]: job["status"] for job in page["data"]})
                if not page["has_more"]:
                    break
                after = f"&after={page['last_id']}"
            if not {"queued", "in_progress"} & set(jobs.values()):
                return jobs
            time.sleep(0.2)
    raise AssertionError(f"still {jobs}")


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--each", default=3, show_default=True, help="Videos created after each start.")
@click.option("--seed", default=0, show_default=True)
def main(kills: int, each: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        counts = kill_again_and_again("shapes", Path(folder), kills, each, seed)
    click.echo(", ".join(f"{name}: {count}" for name, count in counts.items()))


if __name__ == "__main__":
    main()
