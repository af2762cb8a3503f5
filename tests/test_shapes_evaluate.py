"""plugins/fv_shapes/train/evaluate.py: its intervals, its tables, and that batches make the same videos."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fv_shapes.captions import parse
from fv_shapes.render import render
from fv_shapes.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES
from fv_shapes.score import judge, wilson
from PIL import Image

pytestmark = pytest.mark.slow

TRAIN = Path(__file__).resolve().parent.parent / "plugins" / "fv_shapes" / "train"


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TRAIN))
    return importlib.import_module("evaluate")


def rendered(evaluate: ModuleType, prompts: dict[str, str], size: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Rows of videos that show what each prompt is mapped to."""
    return [evaluate.row_of(text, 7, size, judge(render(parse(shown), *size), text)) for text, shown in prompts.items()]


def test_intervals_are_wilsons() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I: method 3
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)


def test_tables_count_what_is_right_by_size(evaluate: ModuleType) -> None:
    good = "a red circle moving right on a white background"
    pair = "a red circle moving up and a blue square resting, gray background"
    bad = "a green cross resting on a black background"
    shown = "a green triangle resting on a black background"
    rows = rendered(evaluate, {good: good, bad: shown}, (17, 64, 64)) + rendered(evaluate, {pair: good}, (17, 96, 64))
    table = evaluate.accuracies(rows)
    cell = "100.0 % (34.2-100.0)"
    assert table[2] == f"| 17x64x64 | 2 | 50.0 % (9.5-90.5) | {cell} | {cell} | {cell} | 50.0 % (9.5-90.5) |"
    assert table[3].startswith("| 17x96x64 | 1 | 0.0 % (0.0-79.3) |")
    lines = {line.split(" |")[0]: line for line in evaluate.outlines(rows)}
    assert lines["| 17x64x64, circle"].startswith("| 17x64x64, circle | 1 | 1.000 | 1.000 | ")
    assert float(lines["| 17x64x64, cross"].split(" | ")[2]) < 0.7
    assert lines["| 17x96x64, all"].startswith("| 17x96x64, all | 2 | 0.")
    first, second = evaluate.failures(rows)
    assert first.startswith(f"17x64x64, seed 7, '{bad}': shape; found green triangle still, outline ")
    assert second.startswith(
        f"17x96x64, seed 7, '{pair}': shape, colour, direction, background; found red circle right"
    )
    assert evaluate.failures(rows[:1]) == ["All came true."]


def test_the_sheet_shows_every_shape_motion_colour_and_background(evaluate: ModuleType, tmp_path: Path) -> None:
    texts = evaluate.sheet_prompts()
    scenes = [parse(text) for text in texts]
    shapes = [scene.shapes[0] for scene in scenes]
    assert len({(one.shape, one.direction) for one in shapes}) == len(texts) == 24
    assert {one.shape for one in shapes} == set(SHAPES)
    assert {one.direction for one in shapes} == set(DIRECTIONS)
    assert {one.colour for one in shapes} == set(COLOURS)
    assert {scene.background for scene in scenes} >= set(BACKGROUNDS)
    videos = [render(scene, 5, 64, 64) / 255 for scene in scenes[:4]]
    evaluate.contact_sheet(texts[:4], videos, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert np.array_equal(sheet[:64, :64], np.rint(videos[0][0] * 255))
    assert np.array_equal(sheet[:64, 3 * 66 : 3 * 66 + 64], np.rint(videos[0][4] * 255))


def test_batches_make_the_videos_that_are_made_one_by_one(evaluate: ModuleType) -> None:
    sampling = {"num_inference_steps": 2, "guidance_scale": 4.0, "max_sequence_length": 64}
    texts = evaluate.random_prompts(3, 20_000, True)
    single = evaluate.one_by_one("shapes", sampling)(texts, (5, 64, 64), 40)
    batches = evaluate.in_batches("shapes", 2, "cpu", "float32", sampling)(texts, (5, 64, 64), 40)
    for one, other in zip(single, batches, strict=True):
        assert one.shape == (5, 64, 64, 3)
        assert np.abs(one - other).max() < 0.01


def test_the_command_prints_tables_and_writes_rows(evaluate: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    size = ("--prompts", "1", "--size", "5x64x64", "--size", "9x64x64", "--steps", "1", "--output", str(file))
    done = CliRunner().invoke(evaluate.main, [*size, "--batch", "1", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "| 5x64x64 | 1 | " in done.output
    assert "| 9x64x64 | 1 | " in done.output
    rows = json.loads(file.read_text())
    assert [(row["size"], row["seed"]) for row in rows] == [([5, 64, 64], 20_000), ([9, 64, 64], 20_000)]
    assert rows[0]["prompt"] == rows[1]["prompt"] == evaluate.random_prompts(1, 20_000, False)[0]


def test_a_size_that_is_none_is_refused(evaluate: ModuleType) -> None:
    done = CliRunner().invoke(evaluate.main, ["--size", "33x128"])
    assert done.exit_code == 2
    assert "'33x128' is not like 33x128x128" in done.output
