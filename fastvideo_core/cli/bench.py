"""`fv bench`: backends and policies against the plain run, paired per prompt and seed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from fastvideo_core.cli.options import only_given, sampling_options, settings_option, split_settings
from fastvideo_core.cli.output import say
from fastvideo_core.errors import InputError

MOST_SEEDS = 10_000


@click.command("bench")
@click.option("--model", required=True, help="Preset, local folder or hub id.")
@click.option("--prompts", "prompt_file", required=True, type=click.Path(path_type=Path), help="One prompt a line.")
@click.option("--attention", default="TORCH_SDPA", show_default=True, help="Backends, separated by commas.")
@click.option("--cache", default="none", show_default=True, help="Policies, such as none,TEACACHE@0.05,TEACACHE@0.1.")
@settings_option
@click.option("--output", type=click.Path(path_type=Path), default=Path("bench"), show_default=True, help="A folder.")
@click.option("--seeds", default=1, show_default=True, help="Videos for each prompt.")
@click.option("--seed", default=1024, show_default=True, help="The first seed.")
@sampling_options
@click.option("--device", help="Default: cuda where there is one, else cpu.")
@click.option("--dtype", help="float32, bfloat16 or float16. Default: bfloat16 on CUDA, else float32.")
@click.option("--compile", is_flag=True, help="Compile the transformer's blocks.")
@click.option("--num-gpus", default="1", show_default=True, help="GPUs that make each video together, such as 1,2,4.")
@click.option("--num-processes", default="1", show_default=True, help="Likewise on the CPU, with --device cpu.")
@click.option(
    "--page-videos", default=6, show_default=True, help="Of how many prompts and seeds the page shows videos."
)
def bench_command(
    model: str,
    prompt_file: Path,
    attention: str,
    cache: str,
    settings: tuple[str, ...],
    output: Path,
    seeds: int,
    seed: int,
    device: str | None,
    dtype: str | None,
    compile: bool,  # noqa: A002  # the option's name
    num_gpus: str,
    num_processes: str,
    page_videos: int,
    **sampling: Any,
) -> None:
    """Generate every prompt with every attention backend and caching policy, and say what each gains and costs.

    With several numbers of GPUs or processes, each combination is made by each number. The first backend without
    caching, by the smallest number, is the plain one: the others' speed-up, PSNR and SSIM are against its videos. For
    each prompt backends and policies take turns on one model, every second time backwards. Into
    OUTPUT go results.json, plot.png, page.html and the videos. An interrupted bench goes on where it stopped, and a
    finished one can be given more policies, prompts or numbers.
    """
    if missing := [name for name in ("matplotlib", "torchmetrics") if find_spec(name) is None]:
        raise InputError(f"fv bench needs {' and '.join(missing)}: pip install 'fastvideo-core[bench]'")
    if not 1 <= seeds <= MOST_SEEDS:
        raise InputError(f"--seeds is {seeds}, it must be 1 to {MOST_SEEDS}")
    if page_videos < 0:
        raise InputError(f"--page-videos is {page_videos}, it must be 0 or more")
    from fastvideo_core.app.bench.measure import run
    from fastvideo_core.app.bench.page import write_page
    from fastvideo_core.app.bench.report import draw, table, unscored, write_json
    from fastvideo_core.app.bench.setup import prepare, split_list, split_numbers
    from fastvideo_core.app.bench.store import Store
    from fastvideo_core.app.bench.summary import summarise
    from fastvideo_core.app.files import read_prompts
    from fastvideo_core.engine.asked import parse_asked

    given = only_given(sampling)
    loading = {"device": device, "dtype": dtype, "compile": compile}
    loading = {name: value for name, value in loading.items() if value}
    counts = split_numbers(num_gpus, "--num-gpus"), split_numbers(num_processes, "--num-processes")
    prompts = list(dict.fromkeys(read_prompts(prompt_file)))
    numbers = range(seed, seed + seeds)
    options = {"--attention": attention, "--cache": cache}
    asked = [parse_asked(one, option)[0] for option, text in options.items() for one in split_list(text, option)]
    names = list(dict.fromkeys(asked))
    named = {name: own for name, own in zip(names, split_settings(settings, *names), strict=True) if own}
    setup = prepare(model, prompts, numbers, attention, cache, given, loading, named, *counts)
    store = Store(output, setup)
    run(setup, store, _progress)
    rows = summarise(setup, store)
    plot = output / "plot.png"
    write_json(setup, store, rows, output / "results.json")
    draw(rows, plot)
    write_page(setup, store, rows, plot, output / "page.html", page_videos)
    for line in (*table(rows), *unscored(setup, store)):
        say(line)
    say(f"\n{output / 'results.json'}\n{plot}\n{output / 'page.html'}")


def _progress(number: int, total: int, combination: Any, sample: Any) -> None:
    say(f"[{number}/{total}] {combination.title}: {sample.prompt}", err=True)
