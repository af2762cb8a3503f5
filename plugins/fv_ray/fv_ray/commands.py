"""`fv batch`: rows of a file over the machines of a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastvideo_core import Batch, memory_options, only_given, sampling_options, settings_for_asked, settings_option
from fastvideo_core.errors import InputError

_SAMPLING = ("negative_prompt", "height", "width", "num_frames", "num_inference_steps", "guidance_scale", "fps", "seed")
_MORE_SAMPLING = ("guidance_scale_2", "flow_shift", "max_sequence_length", "sheet", "output_path")


@click.command("batch")
@click.argument("prompts", type=click.Path(path_type=Path))
@click.option("--output", "output_path", required=True, metavar="FOLDER", help="One that every machine sees.")
@click.option("--model", default="shapes", show_default=True, help="Preset, folder that every machine sees, or hub id.")
@click.option("--concurrency", type=click.IntRange(1), help="Videos at a time. Default: as many as there are GPUs for.")
@click.option(
    "--num-gpus-per-video",
    "num_gpus",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="GPUs of one machine that make each video together.",
)
@click.option(
    "--num-processes",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Likewise with --device cpu, to try it.",
)
@click.option("--address", help="auto, local, HOST:PORT or ray://…. Default: RAY_ADDRESS, else a cluster that is here.")
@click.option("--table", type=click.Path(path_type=Path), help="Also write the results as this .parquet file.")
@click.option("--retry-failed", is_flag=True, help="Try those again that failed in an earlier run.")
@click.option("--attention-backend", metavar="NAME", help="NAME or NAME@VALUE. Default: automatic.")
@click.option("--cache", metavar="POLICY", help="Such as TEACACHE@0.08. Default: FASTVIDEO_CACHE_POLICY, else none.")
@settings_option
@click.option("--negative-prompt", help="What the guidance leads away from.")
@sampling_options
@click.option("--fps", type=int, help="Frames per second of the file.")
@click.option("--seed", type=int, help="Same seed, same video.")
@click.option("--sheet", is_flag=True, default=None, help="Also write PNG contact sheets.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Default: cuda where the cluster has it, else cpu.")
@click.option("--dtype", help="float32, bfloat16 or float16. Default: bfloat16 on CUDA, else float32.")
@click.option("--compile", is_flag=True, default=None, help="Compile the transformer's blocks.")
@memory_options
def batch_command(
    prompts: Path,
    model: str,
    concurrency: int | None,
    num_gpus: int,
    num_processes: int,
    address: str | None,
    table: Path | None,
    retry_failed: bool,
    cache: str | None,
    settings: tuple[str, ...],
    device: str | None,
    **options: Any,
) -> None:
    """Make a video for each of PROMPTS, a file as for `fv generate --prompts`, on the machines of a Ray cluster.

    Each is named by its id. What is whole in the folder is not made again, a prompt that fails does not end the run,
    and the folder's results.jsonl has a line for each.
    """
    from fastvideo_core import check_names
    from fv_ray.run import Run, check_table, write_table
    from fv_ray.shape import Asked

    check_folder(options["output_path"])
    check_table(table)
    for_backend, cache_config = settings_for_asked(settings, options.get("attention_backend"), cache)
    check_names(
        model,
        attention_backend=options["attention_backend"],
        attention_config=for_backend,
        cache=cache,
        cache_config=cache_config,
        quantization=options["quantization"],
        dtype=options["dtype"],
    )
    given = only_given(options)
    sampling = {name: given.pop(name) for name in (*_SAMPLING, *_MORE_SAMPLING) if name in given}
    sampling["output_path"] = str(Path(sampling["output_path"]).absolute())
    batch = Batch.read(prompts, None, retry_failed)
    assert batch is not None
    batch.check(model, sampling, cache, cache_config)
    run = Run(
        Asked(concurrency, num_gpus, num_processes, device),
        address,
        str(Path(model).absolute()) if Path(model).is_dir() else model,
        sampling,
        {"cache": cache, "cache_config": cache_config or None},
        {**given, "attention_config": for_backend or None},
    )
    try:
        batch.run(run.results, lambda video: None)
    finally:
        if table is not None:
            write_table(table, run.rows)


def check_folder(given: str) -> None:
    """Raises InputError: it is an address, and the folder is where a later run looks for what is done."""
    if "://" in given:
        raise InputError(
            f"--output {given!r} is an address; give a folder that every machine sees. Into addresses "
            "fv_ray.VideoPredictor writes, with a dataset of your own"
        )
