"""What policies and windows cost in quality on the embedded model: python benchmarks/shapes_quality.py [--prompts 100].

Each prompt is generated with every step computed and full attention, then with each setting, from the same noise: the
share of steps that were skipped, PSNR against the plain video, and whether the video shows what its prompt says, by
`fv_shapes.score`. A setting is a policy (--policies), a window of SLIDING_TILE_ATTN (--windows) or another backend
(--backends); the last two may go on with "+" and a policy, or "+half" for the plan of `caching.py`. Prompts are shared
out among processes, so that a GPU is busy; speed is not measured here.
"""

from __future__ import annotations

import json
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import click
import numpy as np
from caching import STA, FixedShare
from fv_shapes.captions import caption
from fv_shapes.scenes import random_scene
from fv_shapes.score import judge, wilson

from fastvideo_core import VideoGenerator

PLAIN = "plain"
DEFAULT = "default"
HALF = "half"
POLICIES = " ".join(
    [
        *(f"TEACACHE@{threshold}" for threshold in (0.1, 0.2, 0.3)),
        *(f"FIRSTBLOCK@{threshold}" for threshold in (0.1, 0.2, 0.3)),
        *(f"MAGCACHE@{threshold}" for threshold in (0.06, 0.12, 0.3)),
        *(f"TAYLORSEER@{interval}" for interval in (2, 3, 5)),
    ]
)

Row = dict[str, Any]


