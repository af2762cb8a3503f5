"""Benchmarks write what they measured into files, and the tables of the documents are those of the files."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from model_tables import listings
from results import Listing, Results, table
from timing import alternate, in_the_middle
from ways import kind_of

from tools import tables

SECONDS = {"fast": [1.0, 2.0, 4.0], "bare": [4.0, 4.0, 4.0]}


def a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["sta.py", "--rounds", "3"])
    results = Results("sta", "cpu")
    results.add(table("canvas", "a canvas, float32", SECONDS, "bare", {"fast": {"density": 0.12345, "kernel": "flex"}}))
    run: dict[str, Any] = json.loads(results.write(tmp_path / "results").read_text("utf-8"))
    return {**run, **changes}


def test_a_file_has_medians_ranges_and_ratios_of_the_same_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path, monkeypatch)
    assert (run["script"], run["command"]) == ("sta", "python benchmarks/sta.py --rounds 3")
    assert (run["driver"], run["clocks"]) == (None, {"before": None, "after": None})
    assert run["versions"].keys() >= {"torch", "diffusers"}
    fast, bare = run["tables"][0]["rows"]
    assert (fast["rounds"], fast["median"], fast["low"], fast["high"]) == (3, 2.0, 1.0, 4.0)
    assert (fast["ratio"], fast["ratio_low"], fast["ratio_high"]) == (2.0, 1.0, 4.0)
    assert fast["notes"] == {"density": 0.12345, "kernel": "flex"}
    assert (bare["ratio"], bare["notes"]) == (1.0, {})


def test_no_file_replaces_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        a_run(tmp_path, monkeypatch)
    assert len(list((tmp_path / "results").iterdir())) == 3


TABLE = """
|  | s, median (range) | times as fast as bare, median (range) | density | kernel |
|---|---|---|---|---|
| bare | 4.000 (4.000 to 4.000) | 1 |  |  |
| fast | 2.000 (1.000 to 4.000) | 2.000 (1.000 to 4.000) | 0.123 | flex |
"""


def test_a_document_gets_the_newest_table_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = a_run(tmp_path, monkeypatch, date="2026-01-02", device="An H100")
    old["tables"][0]["rows"][0]["median"] = 9.0
    new = a_run(tmp_path, monkeypatch, date="2026-01-03", device="An H200", driver="580.1")
    (tmp_path / "both").mkdir()
    for run in (old, new):
        (tmp_path / "both" / f"{run['date']}.json").write_text(json.dumps(run))
    runs = tables.read_runs(tmp_path / "both")
    page = "before\n<!-- table: sta, canvas -->\nstale\n<!-- end of table -->\nbetween\n"
    page += (
        "<!-- table: sta, canvas, h100 -->\n<!-- end of table -->\n<!-- table: sta, other -->\n<!-- end of table -->\n"
    )
    made = tables.renewed(page, runs)
    assert TABLE in made
    assert "stale" not in made
    assert "| fast | 9.000 (" in made
    assert "A canvas, float32. An H200, driver 580.1, torch " in made
    assert "3 alternating rounds, 2026-01-03: `python benchmarks/sta.py --rounds 3`." in made
    assert "Not measured yet: `python benchmarks/sta.py`." in made
    assert made.startswith("before\n")
    assert "\nbetween\n" in made
    assert tables.renewed(made, runs) == made


def test_a_table_without_times_is_shown_as_it_is(tmp_path: Path) -> None:
    results = Results("models", "cpu")
    results.add(Listing("memory", "peaks", ["", "whole"], [["Wan", "22.5 GiB (24 GB)"]]))
    results.write(tmp_path)
    page = tables.renewed("<!-- table: models, memory -->\n<!-- end of table -->\n", tables.read_runs(tmp_path))
    assert "\n|  | whole |\n|---|---|\n| Wan | 22.5 GiB (24 GB) |\n\nPeaks. " in page
    assert "rounds" not in page


def test_less_than_a_second_is_told_in_milliseconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = a_run(tmp_path, monkeypatch)["tables"][0]
    own["rows"][0] |= {"median": 0.9994, "low": 0.5, "notes": {"density": 1234.5, "kernel": "flex"}}
    assert "|  | ms, median (range) |" in (made := tables.as_markdown(own))
    assert "| fast | 999.40 (500.00 to 4000.00) | 2.000 (1.000 to 4.000) | 1234 | flex |" in made


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("<!-- table: sta -->\n<!-- end of table -->", "must say a script, a table"),
        ("<!-- table: sat, wan -->\n<!-- end of table -->", "there is no benchmarks/sat.py"),
        ("<!-- table: sta, wan -->\ntext\n", "<!-- table: sta, wan --> has no end"),
        ("<!-- table: sta, wan -->\na\n<!-- table: sta, b -->\n<!-- end of table -->", "sta, wan --> has no end"),
        ("a\n<!-- end of table -->\n", "has no beginning"),
        ("<!-- table: sta, wan --> | 1 |\n<!-- end of table -->", "is neither <!-- table: SCRIPT, TABLE -->"),
        ("<!--table: sta, wan-->\n| 1 |\n<!-- end of table -->", "is neither <!-- table: SCRIPT, TABLE -->"),
    ],
)
def test_a_comment_that_is_wrong_is_an_error(page: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        tables.renewed(page, [])


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "[]",
        "{",
        '{"schema": "fv-results/2"}',
        '{"schema": "fv-results/1"}',
        '{"schema": "fv-results/1", "tables": [{}]}',
        '{"schema": "fv-results/1", "tables": [{"title": "t", "columns": ["a", "b"], "rows": [["one"]]}]}',
    ],
)
def test_a_file_of_results_that_is_damaged_is_named(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "broken.json").write_text(damaged)
    with pytest.raises(ValueError, match=r"^broken\.json is not of the schema fv-results/1: "):
        tables.read_runs(tmp_path)


def test_a_date_that_is_none_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.json").write_text(json.dumps(a_run(tmp_path, monkeypatch, date="soon")))
    with pytest.raises(ValueError, match="Invalid isoformat string: 'soon'"):
        tables.read_runs(tmp_path)


def test_the_last_run_of_a_day_is_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(11):
        a_run(tmp_path, monkeypatch)
    written = sorted((tmp_path / "results").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for number, path in enumerate(written):
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "command": str(number)}))
    assert [run["command"] for run in tables.read_runs(tmp_path / "results")] == [*map(str, range(10, -1, -1))]


@pytest.mark.parametrize(
    ("script", "given", "message"),
    [
        ("sta", ["--parts", ""], "--parts is empty; there are canvases"),
        ("sta", ["--rounds", "0"], "0 is not in the range x>=1"),
        ("hunyuan15", ["--modes", "compiled eagre"], "--modes is 'compiled eagre'; there are eager and compiled"),
        ("attention", ["--rounds", "0"], "0 is not in the range x>=1"),
        ("models", ["--tiny", "--output", "nowhere/models.json"], "there is no folder 'nowhere'"),
        ("models", ["--tiny", "--output", "broken.json"], "'broken.json' cannot be added to: Expecting"),
        ("models", ["--tiny", "--output", "list.json"], "'list.json' cannot be added to: it is no object"),
    ],
)
def test_a_script_refuses_what_it_could_not_write_before_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, given: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{broken")
    Path("list.json").write_text("[]")
    done = CliRunner().invoke(import_module(script).main, given)
    assert (done.exit_code, Path("broken.json").read_text()) == (2, "{broken")
    assert message in done.output


def test_the_documents_are_up_to_date() -> None:
    """Write them anew: make tables."""
    assert tables.main(["--check"]) == 0


def test_rounds_alternate_and_the_base_is_neither_first_nor_last() -> None:
    said: list[str] = []
    calls = {name: (lambda name=name: said.append(name)) for name in ("bare", "a", "b", "c")}
    seconds = alternate(in_the_middle(calls, "bare"), "cpu", rounds=2, warm_up=1)
    rounds = [said[start : start + 4] for start in (0, 4, 8)]
    assert rounds == [["c", "bare", "b", "a"], ["a", "b", "bare", "c"], ["c", "bare", "b", "a"]]
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 2, "b": 2, "bare": 2, "c": 2}
    assert list(in_the_middle({"bare": 0, "a": 0}, "bare")) == ["a", "bare"]


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1_cga1x1x1_kernel0", 0),
        ("kernel_cutlass_kernel_flash_attncuteflash_fwd_sm90FlashAttentionForwardSm90_object_at__tensor0000o11", 0),
        ("triton_tem_fused_flex_attention_0", 0),
        ("nvjet_sm90_tst_256x152_64x4_1x2_h_bz_coopA_bias_TNT", 1),
        ("triton_red_fused__fused_rms_norm__scaled_dot_product_cudnn_attention_permute_view_3", 2),
        ("triton_poi_fused_gelu_view_6", 2),
        ("triton_red_fused__scaled_mm__to_copy_abs_amax_clamp_div_gelu_t_unsqueeze_view_10", 2),
    ],
)
def test_a_kernel_is_told_by_its_name(kernel: str, kind: int) -> None:
    """Names as an H200 had them."""
    assert kind_of(kernel) == ("attention", "matrix products", "rest")[kind]


def test_peaks_of_models_say_which_gpu_holds_them() -> None:
    """A GPU counts with 5 % left: 22.8 GiB of 24, 76 of 80."""
    gib = 2**30
    alone = {"text": 4 * gib, "denoise": 31 * gib, "decode": -1, "decode in tiles": 9 * gib + gib // 2}
    steps = {"bare": 3.0, "attached": 2.0, "backends": {"SELF": "FLASH_ATTN", "CROSS": "FLASH_ATTN"}}
    measured = {
        "machine": {"memory": 140 * gib},
        "M": {
            "whole": {"alone": alone, "out of memory": True},
            "vae tiling": {"peak": int(22.7 * gib)},
            "nf4": {"peak": int(23.5 * gib)},
            "fp8": {"peak": 77 * gib, "step": steps},
        },
    }
    memory, parts, speed = listings(measured, {"M": (9, 64, 96)})
    (row,) = memory.rows
    cells = dict(zip(memory.columns, row, strict=True))
    assert cells.pop("") == "M, 9x64x96"
    assert {title: cell for title, cell in cells.items() if cell != "not measured"} == {
        "all on the GPU": "more than 140 GiB",
        "tiles": "22.7 GiB (24 GB)",
        "tiles, `bnb-nf4`": "23.5 GiB (40 GB)",
        "tiles, `fp8-layerwise`": "77.0 GiB",
    }
    assert parts.columns == ["", "text encoder", "a step of the transformer", "decode", "decode in tiles"]
    assert parts.rows == [["M", "4.0 GiB", "31.0 GiB", "more than 140 GiB", "9.5 GiB"]]
    assert speed.rows == [["M, 9x64x96", "tiles, `fp8-layerwise`", "3.000 s", "2.000 s", "1.50", "FLASH_ATTN"]]
