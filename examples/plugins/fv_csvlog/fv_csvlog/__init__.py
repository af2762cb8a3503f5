"""Write a line for each video into the CSV file that FV_CSVLOG names; without that variable, nothing."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

from fastvideo_core import Generation, Receipt, hookimpl

api_version = 2

COLUMNS = ("time", "model", "prompt", "seed", "steps", "skipped", "seconds", "video", "error")


@hookimpl
def fastvideo_generation_finished(generation: Generation, receipt: Receipt) -> None:
    _write(
        generation,
        seed=receipt.seed,
        skipped=sum(receipt.steps_skipped.values()),
        seconds=round(receipt.seconds["denoise"], 3),
        video=generation.video_path,
    )


@hookimpl
def fastvideo_generation_failed(generation: Generation, error: BaseException) -> None:
    _write(generation, error=f"{type(error).__name__}: {error}")


def _write(generation: Generation, **values: object) -> None:
    if not (name := os.environ.get("FV_CSVLOG")):
        return
    path = Path(name)
    is_new = not path.exists()
    row = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "model": generation.model or generation.pipeline,
        "prompt": generation.prompt,
        "steps": generation.steps_done,
        **values,
    }
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)