@click.command()
@click.option("--prompts", default=100, show_default=True, help="Random ones, which training does not use.")
@click.option("--policies", default=POLICIES, show_default=True, help="Caching policies, as NAME@VALUE.")
@click.option("--windows", default="", help="Of SLIDING_TILE_ATTN: '3,1,1 1,2,1 default default+half'.")
@click.option("--tile", default="4,4,8", show_default=True)
@click.option("--backends", default="", help="Other backends, such as 'FLASH_ATTN FLASH_ATTN+half'.")
@click.option("--dtype", default="float32", show_default=True, help="Of the transformer and the text encoder.")
@click.option("--plain-dtype", help="Of the plain videos; default: the same.")
@click.option("--frames", default=33, show_default=True)
@click.option("--side", default=128, show_default=True)
@click.option("--seed", default=50_000, show_default=True)
@click.option("--device", help="Default: a GPU where there is one.")
@click.option("--processes", default=1, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Also write every result to this JSON file.")
@click.option("--curve", type=click.Path(path_type=Path), help="Also write a PNG: PSNR against skipped steps.")
def main(
    prompts: int,
    policies: str,
    windows: str,
    tile: str,
    backends: str,
    dtype: str,
    plain_dtype: str | None,
    frames: int,
    side: int,
    seed: int,
    device: str | None,
    processes: int,
    output: Path | None,
    curve: Path | None,
) -> None:
    """Print a row for each setting, with 95 % intervals."""
    rng = Random(seed)
    texts = [caption(random_scene(rng), rng) for _ in range(prompts)]
    sampling = {"num_frames": frames, "height": side, "width": side, "save_video": False}
    tasks = [(n, text) for n, text in enumerate(texts)]
    how = (policies.split(), others(windows, tile, backends), sampling, seed, device, dtype, plain_dtype or dtype)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        parts = [pool.submit(measure, tasks[start::processes], *how) for start in range(processes)]
        rows = [row for part in parts for row in part.result()]
    if output:
        output.write_text(json.dumps(rows, indent=1))
    for line in table(rows):
        print(line)
    if curve:
        draw(rows, curve)


@dataclass(frozen=True)
class Other:
    """A setting with a backend of its own, and a policy."""

    title: str
    backend: str
    config: dict[str, str]
    cache: str


def others(windows: str, tile: str, backends: str) -> list[Other]:
    """The settings that --windows and --backends name."""
    found = []
    for title in windows.split():
        window, _, cache = title.partition("+")
        config = {"tile": tile} if window == DEFAULT else {"tile": tile, "window": window}
        found.append(Other(f"{STA} {title}", STA, config, cache or "none"))
    for title in backends.split():
        backend, _, cache = title.partition("+")
        found.append(Other(title, backend, {}, cache or "none"))
    return found


def measure(
    texts: list[tuple[int, str]],
    policies: list[str],
    settings: list[Other],
    sampling: dict[str, Any],
    seed: int,
    device: str | None,
    dtype: str,
    plain_dtype: str,
) -> list[Row]:
    """A row for each of some prompts with each setting."""
    rows: list[Row] = []
    plain: dict[int, Any] = {}
    with VideoGenerator.from_pretrained(
        "shapes", attention_backend="TORCH_SDPA", device=device, dtype=plain_dtype
    ) as generator:
        for number, text in texts:
            for policy in ("none", *policies):
                result = generator.generate_video(text, seed=seed + number, cache=policy, **sampling)
                plain.setdefault(number, result.frames)
                rows.append(_row(PLAIN if policy == "none" else policy, number, text, result, plain[number]))
    for setting in settings:
        with VideoGenerator.from_pretrained(
            "shapes",
            attention_backend=setting.backend,
            attention_config=setting.config or None,
            device=device,
            dtype=dtype,
        ) as generator:
            for number, text in texts:
                cache: Any = FixedShare(0.5) if setting.cache == HALF else setting.cache
                result = generator.generate_video(text, seed=seed + number, cache=cache, **sampling)
                rows.append(_row(setting.title, number, text, result, plain[number]))
    return rows


def _row(name: str, number: int, text: str, result: Any, plain: Any) -> Row:
    receipt = result.receipt
    computed, skipped = sum(receipt.steps_computed.values()), sum(receipt.steps_skipped.values())
    error = float(np.mean((result.frames - plain) ** 2))
    judgement = judge(result.frames, text)
    return {
        "setting": name,
        "number": number,
        "prompt": text,
        "skipped": skipped / max(1, computed + skipped),
        "psnr": 10 * math.log10(1 / error) if error else math.inf,
        "right": judgement.right,
        "outline": min((one.outline for one in judgement.measures), default=0.0),
        "work": receipt.attention["SELF"].details.get("work", 1.0),
    }


def table(rows: list[Row]) -> list[str]:
    """A Markdown table: a row a setting, compared prompt by prompt with the plain videos."""
    lines = [
        "| | steps skipped | attention work | PSNR against plain, median (range) | right (95 % interval) | lost, won "
        "| outline |",
        "|---|---|---|---|---|---|---|",
    ]
    was_right = {row["number"]: all(row["right"].values()) for row in rows if row["setting"] == PLAIN}
    for setting in dict.fromkeys(row["setting"] for row in rows):
        own = [row for row in rows if row["setting"] == setting]
        right = {row["number"]: all(row["right"].values()) for row in own}
        low, high = wilson(sum(right.values()), len(right))
        noise = [row["psnr"] for row in own]
        shown = "" if setting == PLAIN else f"{median(noise):.1f} dB ({min(noise):.1f} to {max(noise):.1f})"
        lost = sum(was_right[n] and not hit for n, hit in right.items())
        won = sum(hit and not was_right[n] for n, hit in right.items())
        lines.append(
            f"| {setting if setting == PLAIN else f'`{setting}`'} | {np.mean([row['skipped'] for row in own]):.0%} "
            f"| {np.mean([row['work'] for row in own]):.3f} | {shown} "
            f"| {sum(right.values())} of {len(right)} ({low:.0%} to {high:.0%}) | {lost}, {won} "
            f"| {np.mean([row['outline'] for row in own]):.3f} |"
        )
    return lines


def draw(rows: list[Row], path: Path) -> None:
    """A line for each policy through its values: median PSNR against the share of skipped steps."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), constrained_layout=True)
    settings = [name for name in dict.fromkeys(row["setting"] for row in rows) if "@" in name]
    for policy in dict.fromkeys(name.split("@")[0] for name in settings):
        points = []
        for setting in (name for name in settings if name.split("@")[0] == policy):
            own = [row for row in rows if row["setting"] == setting]
            points.append((100 * np.mean([row["skipped"] for row in own]), median(row["psnr"] for row in own)))
            axes.annotate(setting.split("@")[1], points[-1], (4, 4), textcoords="offset points", fontsize=7)
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=policy)
    axes.set(xlabel="steps skipped, %", ylabel="PSNR against plain, dB, median")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
