"""Options and output that several commands share, those of plugins too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_SAMPLING = (
    click.option("--height", type=int, help="Pixels."),
    click.option("--width", type=int, help="Pixels."),
    click.option("--frames", "num_frames", type=int, help="Number of frames."),
    click.option("--steps", "num_inference_steps", type=int, help="Denoising steps."),
    click.option("--guidance", "guidance_scale", type=float, help="Guidance scale; 1 or less: none."),
)


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for size, steps and guidance, named as the fields of `SamplingParam`; None if not given."""
    for option in reversed(_SAMPLING):
        command = option(command)
    return command


def only_given(options: dict[str, Any]) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in options.items() if value is not None}


def prompt_progress(total: int) -> Callable[[int, str], None]:
    """What prints the number and the text of each prompt to the error stream."""
    return lambda number, prompt: click.echo(f"[{number + 1}/{total}] {prompt}", err=True)
