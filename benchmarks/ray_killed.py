"""Kill an actor of `fv batch` in the middle: python benchmarks/ray_killed.py [--prompts 100] [--concurrency 2].

Ray replaces it, and in the end there is a whole video for each prompt, and none that was there before has been written
again. It starts a Ray of its own on this machine, with actors on CPUs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import psutil
from pyarrow import parquet
from whole_videos import check, options, times, write_prompts


def actors(command: subprocess.Popen[str]) -> set[int]:
    """The processes that have the model."""
    found = set()
    for process in psutil.Process(command.pid).children(recursive=True):
        try:
            if "ray::MapWorker" in " ".join(process.cmdline()):
                found.add(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def kill_in_the_middle(command: subprocess.Popen[str], folder: Path, enough: int, concurrency: int) -> dict[Path, int]:
    """Kill an actor when there are enough videos; gives those that were there then."""
    while len(times(folder)) < enough or len(actors(command)) < concurrency:
        assert command.poll() is None, "it ended before an actor was killed"
        time.sleep(0.1)
    killed, written = min(actors(command)), times(folder)
    os.kill(killed, signal.SIGKILL)
    click.echo(f"process {killed} killed with {len(written)} videos")
    return written


@click.command()
@click.option("--prompts", default=100, show_default=True)
@click.option("--concurrency", default=2, show_default=True, help="Actors.")
@click.option("--frames", "num_frames", default=9, show_default=True)
@click.option("--size", default=32, show_default=True, help="Height and width.")
@click.option("--steps", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(prompts: int, concurrency: int, num_frames: int, size: int, steps: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, file, table = Path(name) / "videos", Path(name) / "prompts.jsonl", Path(name) / "table.parquet"
        write_prompts(file, prompts, seed)
        fv = [sys.executable, "-m", "fastvideo_core", "batch", str(file), "--output", str(folder)]
        where = ["--address", "local", "--device", "cpu", "--concurrency", str(concurrency), "--table", str(table)]
        start = time.perf_counter()
        with (Path(name) / "log").open("w+") as log:
            command = subprocess.Popen([*fv, *where, *options(num_frames, size, steps)], stderr=log, text=True)
            try:
                written = kill_in_the_middle(command, folder, prompts // 2, concurrency)
                status = command.wait()
            finally:
                command.kill()
                command.wait()
            log.seek(0)
            told = log.read()
        assert status == 0, told
        check(folder, prompts, num_frames, written)
        rows = parquet.read_table(table).to_pylist()
        assert len({row["id"] for row in rows}) == len(rows) == prompts, "a row for each prompt"
        for process, count in Counter((row["process"].rpartition(":")[2], row["status"]) for row in rows).items():
            click.echo(f"process {process[0]}: {count} {process[1]}")
        click.echo(f"{told.splitlines()[-1]}\n{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
