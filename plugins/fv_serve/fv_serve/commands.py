"""`fv serve`: load a model, open the jobs, answer requests until it is stopped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from fastvideo_core import memory_options, only_given, sampling_options
from fv_serve.limits import Limits
from fv_serve.served import SAMPLING

_DEFAULT = Limits()


def _a_number(context: click.Context, option: click.Parameter, value: float) -> float:
    """Refuse "nan", which is within every range."""
    if math.isnan(value):
        raise click.BadParameter("nan is no number")
    return value


@click.command("serve")
@click.option("--model", default="shapes", show_default=True, help="Preset, local folder or hub id.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Any but this machine needs FASTVIDEO_API_KEY.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option(
    "--output", "folder", default="served", show_default=True, type=click.Path(path_type=Path), help="Jobs and videos."
)
@click.option("--attention-backend", metavar="NAME", help="NAME or NAME@VALUE, unless a request gives one.")
@click.option("--cache", metavar="POLICY", help="Such as TEACACHE@0.08, unless a request gives one.")
@sampling_options
@click.option("--fps", type=int, help="Frames per second.")
@click.option("--seed", type=int, help="Same seed, same video.")
@click.option("--device", help="Default: cuda where there is one, else cpu.")
@click.option("--dtype", help="float32, bfloat16 or float16. Default: bfloat16 on CUDA, else float32.")
@click.option("--compile", is_flag=True, help="Compile the transformer's blocks.")
@click.option("--num-gpus", default=1, show_default=True, help="GPUs that make each video together.")
@click.option("--num-processes", default=1, show_default=True, help="Likewise on the CPU, to try it.")
@memory_options
@click.option(
    "--interrupted",
    type=click.Choice(["again", "fail"]),
    default="again",
    show_default=True,
    help="What becomes of a video that was being made when the server was killed.",
)
@click.option(
    "--max-queue", default=_DEFAULT.queue, show_default=True, type=click.IntRange(1), help="Videos that wait."
)
@click.option(
    "--max-work",
    default=_DEFAULT.work,
    show_default=True,
    type=click.IntRange(1),
    help="Height x width x frames x steps of a video.",
)
@click.option("--max-body-mb", default=32, show_default=True, type=click.IntRange(1), help="Of a request.")
@click.option(
    "--max-disk-gb",
    default=20.0,
    show_default=True,
    type=click.FloatRange(0, 1e9),
    callback=_a_number,
    help="Of all videos; the oldest are removed beyond.",
)
@click.option(
    "--keep-hours",
    default=24.0,
    show_default=True,
    type=click.FloatRange(0, 1e6),
    callback=_a_number,
    help="How long a video is kept.",
)
def serve_command(
    model: str,
    host: str,
    port: int,
    folder: Path,
    attention_backend: str | None,
    cache: str | None,
    interrupted: str,
    max_queue: int,
    max_work: int,
    max_body_mb: int,
    max_disk_gb: float,
    keep_hours: float,
    **options: Any,
) -> None:
    """Serve OpenAI's videos API, and a page at /, on one model and one queue.

    Sizes, steps and the like are those of a request that gives none.
    """
    from fv_serve.start import Settings, serve

    limits = replace(
        _DEFAULT,
        queue=max_queue,
        work=max_work,
        body_bytes=max_body_mb * 2**20,
        disk_bytes=int(max_disk_gb * 2**30),
        keep_seconds=keep_hours * 3600,
    )
    sampling = only_given({name: options.pop(name) for name in SAMPLING if name in options})
    loading = only_given(options)
    serve(
        Settings(model, host, port, folder, attention_backend, cache, limits, interrupted == "again", sampling, loading)
    )
