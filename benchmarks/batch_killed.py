"""Kill `fv generate --prompts` in the middle, and go on.

Run: python benchmarks/batch_killed.py [--prompts 1000] [--kills 3].

In the end there is a whole video for each prompt, and none that was there before a kill has been written again.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import click

SHAPES, COLOURS, WAYS = (
    ("circle", "square", "triangle", "cross"),
    ("red", "green", "blue"),
    ("left", "right", "up", "down"),
)


def rows(count: int, seed: int) -> list[dict[str, object]]:
    chosen = random.Random(seed)
    prompts = (
        f"a {chosen.choice(COLOURS)} {chosen.choice(SHAPES)} moving {chosen.choice(WAYS)} on a white background"
        for _ in range(count)
    )
    return [{"id": f"video-{number}", "prompt": prompt, "seed": number} for number, prompt in enumerate(prompts)]


def times(folder: Path) -> dict[Path, int]:
    """When each video was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("video-*.mp4")}


def frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


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
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(prompts, seed)))
        canvas = ["--frames", str(num_frames), "--height", str(size), "--width", str(size), "--steps", str(steps)]
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
        now = times(folder)
        assert done.returncode == 0, done.stderr
        assert written.items() <= now.items(), "a video was written again"
        assert len(now) == prompts
        assert all(frames(path) == num_frames for path in now), "every video is whole"
        assert all(json.loads(path.with_suffix(".json").read_text())["num_frames"] == num_frames for path in now)
        assert len(list(folder.iterdir())) == 2 * prompts + 1, "something unfinished is left"
        click.echo(done.stderr.splitlines()[-1])
        click.echo(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
