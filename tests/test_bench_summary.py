"""The figures of a bench, from measurements that are written down here, and what is measured of what was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core import VideoGenerator
from fastvideo_core.app.bench import measure, page, report
from fastvideo_core.app.bench.setup import Combination, Loaded, Setup, prepare, split_list
from fastvideo_core.app.bench.store import Measurement, Profile, Store
from fastvideo_core.app.bench.summary import Spread, summarise
from fastvideo_core.errors import InputError

GIB = 2**30
SIZE = {"height": 32, "width": 48, "num_frames": 9, "num_inference_steps": 4}


def prepared(model: Path, prompts: list[str], seeds: Any, **asked: Any) -> Setup:
    asked = {"attention": "TORCH_SDPA", "cache": "TAYLORSEER@2", "loading": {"device": "cpu"}, **asked}
    return prepare(str(model), prompts, seeds, asked["attention"], asked["cache"], SIZE, asked["loading"], {})


@pytest.fixture
def setup(wan_folder: Path) -> Setup:
    return prepared(wan_folder, ["cat", "dog"], range(3, 5))


PLAIN = [10.0, 20.0, 8.0, 12.0]
CACHED: list[tuple[float, float | None, float, int | None, dict[str, bool] | None]] = [
    (5.0, None, 1.0, 5 * GIB, {"shape": True, "colour": False}),
    (5.0, 30.0, 0.9, None, {"shape": True, "colour": True}),
    (8.0, 40.0, 0.95, 7 * GIB, None),
    (3.0, 20.0, 0.8, 6 * GIB, {"shape": True, "colour": True}),
]
"""Seconds, PSNR, SSIM, bytes, and what the video shows."""


@pytest.fixture
def store(setup: Setup, tmp_path: Path) -> Store:
    store = Store(tmp_path / "bench", setup)
    plain, cached = setup.combinations
    for sample, seconds, other in zip(setup.samples, PLAIN, CACHED, strict=True):
        bare = Measurement(
            attention=plain.attention,
            cache=plain.cache,
            number=sample.number,
            prompt=sample.prompt,
            seed=sample.seed,
            seconds=seconds,
            steps_computed=8,
            steps_skipped=0,
            peak_memory_bytes=None,
            psnr=None,
            ssim=None,
            right=None,
            video="plain.mp4",
            schedule=None,
        )
        took, psnr, ssim, peak, right = other
        unscored = None if right else "ValueError: no idea"
        made = replace(bare, cache=cached.cache, seconds=took, psnr=psnr, ssim=ssim, peak_memory_bytes=peak)
        store.add(bare)
        store.add(replace(made, right=right, unscored=unscored, steps_computed=6, steps_skipped=2))
    store.add_profile(plain.loaded, Profile(0.25))
    return store


def test_a_row_is_what_its_measurements_come_to(setup: Setup, store: Store) -> None:
    plain, cached = summarise(setup, store)
    assert (plain.title, plain.videos, plain.equal, plain.psnr, plain.ssim, plain.accuracy) == (
        *("TORCH_SDPA", 4, 0, None, None, None),
    )
    assert (plain.speed_up, plain.skipped, plain.peak_memory_bytes) == (Spread(1, 1, 1), 0, None)
    assert cached.seconds == Spread(5, 3, 8)
    assert cached.speed_up == Spread(3, 1, 4)
    assert (cached.skipped, cached.attention_share, cached.peak_memory_bytes) == (0.25, 0.25, 7 * GIB)
    assert (cached.psnr, cached.equal, cached.ssim) == (Spread(30, 20, 40), 1, Spread(0.925, 0.8, 1))
    assert (cached.accuracy, cached.unscored) == (2 / 3, 1)
    assert report.cells_of(cached) == (
        *("TORCH_SDPA + TAYLORSEER@2", "5.00 (3.00-8.00)", "3.00 (1.00-4.00)", "25%", "25%", "7.0 GiB"),
        *("30.0 (20.0-40.0), 1 equal", "0.925 (0.800-1.000)", "67%, 1 unscored"),
    )


def test_the_page_tells_the_figures_of_each_video(setup: Setup, store: Store, tmp_path: Path) -> None:
    for name in ("plain.mp4", "plot.png"):
        (store.videos / name).write_bytes(b"")
    page.write_page(setup, store, summarise(setup, store), store.videos / "plot.png", tmp_path / "page.html", 2)
    shown = (tmp_path / "page.html").read_text("utf-8")
    assert shown.count("<figure>") == 4
    assert "5.00 s, 2 of 8 steps skipped, equal to plain, wrong: colour" in shown
    assert "5.00 s, 2 of 8 steps skipped, PSNR 30.0 dB, SSIM 0.900, all right" in shown


@pytest.mark.parametrize("several", [False, True])
def test_a_line_of_the_plot_is_a_policy_of_a_backend(
    setup: Setup, store: Store, several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **options: figures.append(self))
    plain, cached = summarise(setup, store)
    other = [replace(plain, attention="OTHER", psnr=Spread(50, 50, 50))] if several else []
    report.draw([plain, cached, *other], tmp_path / "plot.png")
    (axes,) = figures[0].axes
    lines: Any = {str(line.get_label()): line for line in axes.lines}
    assert set(lines) == ({"TORCH_SDPA + TAYLORSEER", "OTHER + no caching"} if several else {"TAYLORSEER"})
    line = lines["TORCH_SDPA + TAYLORSEER" if several else "TAYLORSEER"]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([3], [30])


def test_every_prompt_has_seeds_of_its_own(setup: Setup) -> None:
    assert [(one.number, one.prompt, one.seed) for one in setup.samples] == [
        *((0, "cat", 3), (0, "cat", 4)),
        *((1, "dog", 4), (1, "dog", 5)),
    ]


def test_the_plain_combination_comes_first(wan_folder: Path) -> None:
    setup = prepared(wan_folder, ["cat"], [1], cache="TAYLORSEER@2,NONE,TAYLORSEER@3")
    assert [one.cache for one in setup.combinations] == ["none", "TAYLORSEER@2", "TAYLORSEER@3"]


def test_the_greatest_seed_that_is_used_is_checked(wan_folder: Path) -> None:
    greatest = 2**63 - 1
    assert prepared(wan_folder, ["cat"], [greatest]).samples[-1].seed == greatest
    assert prepared(wan_folder, ["cat", "dog"], range(greatest - 2, greatest)).samples[-1].seed == greatest
    with pytest.raises(InputError, match=rf"seed is {greatest + 1}, it must be 0 to {greatest}"):
        prepared(wan_folder, ["cat", "dog"], [greatest])


def test_a_bench_may_grow_and_keeps_what_it_was_made_with(wan_folder: Path, tmp_path: Path) -> None:
    first, second = (prepared(wan_folder, ["cat"], [1], cache=f"TAYLORSEER@{number}") for number in (2, 3))
    Store(tmp_path / "bench", first)
    Store(tmp_path / "bench", second)
    changed = replace(first, details={**first.details, "TAYLORSEER@2": {"settings": {"order": 9}}})
    with pytest.raises(InputError, match=r"TAYLORSEER@2 was .*, now .*\"order\": 9"):
        Store(tmp_path / "bench", changed)


@pytest.mark.slow
def test_what_is_generated_is_what_was_asked_for(
    wan_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTVIDEO_CACHE_POLICY", "TAYLORSEER@1")
    asked: list[str] = []
    told: list[tuple[int, int]] = []
    generate = VideoGenerator.generate_video

    def noted(self: Any, prompt: str, **options: Any) -> Any:
        asked.append(options["cache"])
        return generate(self, prompt, **options)

    def measured(cache: str) -> Store:
        given = {"TAYLORSEER": {"interval": 2, "warm_up": 1}}
        setup = prepare(str(wan_folder), ["cat"], [1], "TORCH_SDPA", cache, SIZE, {"device": "cpu"}, given)
        store = Store(tmp_path / "bench", setup)
        measure.run(setup, store, lambda number, total, combination, sample: told.append((number, total)))
        return store

    monkeypatch.setattr(VideoGenerator, "generate_video", noted)
    found = measured("TAYLORSEER").known[Combination("TORCH_SDPA", "TAYLORSEER"), "cat", 1]
    assert asked == ["none", "none", "TAYLORSEER", "none"], "to warm up, for the share of attention, and two videos"
    assert found.schedule == {"cond": "CFCC", "uncond": "CFCC"}
    assert (found.steps_computed, found.steps_skipped) == (6, 2)
    measured("TAYLORSEER,TAYLORSEER@order=0")
    assert told == [(1, 2), (2, 2), (3, 3)]
    (tmp_path / "bench" / "attention_share.json").unlink()
    profile = measured("TAYLORSEER").profile(Loaded("TORCH_SDPA", 1))
    assert profile is not None
    assert 0 < profile.attention_share < 1
    assert len(told) == 3


def test_compiling_is_checked_before_anything_is_loaded(wan_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    monkeypatch.setattr(
        "fastvideo_core.app.bench.setup.check_compile", lambda info, device, **offload: checked.append(device)
    )
    prepared(wan_folder, ["cat"], [1])
    assert not checked
    prepared(wan_folder, ["cat"], [1], loading={"device": "cpu", "compile": True})
    assert checked == ["cpu"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("A@1,2,3:tile=4,4,4,B", ["A@1,2,3:tile=4,4,4", "B"]),
        ("A@.5,.25, -1,+2,B", ["A@.5,.25, -1,+2", "B"]),
        ("A@coefficients=[1, 2],B , C", ["A@coefficients=[1, 2]", "B", "C"]),
    ],
)
def test_commas_within_a_value_separate_nothing(text: str, parts: list[str]) -> None:
    assert split_list(text, "--cache") == parts
