"""Measure the model with the checker: python train/evaluate.py --prompts 100."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import click
from common import log
from fv_shapes.captions import caption
from fv_shapes.render import render
from fv_shapes.scenes import random_scene
from fv_shapes.score import ATTRIBUTES, read, score

from fastvideo_core import VideoGenerator


def _hits(frames: Any, prompt: str) -> dict[str, bool]:
    hits = score(frames, prompt)
    return {**hits, "all": all(hits.values())}


@click.command()
@click.option("--model", default="shapes", show_default=True, help="Preset or folder.")
@click.option("--prompts", default=100, show_default=True, help="Number of random prompts.")
@click.option("--height", default=128, show_default=True)
@click.option("--width", default=128, show_default=True)
@click.option("--frames", default=33, show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--guidance", default=4.0, show_default=True)
@click.option("--seed", default=20_000, show_default=True, help="Of the prompts and the videos; not used in training.")
@click.option("--output", type=click.Path(path_type=Path), help="Also write every result to this JSON file.")
def main(
    model: str,
    prompts: int,
    height: int,
    width: int,
    frames: int,
    steps: int,
    guidance: float,
    seed: int,
    output: Path | None,
) -> None:
    """Generate a video for each of many random prompts; print the share of right ones per attribute."""
    rng = Random(seed)
    right: Counter[str] = Counter()
    truth: Counter[str] = Counter()
    rows = []
    with VideoGenerator.from_pretrained(model) as generator:
        for index in range(prompts):
            scene = random_scene(rng)
            prompt = caption(scene, rng)
            truth.update(_hits(render(scene, frames, height, width), prompt))
            result = generator.generate_video(
                prompt,
                height=height,
                width=width,
                num_frames=frames,
                num_inference_steps=steps,
                guidance_scale=guidance,
                seed=seed + index,
                save_video=False,
            )
            hits = _hits(result.frames, prompt)
            right.update(hits)
            rows.append({"prompt": prompt, **hits, "overlap": read(result.frames).overlap, **result.receipt.seconds})
            if not hits["all"]:
                log(f"{prompt!r}: {read(result.frames)}")
    for name in (*ATTRIBUTES, "all"):
        log(f"{name:11} {100 * right[name] / prompts:5.1f} %   rendered truth {100 * truth[name] / prompts:5.1f} %")
    if output:
        output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
