"""Kill `fv generate --prompts` in the middle, and go on.

Run: python benchmarks/batch_killed.py [--prompts 1000] [--kills 3].

In the end there is a whole video for each prompt, and none that was there before a kill has been written again.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from whole_videos import check, options, times, write_prompts


@click.command()
@click.option("--prompts", default=1000, show_default=True)
@click.option("--kills", default=3, show_default=True)
@click.option("--frames", "num_frames", default=9, show_default=True)
@click.option("--size", default=128, show_default=True, help="Height and width.")
@click.option("--steps", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(prompts: int, kills: int, num_frames: int, size: int, steps: int, seed: int) -> None:
    chosen = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder, file = Path(name) / "videos", Path(name) / "prompts.jsonl"
        write_prompts(file, prompts, seed)
        canvas = options(num_frames, size, steps)
        command = [sys.executable, "-m", "fastvideo_core", "generate", "--prompts", str(file), "--output", str(folder)]
        start, written = time.perf_counter(), dict[Path, int]()
        for kill in range(1, kills + 1):
            process = subprocess.Popen([*command, *canvas], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            enough = prompts * kill // (kills + 1)
            while len(times(folder)) < enough and process.poll() is None:
                time.sleep(0.2)
            time.sleep(chosen.uniform(0, 1))
            process.kill()
            process.wait()
            now = times(folder)
            assert written.items() <= now.items(), "a video was written again"
            written = now
            click.echo(f"killed with {len(written)} videos")
        done = subprocess.run([*command, *canvas], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr
        check(folder, prompts, num_frames, written)
        click.echo(done.stderr.splitlines()[-1])
        click.echo(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
