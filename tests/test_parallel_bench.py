"""`fv bench` by several numbers of processes: a row for each, what it gains, and what that sends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fastvideo_core.app.bench import report
from fastvideo_core.app.bench.setup import Setup, prepare
from fastvideo_core.app.bench.store import Measurement, Profile, Store
from fastvideo_core.app.bench.summary import Spread, summarise
from fastvideo_core.cli import fv
from tests.support import models_more

SIZE = {"height": 32, "width": 48, "num_frames": 9, "num_inference_steps": 2}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("cat\n")
    return file


def bench(model: Path | str, prompts: Path, *options: str) -> Result:
    size = ("--height", "32", "--width", "48", "--frames", "9", "--steps", "2")
    command = ["bench", "--model", str(model), "--prompts", str(prompts), "--output", "out", "--device", "cpu"]
    return CliRunner().invoke(fv, [*command, *size, *options])


def prepared(model: Path, counts: list[int], cache: str = "none") -> Setup:
    loading = {"device": "cpu"}
    return prepare(str(model), ["cat", "dog"], [3], "TORCH_SDPA", cache, SIZE, loading, {}, num_processes=counts)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_start")
def test_one_and_two_processes_are_measured(wan_folder: Path, prompts: Path) -> None:
    done = bench(wan_folder, prompts, "--num-processes", "2,1")
    assert done.exit_code == 0, done.output
    results = json.loads(Path("out/results.json").read_text())
    one, two = results["rows"]
    assert [one["title"], two["title"]] == ["TORCH_SDPA", "TORCH_SDPA, 2 processes"]
    assert (one["to_one_process"]["median"], one["communication_seconds"], one["bytes_sent"]) == (1, None, None)
    ratio = results["videos"][0]["seconds"] / results["videos"][1]["seconds"]
    assert two["to_one_process"] == two["speed_up"] == {"median": ratio, "least": ratio, "greatest": ratio}
    assert 0 < two["communication_seconds"] < 60
    # Guidance is shared: both send the latents' result of a branch in each step after the first, once, and the first
    # process the latents before each of the two calls of each step: (1, 16, 3, 4, 6) in float32.
    latents = 16 * 3 * 4 * 6 * 4
    assert two["bytes_sent"] == latents + 4 * latents
    header, first, second = done.stdout.splitlines()[:3]
    assert header.split()[-6:] == ["right", "to", "one", "process", "communication", "sent"]
    assert first.split()[-2:] == ["-", "-"]
    assert second.split()[-5:] == ["s", "a", "step", f"{two['bytes_sent'] / 2**20:.1f}", "MiB"]
    assert "<th>to one process</th>" in Path("out/page.html").read_text()
    assert len({video["video"] for video in results["videos"]}) == 2
    assert bench(wan_folder, prompts, "--num-processes", "1,2").stderr == "", "there is nothing left to do"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-processes", "1,two"), "--num-processes '1,two': 'two' is no whole number from 1 on; write such as"),
        (("--num-processes", "0,2"), "--num-processes '0,2': '0' is no whole number from 1 on"),
        (("--num-gpus", "1,,2"), "--num-gpus '1,,2': '' is no whole number from 1 on"),
        (("--num-gpus", "1,2"), "num_gpus is 2, and torch sees"),
        (
            ("--num-gpus", "1,2", "--num-processes", "2"),
            "--num-gpus is 1,2 and --num-processes 2: there is a process for each GPU",
        ),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_loading(
    wan_folder: Path, prompts: Path, options: tuple[str, ...], message: str
) -> None:
    done = bench(wan_folder, prompts, *options)
    assert done.exit_code == 1
    assert message in done.output
    assert not Path("out").exists()


SECONDS = {(1, "none"): (8.0, 6.0), (2, "none"): (5.0, 3.0), (1, "TAYLORSEER@2"): (4.0, 4.0)}
"""Of both prompts; two processes with the policy have made the first prompt alone, in 2 seconds."""


@pytest.fixture
def store(wan_folder: Path, tmp_path: Path) -> tuple[Setup, Store]:
    setup = prepared(wan_folder, [1, 2], "TAYLORSEER@2")
    store = Store(tmp_path / "bench", setup)
    empty: dict[str, Any] = {"peak_memory_bytes": None, "psnr": None, "ssim": None, "right": None, "schedule": None}
    for combination in setup.combinations:
        took = SECONDS.get((combination.processes, combination.cache), (2.0,))
        for sample, seconds in zip(setup.samples, took, strict=False):
            measured = Measurement(
                attention=combination.attention,
                cache=combination.cache,
                number=sample.number,
                prompt=sample.prompt,
                seed=sample.seed,
                seconds=seconds,
                steps_computed=2,
                steps_skipped=0,
                video="one.mp4",
                processes=combination.processes,
                bytes_sent=None if combination.processes == 1 else (sample.number + 1) * 3 * 2**20,
                **empty,
            )
            store.add(measured)
        several = combination.processes > 1
        store.add_profile(combination.loaded, Profile(0.5 / combination.processes, 0.25 if several else None))
    (store.videos / "one.mp4").write_bytes(b"video")
    return setup, store


def test_each_number_is_held_against_one_process(store: tuple[Setup, Store]) -> None:
    rows = {(row.processes, row.cache): row for row in summarise(*store)}
    assert list(rows) == [(1, "none"), (1, "TAYLORSEER@2"), (2, "none"), (2, "TAYLORSEER@2")]
    assert rows[2, "none"].to_one_process == Spread(1.8, 1.6, 2.0) == rows[2, "none"].speed_up
    cached = rows[2, "TAYLORSEER@2"]
    assert (cached.to_one_process, cached.speed_up) == (Spread(2, 2, 2), Spread(4, 4, 4))
    assert (cached.bytes_sent, rows[2, "none"].bytes_sent) == (3 * 2**20, 6 * 2**20)
    assert (cached.communication_seconds, cached.attention_share) == (0.25, 0.25)
    assert report.columns_and_cells([cached])[1][-3:] == ("2.00 (2.00-2.00)", "0.250 s a step", "3.0 MiB")
    assert report.columns_and_cells([rows[1, "none"]])[0] == report.COLUMNS


def test_what_was_measured_is_found_again(store: tuple[Setup, Store], wan_folder: Path) -> None:
    setup, first = store
    again = Store(first.folder, prepared(wan_folder, [1, 2], "TAYLORSEER@2"))
    assert again.known == first.known
    assert [again.profile(one.loaded) for one in setup.combinations] == [
        *(Profile(0.5), Profile(0.5), Profile(0.25, 0.25), Profile(0.25, 0.25)),
    ]
    (first.folder / "communication.json").unlink()
    without = Store(first.folder, setup)
    assert without.profile(setup.combinations[0].loaded) == Profile(0.5)
    assert without.profile(setup.combinations[2].loaded) is None
    assert without.find(replace(setup.plain, processes=3), setup.samples[0]) is None


def test_without_one_process_there_is_nothing_to_hold_against(wan_folder: Path, store: tuple[Setup, Store]) -> None:
    setup = prepared(wan_folder, [2])
    assert setup.plain.title == "TORCH_SDPA, 2 processes"
    measured = replace(next(iter(store[1].known.values())), processes=2)
    other = Store(store[1].folder.parent / "other", setup)
    other.add(measured)
    (row,) = summarise(setup, other)
    assert row.to_one_process is None
    assert report.columns_and_cells([row])[1][-3:] == ("-", "-", "-")


def test_a_model_that_cannot_be_shared_is_refused_before_one_process_is_measured(tmp_path: Path, prompts: Path) -> None:
    models_more.build_helios_pipeline().save_pretrained(tmp_path / "helios")
    done = bench(tmp_path / "helios", prompts, "--frames", "33", "--num-processes", "1,2")
    assert done.exit_code == 1
    assert "Helios cannot be shared by several processes by sequence yet: its blocks count" in done.output
    assert not Path("out").exists()
