"""What happens in the long run: python benchmarks/robustness.py [--generations 200] [--kills 50].

Generations one after the other in one process, and how its memory grows; two threads with a generator each; generations
that are killed at a random moment, and what they leave in the folder. All on a WanPipeline with small random weights.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from fastvideo_core import VideoGenerator  # noqa: E402  # the tests' models are found by the path above
from tests.support.models import build_wan_pipeline  # noqa: E402

SHORT: dict[str, Any] = {
    "height": 32,
    "width": 48,
    "num_frames": 9,
    "num_inference_steps": 4,
    "guidance_scale": 3.0,
    "cache": "none",
}


@click.command()
@click.option("--generations", default=200, show_default=True)
@click.option("--kills", default=50, show_default=True)
def main(generations: int, kills: int) -> None:
    """Print a line for each part."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_wan_pipeline().save_pretrained(folder / "model")
        with VideoGenerator.from_pretrained(folder / "model", device="cpu") as generator:
            print(endurance(generator, generations))
            print(threads(folder / "model", generator))
            print(killed(generator, folder / "videos", kills))


def endurance(generator: VideoGenerator, count: int) -> str:
    """Growth of this process over generations with changing seeds, the first quarter not counted."""
    sizes, schedules = [], set()
    for number in range(count):
        result = generator.generate_video("cat", **{**SHORT, "seed": number, "save_video": False})
        schedules.add((json.dumps(result.receipt.steps_computed), result.receipt.attention["SELF"].calls))
        sizes.append(resident_bytes())
    counted = np.array(sizes[count // 4 :], dtype=float)
    slope = float(np.polyfit(np.arange(len(counted)), counted, 1)[0])
    same = "all receipts agree" if len(schedules) == 1 else f"receipts differ: {schedules}"
    return f"{count} generations: memory grows by {slope / 1024:.1f} KiB a generation, {same}"


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def threads(model: Path, first: VideoGenerator) -> str:
    """Two generators at once, each with frames of its own seed."""
    expected = [first.generate_video("cat", **SHORT, seed=seed, save_video=False).frames for seed in (1, 2)]
    wrong: list[int] = []

    def work(generator: VideoGenerator, number: int) -> None:
        generator.progress = False
        for _ in range(10):
            frames = generator.generate_video("cat", **SHORT, seed=number + 1, save_video=False).frames
            if not np.array_equal(frames, expected[number]):
                wrong.append(number)

    with VideoGenerator.from_pretrained(model, device="cpu") as second:
        running = [threading.Thread(target=work, args=(g, n)) for n, g in enumerate((first, second))]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    return f"two threads, 10 generations each: {len(wrong)} with frames that differ from a single thread's"


def killed(generator: VideoGenerator, folder: Path, count: int) -> str:
    """A child process makes a video, and is killed at some moment of it."""
    start = time.perf_counter()
    generator.generate_video("cat", **SHORT, output_path=folder)
    length = time.perf_counter() - start
    whole = lost = leftovers = 0
    broken: list[str] = []
    rng = random.Random(0)
    for number in range(count):
        target = folder / f"{number}"
        child = os.fork()
        if not child:
            generator.generate_video("cat", **SHORT, output_path=target)
            os._exit(0)
        time.sleep(rng.uniform(0, 1.2 * length))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        names = sorted(path.name for path in target.glob("*")) if target.exists() else []
        leftovers += sum(name.startswith(".partial") for name in names)
        visible = [name for name in names if not name.startswith(".")]
        if visible == ["cat.json", "cat.mp4"] and json.loads((target / "cat.json").read_text()):
            whole += 1
        elif not visible:
            lost += 1
        else:
            broken.append(f"{number}: {visible}")
        generator.generate_video("cat", **SHORT, output_path=target)
        assert not list(target.glob(".partial*")), "the next generation removes what a killed one left"
    return (
        f"{count} kills: {whole} videos with their receipts, {lost} times nothing, {len(broken)} times something else "
        f"{broken or ''}; {leftovers} hidden unfinished files, removed by the next generation"
    )


if __name__ == "__main__":
    main()
