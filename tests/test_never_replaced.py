"""Files that are there already stay: of every command that writes one, and for whatever lies in its place."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastvideo_core import VideoGenerator, written_whole
from fastvideo_core.app import output
from fastvideo_core.cli import fv
from fastvideo_core.errors import InputError, OutputError

PUBLISHED = '{"0_0_0": [1, 1, 1], "0_0_1": [1, 1, 2]}'


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    path = tmp_path / "windows.json"
    path.write_text(PUBLISHED)
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a red circle moving left on a white background\n")
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(fv, list(map(str, arguments)))


def test_a_name_that_is_taken_is_refused_before_the_work_and_after_it(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"notes.txt' is there already; .* --overwrite"), written_whole(path):
        pytest.fail("the work was begun")
    late = tmp_path / "late.txt"
    writing = written_whole(late)
    writing.__enter__().write_text("ours")
    late.write_text("theirs")
    with pytest.raises(OutputError, match="is there already"):
        writing.__exit__(None, None, None)
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"notes.txt": "mine", "late.txt": "theirs"}


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    victim, link, whole = tmp_path / "victim", tmp_path / "link", tmp_path / "whole"
    victim.write_text("precious")
    link.symlink_to(victim)
    with written_whole(whole) as file:
        file.write_text("before")
    with written_whole(whole, overwrite=True) as file:
        file.write_text("after")
    assert whole.read_text() == "after"
    for path in (link, tmp_path, Path(os.devnull)):
        writing = written_whole(path, overwrite=True)
        with pytest.raises(OutputError, match="is there already and no regular file, so it stays"):
            writing.__enter__()
    assert (victim.read_text(), link.is_symlink()) == ("precious", True)


@pytest.mark.parametrize("same", [True, False])
def test_convert(windows: Path, tmp_path: Path, same: bool) -> None:
    target = windows if same else tmp_path / "mine.json"
    target.write_text(PUBLISHED)
    done = invoke("sta", "convert", windows, target, "--grid", "2x2x2", "--tile", "1x1x1", "--family", "Wan")
    assert done.exit_code == 1
    assert ("SOURCE and TARGET are both" if same else "is there already") in done.output
    assert target.read_text() == PUBLISHED


def test_inspect_png(windows: Path, tmp_path: Path) -> None:
    picture = tmp_path / "mine.png"
    picture.write_text("mine")
    for png, problem in ((windows, "the file of windows itself"), (picture, "is there already")):
        done = invoke("sta", "inspect", windows, "--grid", "2x2x2", "--tile", "1x1x1", "--png", png)
        assert (done.exit_code, problem in done.output) == (1, True), done.output
    assert (windows.read_text(), picture.read_text()) == (PUBLISHED, "mine")
    done = invoke("sta", "inspect", windows, "--grid", "2x2x2", "--tile", "1x1x1", "--png", picture, "--overwrite")
    assert done.exit_code == 0, done.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_search(windows: Path, prompts: Path) -> None:
    done = invoke("sta", "search", "--model", "shapes", "--prompts", prompts, "--output", windows, "--density", 0.5)
    assert (done.exit_code, windows.read_text()) == (1, PUBLISHED)
    assert "is there already" in done.output


@pytest.mark.parametrize("taken", ["k.json", "k.png"])
def test_calibrate_and_its_plot(tmp_path: Path, prompts: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    done = invoke("teacache", "calibrate", "--model", "shapes", "--prompts", prompts, "--output", tmp_path / "k.json")
    assert (done.exit_code, (tmp_path / taken).read_text()) == (1, "mine")
    assert f"{taken}' is there already" in done.output


@pytest.mark.skipif(sys.platform == "win32", reason="its names end elsewhere")
@pytest.mark.parametrize("length", [251, 244])
def test_a_name_that_is_too_long_is_refused_before_the_run(tmp_path: Path, length: int) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        output.prepare_folder(tmp_path / f"{'x' * length}.mp4")
    assert output.prepare_folder(tmp_path / f"{'x' * 243}.mp4")[1] == "x" * 243


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--threshold", "nan"), "--threshold is nan, it must be 0 to 100"),
        (("--threshold", "-5"), "--threshold is -5.0"),
        (("--steps", "3"), "1 prompts of 3 steps give at most 4 pairs, a fit needs 100"),
        (("--steps", "60", "--height", "63"), "height 63 is not a multiple of"),
        (("--output", "c.png"), "which is the plot's name"),
        (("--output", "nowhere/k.json"), "there is no folder 'nowhere' to write k.json into"),
    ],
)
def test_a_calibration_is_refused_before_a_model_is_loaded(
    prompts: Path, arguments: tuple[str, ...], problem: str
) -> None:
    done = invoke("teacache", "calibrate", "--model", "shapes", "--prompts", prompts, "--output", "k.json", *arguments)
    assert done.exit_code == 1
    assert problem in done.output
    assert "Loading" not in done.output
    assert not list(Path.cwd().glob("k.*"))


STA = "SLIDING_TILE_ATTN"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"tile": "12,8,8"}, "the canvas of 9x8x8 tokens is not larger than one tile of 12x8x8"),
        ({"tile": "4,4,8", "window": "99,1,1"}, "the window 99x1x1 is larger than the canvas of 3x2x1 tiles"),
        ({}, "which the default window of 3x3x3 covers: that would be full attention"),
        ({"tile": "4,4,8", "file": "w.json"}, "the file of windows 'w.json': the window 1x3x1 is larger than the canv"),
        ({"file": "g.json"}, "does not fit: its grid of tokens is 9x8x9, this run's is 9x8x8"),
    ],
)
def test_windows_are_held_against_the_canvas_before_a_model_is_loaded(
    prompts: Path, given: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("w.json").write_text('{"0_0_0": [1, 3, 1]}')
    own = {"schema": "fv-sta/1", "model": {"family": "Wan", "layers": 5, "heads": 4}, "steps": 2, "dense_steps": 0}
    own |= {"grid": [9, 8, 9], "tile": [4, 4, 8], "windows": [{"window": [1, 1, 1]}]}
    Path("g.json").write_text(json.dumps(own))
    for module in ("app.opening", "app.bench.measure"):
        monkeypatch.setattr(f"fastvideo_core.{module}.load_pipeline", pytest.fail, raising=False)
    sets = [word for name, value in given.items() for word in ("--set", f"{STA}.{name}={value}")]
    size = ("--model", "shapes", "--steps", "2")
    for command in (
        ("generate", "a red circle", "--attention-backend", STA),
        ("bench", "--prompts", str(prompts), "--attention", f"TORCH_SDPA,{STA}", "--output", "b"),
    ):
        done = invoke(*command, *size, *sets)
        assert done.exit_code == 1, done.output
        assert problem in done.output
    assert not Path("b").exists()


def test_in_python_windows_are_held_against_the_canvas_before_the_text_is_encoded(
    wan_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VideoGenerator.from_pretrained(wan_folder, attention_backend=STA) as generator:
        monkeypatch.setattr(type(generator._pipe), "encode_prompt", pytest.fail)
        with pytest.raises(InputError, match="is not larger than one tile of 6x8x8"):
            generator.generate_video("cat", height=32, width=48, num_frames=5, num_inference_steps=1)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--height", "63"), "height 63 is not a multiple of"),
        (("--windows", "99,1,1"), "--windows: the window 99x1x1 is larger than the canvas"),
        (("--windows", " "), "--windows is ' '; give windows such as"),
        (("--ranges", "1000000000"), "--ranges is 1000000000, it must be 1 to 1000"),
        (("--output", "nowhere/k.json"), "there is no folder 'nowhere' to write k.json into"),
    ],
)
def test_a_search_is_refused_before_a_model_is_loaded(prompts: Path, arguments: tuple[str, ...], problem: str) -> None:
    common = ("--model", "shapes", "--prompts", prompts, "--output", "w.json", "--density", 0.5, "--tile", "2,8,8")
    done = invoke("sta", "search", *common, *arguments)
    assert done.exit_code == 1
    assert problem in done.output
    assert "Loading" not in done.output
