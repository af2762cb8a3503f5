"""Prompts for runs that are killed, and whether their videos are whole in the end."""

from __future__ import annotations

import json
import random
from pathlib import Path

import av

SHAPES, COLOURS, WAYS = (
    ("circle", "square", "triangle", "cross"),
    ("red", "green", "blue"),
    ("left", "right", "up", "down"),
)


def write_prompts(file: Path, count: int, seed: int) -> None:
    """A file of so many rows, each with an id and a seed."""
    chosen = random.Random(seed)
    prompts = (
        f"a {chosen.choice(COLOURS)} {chosen.choice(SHAPES)} moving {chosen.choice(WAYS)} on a white background"
        for _ in range(count)
    )
    rows = [{"id": f"video-{number}", "prompt": prompt, "seed": number} for number, prompt in enumerate(prompts)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def options(num_frames: int, size: int, steps: int) -> list[str]:
    """Those of the command that makes them."""
    return ["--frames", str(num_frames), "--height", str(size), "--width", str(size), "--steps", str(steps)]


def times(folder: Path) -> dict[Path, int]:
    """When each video was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("video-*.mp4")}


def check(folder: Path, count: int, num_frames: int, written: dict[Path, int]) -> None:
    """See that there is a whole video with a receipt for each prompt, and nothing unfinished.

    Args:
        written: those that were there before a kill, with their times; they must not be written again.

    Raises:
        AssertionError: it is not so.
    """
    now = times(folder)
    assert written.items() <= now.items(), "a video was written again"
    assert len(now) == count, f"{len(now)} videos, not {count}"
    assert all(_frames(path) == num_frames for path in now), "a video is not whole"
    assert all(json.loads(path.with_suffix(".json").read_text())["num_frames"] == num_frames for path in now)
    assert len(list(folder.iterdir())) == 2 * count + 1, "something unfinished is left"


def _frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))
