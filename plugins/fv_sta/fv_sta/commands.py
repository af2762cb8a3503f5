"""`fv sta`: convert, inspect and search files of windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastvideo_core import (
    check_output_file,
    family_names,
    only_given,
    prompt_progress,
    read_prompts,
    sampling_options,
    settings_option,
    split_settings,
)
from fastvideo_core.errors import InputError

if TYPE_CHECKING:
    from fastvideo_core import VideoGenerator
    from fv_sta.tiles import Triple


_overwrite = click.option("--overwrite", is_flag=True, help="Replace a file that is there already.")


MAX_STEPS = 1000
MAX_TOKENS = 10_000_000


@click.group("sta")
def sta() -> None:
    """Windows of Sliding Tile Attention."""


def _triple(text: str, name: str) -> Triple:
    from fv_sta.tiles import parse_triple

    return parse_triple(text, name, ", such as 30x48x80", separators=",xX")


def _canvas(text: str) -> Triple:
    """The grid of tokens that --grid gives.

    Raises:
        InputError: it is none, or larger than any video's.
    """
    grid = _triple(text, "--grid")
    if math.prod(grid) > MAX_TOKENS:
        raise InputError(f"--grid {text} is {math.prod(grid):,} tokens; more than {MAX_TOKENS:,} are no canvas")
    return grid


@sta.command("convert")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--grid", required=True, metavar="TxHxW", help="The canvas in tokens, such as 30x48x80.")
@click.option("--tile", default="6x8x8", show_default=True, metavar="TxHxW")
@click.option("--family", required=True, help="The model's family, such as HunyuanVideo or Wan.")
@_overwrite
def convert_command(source: Path, target: Path, grid: str, tile: str, family: str, overwrite: bool) -> None:
    """Write a published flat file SOURCE in our own format to TARGET."""
    import numpy as np

    from fv_sta.strategy import check_windows, read_strategy, write_strategy
    from fv_sta.tiles import Tiling, check_tile

    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"SOURCE and TARGET are both {str(source)!r}; give TARGET another name")
    check_output_file(target, overwrite)
    if family not in (known := family_names()):
        raise InputError(f"--family is {family!r}; installed plugins know {', '.join(known)}")
    table = read_strategy(source)
    size = source.stat().st_size
    tiling = Tiling(_canvas(grid), check_tile(_triple(tile, "--tile"), "--tile"))
    check_windows(table.distinct(), tiling.tiles, str(source))
    full = (table.table >= np.array(tiling.tiles)).all(axis=(1, 2, 3))
    dense_steps = int(np.argmin(full)) if not full.all() else table.steps
    converted = replace(table, dense_steps=dense_steps, family=family, grid=tiling.grid, tile=tiling.tile)
    write_strategy(converted, target, overwrite)
    click.echo(
        f"{target}: {table.steps} steps, the first {dense_steps} dense, {table.layers} layers, {table.heads} heads; "
        f"{size:,} bytes became {target.stat().st_size:,}"
    )


@sta.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--grid", metavar="TxHxW", help="The canvas in tokens, if the file does not tell.")
@click.option("--tile", metavar="TxHxW", help="The tile, if the file does not tell. Default: 6x8x8")
@click.option("--png", type=click.Path(path_type=Path), help="Where to draw a heat map of steps and layers.")
@_overwrite
def inspect_command(file: Path, grid: str | None, tile: str | None, png: Path | None, overwrite: bool) -> None:
    """Show a FILE of windows: which occur, and what share of full attention's work they leave."""
    from fv_sta.report import draw_heat_map, share_of_work
    from fv_sta.strategy import check_windows, read_strategy
    from fv_sta.tiles import DEFAULT_TILE, Tiling, by
    from fv_sta.windows import describe

    if png and png.exists() and file.exists() and png.samefile(file):
        raise InputError(f"--png is {str(file)!r}, the file of windows itself; give it another name")
    if png:
        check_output_file(png, overwrite)
    table = read_strategy(file)
    canvas = table.grid or (_canvas(grid) if grid else None)
    if canvas is None:
        raise InputError(f"{str(file)!r} does not tell its canvas; give it as --grid, such as 30x48x80")
    tiling = Tiling(canvas, table.tile or (_triple(tile, "--tile") if tile else DEFAULT_TILE))
    check_windows(table.distinct(), tiling.tiles, str(file))
    work = share_of_work(table, tiling)
    click.echo(
        f"{table.steps} steps, the first {table.dense_steps} dense; {table.layers} layers of {table.heads} heads"
    )
    click.echo(f"canvas {by(tiling.grid)}, tile {by(tiling.tile)}, {by(tiling.tiles)} tiles")
    click.echo("windows: " + ", ".join(describe(window, tiling.tiles) for window in table.distinct()))
    after = f"; after the dense steps {work[table.dense_steps :].mean():.3f}" if table.dense_steps < table.steps else ""
    click.echo(f"work: {work.mean():.3f} of full attention's{after}")
    for name, axis in (("step", 1), ("layer", 0)):
        values = work.mean(axis=axis)
        click.echo(f"by {name}: " + " ".join(f"{value:.2f}" for value in values))
    if png:
        draw_heat_map(work, png, overwrite)
        click.echo(f"heat map {png}")


