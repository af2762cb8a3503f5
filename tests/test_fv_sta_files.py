"""Files of windows: both formats, what is wrong with a file, and `fv sta`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fv_sta.backend import SlidingTileAttention
from fv_sta.sparse import Sparse, tensors_for
from fv_sta.strategy import Table, read_strategy, write_strategy
from fv_sta.tiles import Tiling

from fastvideo_core import VideoGenerator, attach
from fastvideo_core.cli import fv
from fastvideo_core.errors import InputError
from tests.support.families import FAMILIES
from tests.support.models import build_wan_pipeline
from tests.support.models import run_to_latents as run

LARGE: dict[str, Any] = {"height": 160, "width": 208}
"""A 3x10x13 grid of tokens; 2x2x2 tiles of 2x8x8."""

OWN: dict[str, Any] = {
    "schema": "fv-sta/1",
    "model": {"family": "Wan", "layers": 2, "heads": 2},
    "grid": [3, 10, 13],
    "steps": 3,
    "tile": [2, 8, 8],
    "dense_steps": 1,
    "windows": [{"window": [1, 1, 1]}, {"steps": "2", "heads": "1", "window": [1, 2, 1]}],
}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(fv, ["sta", *map(str, arguments)])


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def published(steps: int, layers: int, heads: int, dense: int, tiles: list[int]) -> dict[str, list[int]]:
    """As FastVideo published it: dense steps are whole windows, then heads differ."""
    choices = [[3, 3, 3], [1, 6, 10], [5, 6, 1], [3, 3, 5]]
    return {
        f"{step}_{layer}_{head}": tiles if step < dense else choices[(layer * 7 + head * 3 + step // 12) % 4]
        for step in range(steps)
        for layer in range(layers)
        for head in range(heads)
    }


def test_our_own_format(tmp_path: Path) -> None:
    table = read_strategy(write(tmp_path / "w.json", OWN))
    assert (table.steps, table.layers, table.heads, table.dense_steps) == (3, 2, 2, 1)
    assert table.windows(0, 0, 3, 2) is None
    assert table.windows(1, 1, 3, 2) == ((1, 1, 1), (1, 1, 1))
    assert table.windows(2, 0, 3, 2) == ((1, 1, 1), (1, 2, 1))
    assert table.distinct() == [(1, 1, 1), (1, 2, 1)]


def test_the_published_file_loads_builds_and_converts_in_seconds(tmp_path: Path) -> None:
    source = write(tmp_path / "flat.json", published(50, 60, 24, 15, [5, 6, 10]))
    start = time.perf_counter()
    table = read_strategy(source)
    tiling = Tiling((30, 48, 80), (6, 8, 8))
    import torch

    lists = [tensors_for(tiling, window, 37, torch.device("cpu")) for window in table.distinct()]
    assert time.perf_counter() - start < 20, "seconds, on a busy machine"
    assert table.table.size == 72_000 * 3
    size = sum(part.numel() * part.element_size() for tensors in lists for part in tensors)
    assert size < 8e6, f"{size:,} bytes of index tensors"
    done = invoke("convert", source, tmp_path / "own.json", "--grid", "30x48x80", "--family", "HunyuanVideo")
    assert done.exit_code == 0, done.output
    assert "50 steps, the first 15 dense, 60 layers, 24 heads" in done.output
    converted = read_strategy(tmp_path / "own.json")
    assert np.array_equal(converted.table[15:], table.table[15:])
    assert (converted.grid, converted.tile, converted.dense_steps) == ((30, 48, 80), (6, 8, 8), 15)
    assert (tmp_path / "own.json").stat().st_size < source.stat().st_size / 10


def test_written_tables_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = Table(rng.integers(1, 4, (6, 3, 5, 3), dtype=np.int32), 2, "Wan", (12, 16, 16), (2, 8, 8))
    write_strategy(table, tmp_path / "w.json")
    again = read_strategy(tmp_path / "w.json")
    assert np.array_equal(again.table[2:], table.table[2:])
    assert (again.family, again.grid, again.tile) == (table.family, table.grid, table.tile)
    assert [path.name for path in tmp_path.iterdir()] == ["w.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"0_0_0": [1, 1, 1', "is not whole or no JSON"),
        ('{"0_0_0": [NaN, 1, 1]}', "NaN is no number of tiles"),
        ({"0_0_0": [-1, 1, 1]}, "the window of 0_0_0 is -1, it must be a whole number, 1 or more"),
        ({"0_0_0": [1, 1]}, r"the window of 0_0_0 is \[1, 1\], it must be three whole numbers"),
        ({"0_0_0": [1.5, 1, 1]}, "the window of 0_0_0 is 1.5"),
        ({"0_0_0": [True, 1, 1]}, "the window of 0_0_0 is True"),
        (
            {"0_0_0": [1, 1, 1], "1_1_1": [1, 1, 1]},
            "it has 2 windows, but its keys reach 2 steps of 2 layers of 2 heads, 8",
        ),
        ({"step0": [1, 1, 1]}, "the key 'step0' is not step_layer_head"),
        ({}, "it is empty"),
        ([], "holds a list, it must be an object"),
        ({**OWN, "schema": "fv-sta/9"}, "its schema is 'fv-sta/9', this version reads 'fv-sta/1'"),
        ({k: v for k, v in OWN.items() if k != "grid"}, "it lacks grid"),
        ({**OWN, "steps": 0}, "steps is 0, it must be a whole number, 1 or more"),
        ({**OWN, "tile": [3, 3, 3]}, "a tile of 3x3x3 has 27 tokens"),
        ({**OWN, "windows": [{"window": [1, 1, 1], "heads": "0-2"}]}, "heads of rule 0 is '0-2', it must lie in 0-1"),
        ({**OWN, "windows": [{"window": [1, 1, 1], "heads": "x"}]}, "heads of rule 0 is 'x', it must be text such as"),
        (
            {**OWN, "windows": [{"window": [1, 1, 1], "layers": "1"}]},
            "no rule gives head 0 of layer 0 a window at step 1",
        ),
        ({**OWN, "windows": "all"}, "windows must be a list"),
    ],
)
def test_a_file_that_means_nothing_is_refused_at_construction(
    tmp_path: Path, content: object, message: str, wan_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "w.json", content)
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", lambda *args, **kwargs: pytest.fail("loaded"))
    with pytest.raises(InputError, match=message):
        VideoGenerator.from_pretrained(wan_folder, attention_backend="SLIDING_TILE_ATTN", attention_config=path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": [3, 10, 12]}, "its grid of tokens is 3x10x12, this run's is 3x10x13"),
        ({"steps": 4}, "its number of steps is 4, this run's is 3"),
        ({"model": {"family": "Wan", "layers": 3, "heads": 2}}, "its number of layers is 3, this run's is 2"),
        ({"model": {"family": "Wan", "layers": 2, "heads": 4}}, "its number of heads is 4, this run's is 2"),
        ({"model": {"family": "Mochi", "layers": 2, "heads": 2}}, "its model family is Mochi, this run's is Wan"),
        ({"windows": [{"window": [3, 1, 1]}]}, "the window 3x1x1 is larger than the canvas of 2x2x2 tiles"),
    ],
)
def test_a_file_for_something_else_is_refused_before_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "w.json", {**OWN, **change})
    monkeypatch.setattr(SlidingTileAttention, "attend", lambda *_: pytest.fail("a step was run"))
    pipe = build_wan_pipeline()
    with (
        attach(pipe, attention_backend="SLIDING_TILE_ATTN", attention_config=path),
        pytest.raises(InputError, match=message),
    ):
        run(pipe, **LARGE)


@pytest.mark.slow
def test_a_file_is_used_and_named_in_the_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIDEO_ATTENTION_CONFIG", str(write(tmp_path / "w.json", OWN)))
    pipe = build_wan_pipeline()
    with attach(pipe, attention_backend="SLIDING_TILE_ATTN") as fv:
        run(pipe, **LARGE)
    details = fv.receipt.attention["SELF"].details
    assert details["config"] == "w.json"
    assert details["kernels"] == {"flex": 8, "dense": 4}
    assert details["windows"] == {"1x1x1": 12, "full": 8, "1x2x1": 4}


def test_a_file_for_a_backend_that_takes_none(tmp_path: Path, wan_pipeline: Any) -> None:
    path = write(tmp_path / "w.json", OWN)
    with pytest.raises(InputError, match="TORCH_SDPA has no main setting to give it to"):
        attach(wan_pipeline, attention_backend="TORCH_SDPA", attention_config=path)
    with pytest.raises(
        InputError, match="but no attention backend was asked for that it could be for: set attention_backend="
    ):
        attach(wan_pipeline, attention_config=path)


def test_inspect(tmp_path: Path) -> None:
    done = invoke("inspect", write(tmp_path / "w.json", OWN), "--png", tmp_path / "heat.png")
    assert done.exit_code == 0, done.output
    assert "windows: 1x1x1, 1x2x1" in done.output
    assert "3 steps, the first 1 dense; 2 layers of 2 heads" in done.output
    from PIL import Image

    with Image.open(tmp_path / "heat.png") as image:
        assert (image.width, image.height) == (3 * 12, 2 * 12)
        assert sum(image.getpixel((0, 0))) > sum(image.getpixel((30, 0)))  # type: ignore[arg-type]  # RGB
    flat = write(tmp_path / "flat.json", published(2, 1, 1, 1, [2, 2, 2]))
    assert "give it as --grid" in invoke("inspect", flat).output
    assert "(acts as" not in invoke("inspect", flat, "--grid", "6x10x10").output


def test_a_converted_file_is_no_larger_also_where_windows_change_at_each_step(tmp_path: Path) -> None:
    """A candidate of eleven for each step, layer and head, at random: no ranges to speak of."""
    rng = np.random.default_rng(0)
    candidates = rng.integers(1, 4, (11, 3)).tolist()
    keys = [f"{step}_{layer}_{head}" for step in range(50) for layer in range(4) for head in range(24)]
    source, target = (tmp_path / name for name in ("flat.json", "own.json"))
    write(source, {key: candidates[rng.integers(11)] for key in keys})
    done = invoke("convert", source, target, "--grid", "18x24x24", "--family", "Wan")
    assert done.exit_code == 0, done.output
    assert np.array_equal(read_strategy(target).table, read_strategy(source).table)
    assert target.stat().st_size < source.stat().st_size
    assert max(map(len, target.read_text().splitlines())) < 200, "a rule a line"


def test_convert_takes_families_that_there_are(tmp_path: Path) -> None:
    source = write(tmp_path / "flat.json", published(2, 1, 1, 1, [2, 2, 2]))
    done = invoke("convert", source, tmp_path / "own.json", "--grid", "12x16x16", "--family", "Hunyuan")
    assert done.exit_code == 1
    assert f"--family is 'Hunyuan'; installed plugins know {', '.join(sorted(FAMILIES))}" in done.output
    assert not (tmp_path / "own.json").exists()


def test_convert_refuses_windows_that_are_larger_than_the_canvas(tmp_path: Path) -> None:
    flat = write(tmp_path / "flat.json", published(4, 1, 2, 1, [5, 6, 10]))
    done = invoke("convert", flat, tmp_path / "own.json", "--grid", "12x16x16", "--family", "Wan")
    assert done.exit_code == 1
    assert "is larger than the canvas of 2x2x2 tiles" in done.output
    assert not (tmp_path / "own.json").exists()


def search(folder: Path, *more: object, model: Path, prompts: str = "cat\ndog\n") -> Result:
    write(folder / "prompts.txt", prompts)
    common = ("--prompts", folder / "prompts.txt", "--output", folder / "w.json", "--tile", "2,8,8", "--steps", 3)
    size = ("--height", 160, "--width", 208, "--frames", 9, "--guidance", 3, "--ranges", 2)
    return invoke("search", "--model", model, *common, *size, *more)


@pytest.mark.slow
def test_search_finds_the_cheapest_windows_below_the_bound(wan_folder: Path, tmp_path: Path) -> None:
    done = search(tmp_path, "--max-error", 0.3, "--windows", "1,1,1 1,2,2 2,2,1", model=wan_folder)
    assert done.exit_code == 0, done.output
    table = read_strategy(tmp_path / "w.json")
    assert (table.steps, table.layers, table.heads, table.dense_steps) == (3, 2, 2, 1)
    assert set(table.distinct()) <= {(1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 2, 2)}
    assert "relative error expected" in done.output
    assert "bound 0.3000, over 2 prompts" in done.output
    assert not list(tmp_path.glob("*.npz"))
    strict = search(tmp_path, "--max-error", 0, "--overwrite", "--windows", "1,1,1", model=wan_folder)
    assert strict.exit_code == 0, strict.output
    assert read_strategy(tmp_path / "w.json").distinct() == [(2, 2, 2)]
    pipe = build_wan_pipeline()
    with attach(pipe, attention_backend="SLIDING_TILE_ATTN", attention_config=tmp_path / "w.json") as attached:
        run(pipe, **LARGE)
        assert attached.receipt.attention["SELF"].details["work"] == 1.0


@pytest.mark.slow
def test_search_goes_on_after_an_interruption(
    wan_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated: list[str] = []
    generate = VideoGenerator.generate_video

    def interrupted(self: VideoGenerator, prompt: Any, *args: Any, **kwargs: Any) -> Any:
        if prompt == "dog" and "dog" not in generated:
            generated.append(prompt)
            raise KeyboardInterrupt
        generated.append(prompt)
        return generate(self, prompt, *args, **kwargs)

    monkeypatch.setattr(VideoGenerator, "generate_video", interrupted)
    arguments = ("--density", 0.9, "--dense", 0, "--windows", "1,1,1 2,1,1")
    assert search(tmp_path, *arguments, model=wan_folder).exit_code == 1, "click makes an abort of Ctrl-C"
    assert (tmp_path / "w.json.measured.npz").exists()
    assert not (tmp_path / "w.json").exists()
    other = search(tmp_path, "--density", 0.9, "--windows", "1,1,1", model=wan_folder)
    assert "holds an interrupted search with other settings" in other.output
    done = search(tmp_path, *arguments, model=wan_folder)
    assert done.exit_code == 0, done.output
    assert generated == ["cat", "dog", "dog"]
    assert (tmp_path / "w.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --max-error or --density"),
        (("--max-error", 0.1, "--density", 0.5), "give either --max-error or --density"),
        (("--max-error", "nan"), "--max-error is nan, it must be 0 to 10"),
        (("--density", 0.5, "--windows", "9,9,9"), "--windows: the window 9x9x9 is larger than the canvas of 2x2x2"),
        (("--density", 0.5, "--windows", "a,b,c"), "--windows is 'a,b,c', it must be three whole numbers"),
        (("--density", 0.5, "--ranges", 0), "--ranges is 0"),
    ],
)
def test_search_refuses(wan_folder: Path, tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    done = search(tmp_path, *arguments, model=wan_folder)
    assert (done.exit_code, message in done.output) == (1, True), done.output


def test_search_needs_prompts(wan_folder: Path, tmp_path: Path) -> None:
    assert "has no prompts" in search(tmp_path, "--density", 0.5, model=wan_folder, prompts="\n").output


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"0_0_0": [1, 1, 1], "0_0_0": [1, 1, 2]}', "the key '0_0_0' stands there twice"),
        ('{"0_0_0": [1, 1, 1], "0_0_00": [1, 1, 2]}', "the window of 0_0_00 is given twice"),
        ('{"%s_0_0": [1, 1, 1]}' % ("1" * 5000), "is not step_layer_head"),
        ({**OWN, "windows": [{"window": [1, 1, 1], "step": "2"}]}, "rule 0 of windows has 'step'; a rule has steps"),
        ({**OWN, "dense_steps": 99}, "dense_steps is 99, of 3 steps in all"),
        ({**OWN, "steps": 10**12}, "steps is 1000000000000, it must be a whole number, 1 or more and at most 1000000"),
        (
            {**OWN, "steps": 10**6, "model": {"family": "Wan", "layers": 60, "heads": 24}},
            "more than 20,000,000 windows",
        ),
        ({**OWN, "windows": [{"window": [2**31, 1, 1]}]}, "is 2147483648, it must be a whole number"),
        ({**OWN, "windows": [{"window": [1, 1, 1], "steps": "0-" + "9" * 5000}]}, "it must be text such as"),
    ],
)
def test_values_that_mean_nothing_or_two_things(tmp_path: Path, content: object, problem: str) -> None:
    with pytest.raises(InputError) as refused:
        read_strategy(write(tmp_path / "w.json", content))
    assert problem in str(refused.value)


@pytest.mark.parametrize("grid", ["10000x10000x10000", "9" * 5000 + "x1x1"])
def test_a_grid_that_is_no_canvas(tmp_path: Path, grid: str) -> None:
    file = write(tmp_path / "w.json", '{"0_0_0": [1, 1, 1]}')
    done = invoke("inspect", file, "--grid", grid)
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert "--grid" in done.output


def test_the_windows_of_the_published_file_are_all_known_to_the_published_kernel() -> None:
    from fv_sta.kernels import KERNELS

    published_with_it = {(5, 6, 10), (5, 1, 10), (5, 6, 1), (1, 6, 10), (3, 3, 5), (3, 3, 3)}
    sparse = Sparse(Tiling((30, 48, 80), (6, 8, 8)), tuple(sorted(published_with_it)), 37, 37, None)
    assert KERNELS["st_attn"].mismatch(sparse, 128, "bfloat16", "cuda") is None
