"""Measure the model with the checker: python train/evaluate.py --prompts 200 --size 33x128x128 --size 45x256x256.

Video number n is denoised from the noise of seed + n, one by one or in batches alike. Batches go through diffusers'
WanPipeline alone; for them numpy, torch, diffusers, click and pillow are enough.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fv_shapes
from fv_shapes.captions import caption
from fv_shapes.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, MovingShape, Scene, random_pair, random_scene
from fv_shapes.score import ATTRIBUTES, Judgement, judge, wilson

Frames = NDArray[np.floating]
Size = tuple[int, int, int]
Row = dict[str, Any]
Generate = Callable[[list[str], Size, int], Iterator[Frames]]
"""Makes the videos of prompts at a size, (frames, height, width), from the noise of a seed and those after it."""

COLUMNS = (*ATTRIBUTES, "all")
SHEET_PROMPTS = 24


def as_sizes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Size, ...]:
    """Frames, height and width of each FRAMESxHEIGHTxWIDTH."""
    sizes = []
    for value in values:
        parts = value.split("x")
        if len(parts) != 3 or not all(part.isdigit() for part in parts):
            raise click.BadParameter(f"{value!r} is not like 33x128x128")
        sizes.append((int(parts[0]), int(parts[1]), int(parts[2])))
    return tuple(sizes)


@click.command()
@click.option("--model", default="shapes", show_default=True, help="`shapes`, or a folder in diffusers format.")
@click.option("--prompts", default=100, show_default=True, help="Number of random prompts for each size.")
@click.option("--size", "sizes", callback=as_sizes, multiple=True, default=["33x128x128"], show_default=True)
@click.option("--pairs", is_flag=True, help="Prompts for two shapes.")
@click.option("--steps", default=20, show_default=True)
@click.option("--guidance", default=3.0, show_default=True)
@click.option("--prompt-tokens", default=64, show_default=True, help="For --batch: what prompts are padded to.")
@click.option("--seed", default=20_000, show_default=True, help="Of the prompts and the videos; not used in training.")
@click.option(
    "--batch", default=0, show_default=True, help="Prompts per call of a bare WanPipeline; 0: VideoGenerator."
)
@click.option("--device", help="For --batch; a GPU where there is one.")
@click.option("--dtype", default="float32", show_default=True, help="For --batch; the autoencoder stays in float32.")
@click.option("--output", type=click.Path(path_type=Path), help="Also write every result to this JSON file.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Also write a PNG of 24 prompts, at the first size.")
def main(
    model: str,
    prompts: int,
    sizes: tuple[Size, ...],
    pairs: bool,
    steps: int,
    guidance: float,
    prompt_tokens: int,
    seed: int,
    batch: int,
    device: str | None,
    dtype: str,
    output: Path | None,
    sheet: Path | None,
) -> None:
    """Generate a video for each of many random prompts; print what the checker says of them."""
    sampling = {"num_inference_steps": steps, "guidance_scale": guidance}
    padded = {**sampling, "max_sequence_length": prompt_tokens}
    generate = in_batches(model, batch, device, dtype, padded) if batch else one_by_one(model, sampling)
    rows: list[Row] = []
    for size in sizes:
        rows += measure(generate, random_prompts(prompts, seed, pairs), size, seed)
        if output:
            output.write_text(json.dumps(rows, indent=1))
    if rows:
        click.echo("\n".join([*accuracies(rows), "", *outlines(rows), "", *failures(rows)]))
    if sheet:
        texts = sheet_prompts()
        contact_sheet(texts, list(generate(texts, sizes[0], 0)), sheet)


def one_by_one(model: str, sampling: dict[str, Any]) -> Generate:
    """As users generate."""
    from fastvideo_core import VideoGenerator

    generator = VideoGenerator.from_pretrained(model)

    def generate(texts: list[str], size: Size, seed: int) -> Iterator[Frames]:
        frames, height, width = size
        form: dict[str, Any] = {"num_frames": frames, "height": height, "width": width, "save_video": False}
        for number, text in enumerate(texts):
            yield generator.generate_video(text, seed=seed + number, **form, **sampling).frames

    return generate


def in_batches(model: str, batch: int, device: str | None, dtype: str, sampling: dict[str, Any]) -> Generate:
    """Several prompts in a call: the fast way on a GPU."""
    import torch
    from diffusers import WanPipeline

    folder = Path(fv_shapes.__file__).parent / "model" if model == "shapes" else Path(model)
    pipe = WanPipeline.from_pretrained(folder, dtype={"default": getattr(torch, dtype), "vae": torch.float32})
    pipe.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    pipe.set_progress_bar_config(disable=True)

    def generate(texts: list[str], size: Size, seed: int) -> Iterator[Frames]:
        frames, height, width = size
        for first in range(0, len(texts), batch):
            part = texts[first : first + batch]
            yield from pipe(
                part,
                negative_prompt=[""] * len(part),
                num_frames=frames,
                height=height,
                width=width,
                generator=[torch.Generator().manual_seed(seed + first + number) for number in range(len(part))],
                output_type="np",
                **sampling,
            ).frames

    return generate


def random_prompts(count: int, seed: int, pairs: bool) -> list[str]:
    """Captions of random scenes, the same for all sizes."""
    rng = Random(seed)
    return [caption((random_pair if pairs else random_scene)(rng), rng) for _ in range(count)]


def measure(generate: Generate, texts: list[str], size: Size, seed: int) -> list[Row]:
    """A row for each prompt."""
    rows = []
    for number, (text, frames) in enumerate(zip(texts, generate(texts, size, seed), strict=True)):
        rows.append(row_of(text, seed + number, size, judge(frames, text)))
        if not rows[-1]["all"]:
            click.echo(f"{number + 1} of {len(texts)} at {name(size)} fails: {text}", err=True)
    return rows


def row_of(text: str, seed: int, size: Size, judged: Judgement) -> Row:
    """What was found of a video, as plain values."""
    right = {**judged.right, "all": all(judged.right.values())}
    measures = [asdict(one) for one in judged.measures]
    return {
        "prompt": text,
        "seed": seed,
        "size": list(size),
        **right,
        "shapes": measures,
        "reading": asdict(judged.reading),
    }


def accuracies(rows: Sequence[Row]) -> list[str]:
    """A table in Markdown: how many videos are right, by size."""
    lines = [f"| frames x height x width | prompts | {' | '.join(ATTRIBUTES)} | all |", "|---" * 7 + "|"]
    for size, some in by_size(rows).items():
        cells = [share(sum(row[column] for row in some), len(some)) for column in COLUMNS]
        lines.append(f"| {size} | {len(some)} | {' | '.join(cells)} |")
    return lines


def outlines(rows: Sequence[Row]) -> list[str]:
    """A table in Markdown: outline, colour and speed, by size and wanted shape."""
    lines = [
        "| | shapes | outline: mean | 5th percentile | worst frame, 5th percentile | softness: median "
        "| colour: mean Delta E "
        "| speed of moving ones, sides per frame: median (5th-95th percentile) |",
        "|---" * 8 + "|",
    ]
    for size, some in by_size(rows).items():
        measures = [one for row in some for one in row["shapes"]]
        for shape in (*SHAPES, "all"):
            these = [one for one in measures if shape in (one["wanted"]["shape"], "all")]
            if these:
                lines.append(f"| {size}, {shape} | {len(these)} | {' | '.join(_cells(these))} |")
    return lines


def _cells(measures: Sequence[Row]) -> list[str]:
    outline = [one["outline"] for one in measures]
    worst = [one["worst_outline"] for one in measures]
    soft = [one["softness"] for one in measures if one["softness"] is not None]
    colour = [one["colour_distance"] for one in measures if one["colour_distance"] is not None]
    moving = [one["along"] for one in measures if one["along"] is not None and one["wanted"]["direction"] != "still"]
    low, middle, high = np.percentile(moving, (5, 50, 95)) if moving else (math.nan,) * 3
    return [
        f"{np.mean(outline):.3f}",
        f"{np.percentile(outline, 5):.3f}",
        f"{np.percentile(worst, 5):.3f}",
        f"{np.median(soft):.1f}" if soft else "-",
        f"{np.mean(colour):.1f}" if colour else "-",
        f"{middle:.4f} ({low:.4f}-{high:.4f})" if moving else "-",
    ]


def failures(rows: Sequence[Row]) -> list[str]:
    """A line for each prompt that did not come true."""
    lines = []
    for row in rows:
        if not row["all"]:
            wrong = ", ".join(column for column in ATTRIBUTES if not row[column])
            found = [
                f"{one['colour']} {one['shape']} {one['direction']}, outline {one['outline']:.3f}"
                for one in row["reading"]["figures"]
            ]
            shown = f"{'; '.join(found) or 'nothing'} on {row['reading']['background']}"
            lines.append(f"{name(row['size'])}, seed {row['seed']}, {row['prompt']!r}: {wrong}; found {shown}")
    return lines or ["All came true."]


def by_size(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each size, in their order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(name(row["size"]), []).append(row)
    return found


def name(size: Sequence[int]) -> str:
    """33x128x128."""
    return "x".join(map(str, size))


def share(right: int, count: int) -> str:
    """A percentage with its 95 % interval."""
    low, high = wilson(right, count)
    return f"{100 * right / count:.1f} % ({100 * low:.1f}-{100 * high:.1f})"


def sheet_prompts() -> list[str]:
    """24 prompts in which each shape, colour, motion and background comes up about equally often."""
    rng = Random(0)
    scenes = []
    for number in range(SHEET_PROMPTS):
        shape = SHAPES[number % len(SHAPES)]
        colour = list(COLOURS)[(3 * number + number // 8) % len(COLOURS)]
        direction = list(DIRECTIONS)[number % len(DIRECTIONS)]
        background = list(BACKGROUNDS)[(number + number // len(BACKGROUNDS)) % len(BACKGROUNDS)]
        scenes.append(Scene((MovingShape(shape, colour, direction),), background))
    return [caption(scene, rng) for scene in scenes]


def contact_sheet(texts: Sequence[str], videos: Sequence[Frames], path: Path, columns: int = 3, shown: int = 4) -> None:
    """Write a PNG: for each video some frames in a row, from the first to the last, and its prompt below."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = videos[0].shape[1:3]
    gap, line = 6, 18
    cell = (shown * (width + 2) + gap, height + line + gap)
    sheet = Image.new("RGB", (columns * cell[0], math.ceil(len(videos) / columns) * cell[1]), (230, 230, 230))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (text, frames) in enumerate(zip(texts, videos, strict=True)):
        left, top = number % columns * cell[0], number // columns * cell[1]
        for place, index in enumerate(np.linspace(0, len(frames) - 1, shown).round().astype(int)):
            frame = np.rint(np.clip(frames[index], 0, 1) * 255).astype(np.uint8)
            sheet.paste(Image.fromarray(frame), (left + place * (width + 2), top))
        draw.text((left + 2, top + height + 1), text, "black", font=font)
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main()
