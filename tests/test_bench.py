"""`fv bench`: paired figures, files that stand alone, and a run that goes on where it was interrupted."""

from __future__ import annotations

import gc
import json
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from fastvideo_core import ModelPreset
from fastvideo_core.app.bench import measure
from fastvideo_core.app.bench.measure import similarity
from fastvideo_core.app.loading import load_pipeline
from fastvideo_core.cli import fv
from fastvideo_core.discovery.plugins import Plugin, Plugins, load_plugins
from tests.support.backends import Recorder, plugins_with

SMALL = ("--height", "32", "--width", "48", "--frames", "9", "--steps", "4")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("cat\n\ndog cat\ncat\n")
    return file


def bench(model: Path | str, prompts: Path, *options: str, size: tuple[str, ...] = SMALL) -> Result:
    command = ["bench", "--model", str(model), "--prompts", str(prompts), "--output", "out", *size, *options]
    return CliRunner().invoke(fv, command)


def results() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("out/results.json").read_text())
    return content


@pytest.mark.slow
def test_every_combination_is_paired_with_the_plain_one(wan_folder: Path, prompts: Path) -> None:
    done = bench(wan_folder, prompts, "--cache", "TAYLORSEER@1,TAYLORSEER@2:warm_up=1", "--seeds", "2")
    assert done.exit_code == 0, done.output
    plain, same, fewer = results()["rows"]
    assert [row["title"] for row in (plain, same, fewer)] == [
        "TORCH_SDPA",
        "TORCH_SDPA + TAYLORSEER@1",
        "TORCH_SDPA + TAYLORSEER@2:warm_up=1",
    ]
    assert (plain["videos"], plain["speed_up"], plain["skipped"]) == (4, {"median": 1, "least": 1, "greatest": 1}, 0)
    assert (plain["psnr"], plain["ssim"], plain["accuracy"]) == (None, None, None)
    assert (same["psnr"], same["equal"], same["ssim"]["median"], same["skipped"]) == (None, 4, 1.0, 0)
    assert (fewer["equal"], fewer["skipped"]) == (0, 0.25)
    assert 5 < fewer["psnr"]["least"] < 100
    assert 0 < plain["attention_share"] < 1
    assert results()["prompts"] == ["cat", "dog cat"]
    by_key = {(v["prompt"], v["seed"], v["cache"]): v for v in results()["videos"]}
    assert len(by_key) == 12
    for (prompt, seed, cache), video in by_key.items():
        if cache.startswith("TAYLORSEER@2"):
            assert video["schedule"] == {"cond": "CFCC", "uncond": "CFCC"} or video["steps_skipped"] == 2
            ratio = by_key[prompt, seed, "none"]["seconds"] / video["seconds"]
            assert fewer["speed_up"]["least"] <= ratio <= fewer["speed_up"]["greatest"]
    assert "TORCH_SDPA + TAYLORSEER@2:warm_up=1" in done.stdout
    assert Path("out/plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_needs_nothing_else(wan_folder: Path, prompts: Path) -> None:
    assert bench(wan_folder, prompts, "--cache", "TAYLORSEER@2", "--page-videos", "1").exit_code == 0
    page = Path("out/page.html").read_text()
    assert page.count('<video src="data:video/mp4;base64,') == 2
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "<!--" not in page


def test_backends_take_turns_and_the_plain_one_is_in_the_middle(wan_folder: Path, prompts: Path) -> None:
    done = bench(wan_folder, prompts, "--attention", "TORCH_SDPA,NEIGHBORHOOD", "--cache", "TAYLORSEER@1")
    assert done.exit_code == 0, done.output
    turns = [line.partition("] ")[2].rpartition(": ") for line in done.stderr.splitlines() if "] " in line]
    first = ["TORCH_SDPA + TAYLORSEER@1", "NEIGHBORHOOD", "TORCH_SDPA", "NEIGHBORHOOD + TAYLORSEER@1"]
    assert [turn[0] for turn in turns] == [*first, *reversed(first)]
    assert [turn[2] for turn in turns] == ["cat"] * 4 + ["dog cat"] * 4
    rows = {row["title"]: row for row in results()["rows"]}
    assert rows["TORCH_SDPA + TAYLORSEER@1"]["equal"] == 2, "compared to the plain video of their own prompt"
    assert rows["NEIGHBORHOOD"]["equal"] == rows["NEIGHBORHOOD + TAYLORSEER@1"]["equal"] == 0
    assert {row["attention_share"] is not None for row in rows.values()} == {True}


def test_an_interrupted_bench_goes_on(wan_folder: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    original = measure._measure

    def stop_at_the_third(*args: Any) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(args[3:])
        return original(*args)

    monkeypatch.setattr(measure, "_measure", stop_at_the_third)
    assert bench(wan_folder, prompts, "--cache", "TAYLORSEER@2").exit_code != 0
    assert not Path("out/results.json").exists()
    with Path("out/measurements.jsonl").open("a") as file:
        file.write('{"attention": "TORCH_SDPA", "cache": "TAYL')
    monkeypatch.setattr(measure, "_measure", lambda *args: made.append(args[3:]) or original(*args))  # type: ignore[func-returns-value]
    done = bench(wan_folder, prompts, "--cache", "TAYLORSEER@2")
    assert done.exit_code == 0, done.output
    assert len(made) == len(set(made)) == 4
    assert [row["videos"] for row in results()["rows"]] == [2, 2]
    assert bench(wan_folder, prompts, "--cache", "TAYLORSEER@2,TAYLORSEER@3").exit_code == 0
    assert len(made) == 6, "only what is new is generated"
    assert len(results()["rows"]) == 3


def test_a_video_that_is_lost_is_made_again(wan_folder: Path, prompts: Path) -> None:
    assert bench(wan_folder, prompts).exit_code == 0
    before = results()["videos"]
    lost, emptied = (Path("out/videos", one["video"]) for one in before)
    lost.unlink()
    emptied.write_bytes(b"")
    done = bench(wan_folder, prompts)
    assert done.exit_code == 0, done.output
    assert done.stderr.count("TORCH_SDPA: ") == 2, "both are measured again"
    now = [Path("out/videos", one["video"]) for one in results()["videos"]]
    assert all(video.stat().st_size > 0 for video in now)
    assert len(set(now)) == 2
    page = Path("out/page.html").read_text()
    assert page.count('<video src="data:video/mp4;base64,AAAA') == 2
    assert bench(wan_folder, prompts).stderr == "", "there is nothing left to do"


def test_other_settings_do_not_mix(wan_folder: Path, prompts: Path) -> None:
    assert bench(wan_folder, prompts).exit_code == 0
    done = bench(wan_folder, prompts, size=(*SMALL[:-1], "5"))
    assert done.exit_code == 1
    assert "'out' holds a bench with other settings" in done.output
    assert "choose another --output" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attention", "TORCH_SPDA"), "unknown attention backend 'TORCH_SPDA'"),
        (("--attention", "TORCH_SDPA,,"), "--attention 'TORCH_SDPA,,' has an empty entry"),
        (("--attention", "FLASH_ATTN"), "FLASH_ATTN (from attention_backend=, provided by fv-flash"),
        (("--cache", "none,TEACASH@0.1"), "did you mean TEACACHE?"),
        (
            ("--cache", "TAYLORSEER@0"),
            "cache='TAYLORSEER@0' is '0': input should be greater than or equal to 1; it sets interval:",
        ),
        (("--cache", "TEACACHE@0.1"), "TEACACHE has no coefficients for"),
        (("--seeds", "0"), "--seeds is 0"),
        (("--height", "40"), "height 40 is not a multiple of 16"),
        (("--dtype", "int8"), "dtype 'int8' is none of"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_loaded(
    wan_folder: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", lambda *args: pytest.fail("weights were loaded"))
    done = bench(wan_folder, prompts, *options)
    assert done.exit_code == 1
    assert message in done.output
    assert not Path("out").exists()


@pytest.mark.slow
def test_a_model_with_a_checker_has_an_accuracy(prompts: Path) -> None:
    prompts.write_text("a red square moving up on a white background\n")
    size = ("--steps", "4", "--frames", "9", "--height", "64", "--width", "64")
    done = bench("shapes", prompts, "--cache", "TEACACHE@0.5", size=size)
    assert done.exit_code == 0, done.output
    assert all(row["accuracy"] in (0.0, 1.0) for row in results()["rows"])
    video = results()["videos"][0]
    assert set(video["right"]) == {"shape", "colour", "direction", "background"}


def test_videos_that_a_checker_cannot_judge_are_not_counted(
    wan_folder: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, dict[str, bool] | str] = {
        "cow": {"cow": True, "sky": True},
        "hen": {"hen": False},
        "cat": "no cats are judged",
        "owl": {},
    }
    preset = ModelPreset("animals", str(wan_folder), score=lambda frames, prompt: said[prompt])
    plugins = Plugins([*load_plugins().all, Plugin("animals", "acme", "1.0", presets=[preset])])
    for module in ("engine.attachment", "app.generator", "app.bench.setup"):
        monkeypatch.setattr(f"fastvideo_core.{module}.load_plugins", lambda: plugins)
    prompts.write_text("cow\nhen\ncat\nowl\ndog\n")
    done = bench("animals", prompts)
    assert done.exit_code == 0, done.output
    reasons = ["no cats are judged", "the model's checker judged nothing", "KeyError: 'dog'"]
    lines = [line for line in done.stdout.splitlines() if line.startswith("unscored: ")]
    assert [line.partition("': ")[2] for line in lines] == reasons
    (row,) = results()["rows"]
    assert (row["videos"], row["accuracy"], row["unscored"]) == (5, 0.5, 3)
    assert "50%, 3 unscored" in done.stdout
    videos = results()["videos"]
    assert [video["right"] for video in videos] == [said["cow"], said["hen"], None, None, None]
    assert [video["unscored"] for video in videos] == [None, None, *reasons]
    assert "unscored: no cats are judged" in Path("out/page.html").read_text()


def test_one_model_serves_all_backends(wan_folder: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def load(*args: Any) -> Any:
        alive.append(sum(reference() is not None for reference in held))
        pipe = load_pipeline(*args)
        held.extend(map(weakref.ref, (pipe, pipe.transformer, pipe.vae)))
        return pipe

    for module in ("engine.attachment", "app.generator", "app.bench.setup"):
        monkeypatch.setattr(f"fastvideo_core.{module}.load_plugins", lambda: plugins_with(Recorder()))
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", load)
    gc.collect()
    gc.disable()
    try:
        done = bench(wan_folder, prompts, "--attention", "TORCH_SDPA,RECORDER")
    finally:
        gc.enable()
    assert done.exit_code == 0, done.output
    assert alive == [0]
    assert all(reference() is None for reference in held)


def test_what_is_missing_is_named(wan_folder: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvideo_core.cli.bench.find_spec", lambda name: None)
    done = bench(wan_folder, prompts)
    assert "fv bench needs matplotlib and torchmetrics: pip install 'fastvideo-core[bench]'" in done.output


def test_psnr_is_what_it_says() -> None:
    plain = np.full((2, 16, 16, 3), 100, np.uint8)
    other = plain.copy()
    other[1] += 10
    psnr, ssim = similarity(other, plain)
    assert psnr == pytest.approx(10 * np.log10(255**2 / (10**2 / 2)), abs=1e-3), "of the mean error of both frames"
    assert 0.9 < ssim < 1
    assert similarity(plain, plain) == (None, 1.0)


def test_ssim_is_that_of_the_whole_video_without_its_memory() -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    rng = np.random.default_rng(0)
    plain = rng.integers(0, 256, (12, 96, 160, 3), np.uint8)
    noise = rng.integers(0, 60, (12, 1, 1, 1)) * rng.standard_normal(plain.shape)
    other = np.clip(plain + noise, 0, 255).astype(np.uint8)
    made, right = (torch.from_numpy(video).permute(0, 3, 1, 2).float() / 255 for video in (other, plain))
    expected = float(torch.as_tensor(structural_similarity_index_measure(made, right, data_range=1.0)))
    assert similarity(other, plain)[1] == pytest.approx(expected, abs=1e-5)
    bound = 20 * plain[0].size * 4
    assert max(tensor_bytes(lambda: structural_similarity_index_measure(made, right, data_range=1.0))) > bound
    assert max(tensor_bytes(lambda: similarity(other, plain))) < bound, "a few times a frame, not the video"


def tensor_bytes(function: Callable[[], object]) -> list[int]:
    """The sizes of what is allocated meanwhile."""
    with torch.profiler.profile(profile_memory=True) as profile:
        function()
    return [event.self_cpu_memory_usage for event in profile.events() or []]


@pytest.mark.slow
def test_measurements_of_other_settings_are_not_mixed(
    wan_folder: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTVIDEO_NEIGHBORHOOD_FRAMES", "1")
    assert bench(wan_folder, prompts, "--attention", "TORCH_SDPA,NEIGHBORHOOD").exit_code == 0
    monkeypatch.setenv("FASTVIDEO_NEIGHBORHOOD_FRAMES", "3")
    other = bench(wan_folder, prompts, "--attention", "TORCH_SDPA,NEIGHBORHOOD")
    assert other.exit_code == 1
    assert re.search(r'with other settings: NEIGHBORHOOD was .*"frames": "1".*now .*"frames": "3"', other.output)
    assert bench(wan_folder, prompts, "--attention", "TORCH_SDPA").exit_code == 0, "which measures nothing of it"
    half = bench(wan_folder, prompts, "--attention", "TORCH_SDPA", "--dtype", "bfloat16")
    assert half.exit_code == 1
    assert '"dtype": "bfloat16"' in half.output
    for name in ("setup.json", "attention_share.json", "measurements.jsonl"):
        file = Path("out") / name
        before = file.read_bytes()
        for damage in (b"[]\n", b"{]\n", b"\xff\n"):
            file.write_bytes(damage)
            done = bench(wan_folder, prompts, "--attention", "TORCH_SDPA")
            assert (done.exit_code, type(done.exception)) == (1, SystemExit), (name, damage, done.exception)
            assert re.search(r"is damaged \(.*remove the folder", done.output), done.output
        file.write_bytes(before)
    for frames in Path("out/plain_frames").iterdir():
        frames.write_bytes(b"no frames")
    done = bench(wan_folder, prompts, "--cache", "TAYLORSEER@2")
    assert "holds a bench that is damaged" in done.output


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--seed", "-1"), "seed is -1, it must be 0 to"),
        (("--seed", str(2**63)), "it must be 0 to"),
        (("--seeds", "1000000000"), "--seeds is 1000000000, it must be 1 to 10000"),
        (("--page-videos", "-1"), "--page-videos is -1, it must be 0 or more"),
        (("--device", "meta"), "device 'meta' was asked for"),
    ],
)
def test_what_no_bench_can_do_is_refused_before_loading(
    wan_folder: Path, prompts: Path, options: tuple[str, ...], problem: str
) -> None:
    done = bench(wan_folder, prompts, *options)
    assert done.exit_code == 1
    assert problem in done.output
    assert not Path("out").exists()