@sta.command("search")
@click.option("--model", required=True, help="Preset, local folder or hub id.")
@click.option("--prompts", "prompt_file", required=True, type=click.Path(path_type=Path), help="One prompt a line.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The file of windows to write.")
@click.option("--max-error", type=float, help="The relative error that a head's output may have.")
@click.option("--density", type=float, help="The share of full attention's work to come down to, instead.")
@click.option("--windows", "window_text", help="Candidates, such as '1,1,1 3,3,3'. Default: every odd one.")
@click.option("--tile", help="Default: FASTVIDEO_STA_TILE, else as for a video.")
@settings_option
@click.option("--ranges", default=3, show_default=True, help="Parts of the run that get windows of their own.")
@click.option("--dense", default=0.25, show_default=True, help="Share of first steps with full attention.")
@sampling_options
@click.option("--seed", type=int, default=1024, show_default=True)
@click.option("--device", help="Default: cuda where there is one, else cpu.")
@_overwrite
def search_command(
    model: str,
    prompt_file: Path,
    output: Path,
    max_error: float | None,
    density: float | None,
    window_text: str | None,
    tile: str | None,
    settings: tuple[str, ...],
    ranges: int,
    dense: float,
    device: str | None,
    overwrite: bool,
    **sampling: Any,
) -> None:
    """Measure candidate windows on generated videos and write the cheapest that are good enough.

    What was measured is kept beside OUTPUT until the file is written: an interrupted search goes on from there.
    """
    from fv_sta.search import choose, choose_density, measure
    from fv_sta.strategy import write_strategy

    if (max_error is None) == (density is None):
        raise InputError("give either --max-error or --density")
    for name, value, low, high in (
        ("--max-error", max_error, 0, 10),
        ("--density", density, 0, 1),
        ("--dense", dense, 0, 1),
    ):
        if value is not None and not low <= value <= high:
            raise InputError(f"{name} is {value}, it must be {low} to {high}")
    if not 1 <= ranges <= MAX_STEPS:
        raise InputError(f"--ranges is {ranges}, it must be 1 to {MAX_STEPS}: more than the steps mean nothing")
    prompts = read_prompts(prompt_file)
    check_output_file(output, overwrite)
    notes = output.with_name(output.name + ".measured.npz")
    check_output_file(notes, overwrite=True)
    load, windows, sampling = _prepare(model, device, _given(settings, tile), sampling, window_text)
    with load() as generator:
        measured = measure(generator, prompts, sampling, windows, notes, prompt_progress(len(prompts)))
    dense_steps = math.ceil(dense * measured.errors.shape[0])
    if max_error is not None:
        choice = choose(measured, ranges, dense_steps, max_error)
    else:
        assert density is not None
        choice = choose_density(measured, ranges, dense_steps, density)
    write_strategy(choice.table, output, overwrite)
    notes.unlink()
    click.echo(f"{output}: work {choice.density:.3f} of full attention's, {dense_steps} dense steps included")
    click.echo(f"relative error expected {choice.error:.4f}, bound {choice.max_error:.4f}, over {len(prompts)} prompts")
    for number, (share, error) in enumerate(zip(choice.density_of_range, choice.error_of_range, strict=True), start=1):
        click.echo(f"  range {number}: work {share:.3f}, error {error:.4f}")


def _given(settings: tuple[str, ...], tile: str | None) -> dict[str, Any]:
    """What --set and --tile give for SLIDING_TILE_ATTN."""
    given = split_settings(settings, "SLIDING_TILE_ATTN")[0]
    if tile and "tile" in given:
        raise InputError(f"--tile {tile} and --set SLIDING_TILE_ATTN.tile both give the tile; leave one out")
    return {**given, "tile": tile} if tile else given


def _prepare(
    model: str, device: str | None, config: dict[str, Any], sampling: dict[str, Any], window_text: str | None
) -> tuple[Callable[[], VideoGenerator], list[Triple], dict[str, Any]]:
    """What loads the model, the candidate windows on its canvas, and what was given of the sampling parameters."""
    from fastvideo_core import VideoGenerator, check_sampling
    from fv_sta.backend import SlidingTileAttention
    from fv_sta.search import candidates
    from fv_sta.strategy import check_windows

    given = only_given(sampling)
    params, info = check_sampling(model, given)
    backend = SlidingTileAttention()
    backend.take_settings(config)
    tiles = backend.tiling(info.geometry.grid(params.num_frames, params.height, params.width)).tiles
    windows = [_triple(part, "--windows") for part in (window_text or "").split()] or candidates(tiles)
    if window_text is not None and not window_text.strip():
        raise InputError(f"--windows is {window_text!r}; give windows such as '1,1,1 3,3,3', or leave it out")
    check_windows(windows, tiles, "--windows")
    if not windows:
        raise InputError(f"the canvas is {tiles[0]}x{tiles[1]}x{tiles[2]} tiles, which leaves no window; choose --tile")
    load = partial(
        VideoGenerator.from_pretrained,
        model,
        attention_backend=SlidingTileAttention.name,
        attention_config=config,
        device=device,
    )
    return load, windows, given
