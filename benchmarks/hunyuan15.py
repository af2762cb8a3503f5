"""A forward pass of HunyuanVideo-1.5 with random weights: python benchmarks/hunyuan15.py [--blocks N] [--quick].

Its processor makes a mask of tokens x tokens in every block, 2.6 billion numbers for 121 frames at 480p; a run of the
core makes none. Bare diffusers, then each backend, one after the other in every round, eager and compiled. The table
comes last: medians, how many times as fast as bare diffusers in the same rounds, the memory on top of the weights, and
how far the output is from that of bare diffusers, eager, |output - bare| / |bare|.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import click
import torch
from attention import describe
from results import Results, table
from timing import in_the_middle, timed, turn

from fastvideo_core import attach
from fastvideo_core.errors import FastVideoError

BARE = "bare diffusers"
GRID = (31, 30, 53)
"""121 frames of 480x848: latents, of which each is a token."""
QUICK_GRID = (3, 4, 6)
TEXT = {"prompt": 1000, "glyphs": 256, "image": 729}
"""Tokens that the pipeline pads to; in text-to-video all of the image's are padding."""


@dataclass
class Row:
    """What was measured of one way to run in one mode."""

    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    error: float = 0.0
    kernel: str = ""


MODES = ("eager", "compiled")


@click.command()
@click.option("--blocks", default=54, type=click.IntRange(1), show_default=True, help="Of the model's 54.")
@click.option("--backends", default="TORCH_SDPA FLASH_ATTN", show_default=True)
@click.option("--modes", default="eager compiled", show_default=True)
@click.option("--rounds", default=3, type=click.IntRange(1), show_default=True)
@click.option("--words", default=120, show_default=True, help="Tokens of the prompt that are no padding.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--quick", is_flag=True, help="Two small blocks, to try the script.")
def main(blocks: int, backends: str, modes: str, rounds: int, words: int, device: str, quick: bool) -> None:
    """Print the times of each round, then the table."""
    asked = modes.split()
    if not asked or set(asked) - set(MODES):
        raise click.UsageError(f"--modes is {modes!r}; there are {' and '.join(MODES)}")
    in_order = [mode for mode in MODES if mode in asked]  # what is compiled once stays so
    pipe = build_pipeline(blocks, device, quick)
    inputs = inputs_of(pipe, QUICK_GRID if quick else GRID, words, device)
    rows: dict[tuple[str, str], Row] = {}
    with torch.inference_mode():
        expected = pipe.transformer(**inputs)[0]
        for mode in in_order:
            if mode == "compiled":
                pipe.transformer.compile_repeated_blocks(fullgraph=True)
            measure(pipe, inputs, expected, [BARE, *backends.split()], mode, rounds, device, rows)
    size, kind = "x".join(map(str, inputs["hidden_states"].shape[2:])), "small blocks" if quick else "blocks"
    print(f"\n{describe(device)}")
    print(
        f"{len(pipe.transformer.transformer_blocks)} {kind}, {size} tokens and {sum(TEXT.values())} of text "
        f"({words} no padding), {pipe.transformer.dtype}, medians of {rounds}"
    )
    results = Results("hunyuan15", device)
    for mode in in_order:
        of_mode = {title: row for (its, title), row in rows.items() if its == mode}
        notes = {
            title: {"GiB": row.memory / 2**30, "error": row.error, "kernel": row.kernel}
            for title, row in of_mode.items()
        }
        title = f"a forward pass of HunyuanVideo-1.5, {mode}"
        results.add(table(mode, title, {name: row.seconds for name, row in of_mode.items()}, BARE, notes))
    if not quick:
        results.write()


def measure(
    pipe: Any,
    inputs: dict[str, Any],
    expected: Any,
    titles: list[str],
    mode: str,
    rounds: int,
    device: str,
    rows: dict[tuple[str, str], Row],
) -> None:
    """Put a row into `rows` for each that can run here, after one call of each that is not counted."""
    for number in range(rounds + 1):
        for title in turn(in_the_middle(dict.fromkeys(titles), BARE), number):
            row = rows.setdefault((mode, title), Row())
            try:
                seconds, output = one_pass(pipe, inputs, title, row, device)
            except FastVideoError as error:
                print(f"{title} is not measured: {error}", flush=True)
                titles.remove(title)
                del rows[mode, title]
                continue
            if number == 0:
                row.error = float((output.float() - expected.float()).norm() / expected.float().norm())
            else:
                row.seconds.append(seconds)
            print(f"{mode}, round {number}: {title} {1e3 * seconds:.1f} ms", flush=True)


def one_pass(pipe: Any, inputs: dict[str, Any], title: str, row: Row, device: str) -> tuple[float, Any]:
    """Seconds of one forward pass, and what it computes."""
    made: list[Any] = []

    def call() -> None:
        made.append(pipe.transformer(**inputs)[0])

    before = reset_memory(device)
    if title == BARE:
        seconds = timed(call, device)
    else:
        with attach(pipe, attention_backend=title) as fv:
            with fv.run(1) as step_done:
                seconds = timed(call, device)
                step_done()
            row.kernel = fv.receipt.attention["JOINT"].kernel
    row.memory = torch.cuda.max_memory_allocated() - before if device == "cuda" else 0
    return seconds, made[0]


def reset_memory(device: str) -> int:
    """Bytes that are taken before a pass, from where its peak is counted."""
    if device != "cuda":
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def build_pipeline(blocks: int, device: str, quick: bool) -> Any:
    """A HunyuanVideo15Pipeline that has little more than a transformer, with random weights in bfloat16."""
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        ClassifierFreeGuidance,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )

    small = {
        "num_attention_heads": 2,
        "attention_head_dim": 64,
        "num_layers": 2,
        "text_embed_dim": 64,
        "text_embed_2_dim": 64,
        "image_embed_dim": 64,
        "rope_axes_dim": (16, 24, 24),
    }
    torch.manual_seed(0)
    usual, build = torch.get_default_dtype(), HunyuanVideo15Transformer3DModel
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            transformer = build(**(small if quick else {"num_layers": blocks}))
    finally:
        torch.set_default_dtype(usual)
    return HunyuanVideo15Pipeline(
        transformer=transformer.eval(),
        vae=AutoencoderKLHunyuanVideo15(block_out_channels=(8, 8, 8, 8, 8), layers_per_block=1),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        guider=ClassifierFreeGuidance(),
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
    )


def inputs_of(pipe: Any, grid: tuple[int, int, int], words: int, device: str) -> dict[str, Any]:
    """What the pipeline calls the transformer with for a prompt of so many tokens, without glyphs and image."""
    config = pipe.transformer.config
    make = partial(torch.randn, device=device, dtype=torch.bfloat16)
    mask = torch.zeros(1, TEXT["prompt"], device=device, dtype=torch.bfloat16)
    mask[:, :words] = 1
    return {
        "hidden_states": make(1, config.in_channels, *grid),
        "timestep": torch.tensor([500.0], device=device, dtype=torch.bfloat16),
        "encoder_hidden_states": make(1, TEXT["prompt"], config.text_embed_dim),
        "encoder_attention_mask": mask,
        "encoder_hidden_states_2": make(1, TEXT["glyphs"], config.text_embed_2_dim),
        "encoder_attention_mask_2": torch.zeros(1, TEXT["glyphs"], device=device, dtype=torch.bfloat16),
        "image_embeds": make(1, TEXT["image"], config.image_embed_dim) * 0,
        "return_dict": False,
    }


if __name__ == "__main__":
    main()
