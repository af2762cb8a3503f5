"""A file of prompts: rows are checked with their lines, made once, found again, and fail alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result

from fastvideo_core import PromptRow, RowResult, RowStatus, SamplingParam, VideoGenerator, cli, read_rows
from fastvideo_core.app import output
from fastvideo_core.app.batch.on_disk import is_whole
from fastvideo_core.app.batch.reading import rows_from
from fastvideo_core.app.batch.shard import Shard
from fastvideo_core.app.batch.tally import Tally, duration
from fastvideo_core.cli import fv
from fastvideo_core.errors import AttachError, InputError, OutputError

PARAMS = SamplingParam(height=32, width=48, num_frames=5, num_inference_steps=2, seed=3)
SHORT = ("--height", "32", "--width", "48", "--frames", "5", "--steps", "2", "--seed", "3")


@pytest.fixture(scope="module")
def generator(wan_folder: Path) -> Iterator[VideoGenerator]:
    with VideoGenerator.from_pretrained(wan_folder, device="cpu") as shared:
        yield shared


def work(generator: VideoGenerator, rows: list[Any], folder: Path, **options: Any) -> list[RowResult]:
    return list(generator.generate_videos(rows, PARAMS, output_path=folder, **options))


def statuses(results: list[RowResult]) -> list[tuple[str, str]]:
    return [(one.id, one.status.value) for one in results]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return path


def batch(model: Path, file: Path, *options: str) -> Result:
    return CliRunner().invoke(fv, ["generate", "--prompts", str(file), "--model", str(model), *SHORT, *options])


def test_rows_of_text_are_named_by_their_prompts(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "p.txt", "A cat!", "", " a cat ", "a dog", "猫"))
    assert [(row.prompt, row.id, row.place) for row in rows] == [
        ("A cat!", "a-cat", "p.txt:1"),
        ("a cat", "a-cat_1", "p.txt:3"),
        ("a dog", "a-dog", "p.txt:4"),
        ("猫", "video", "p.txt:5"),
    ]


def test_rows_of_json_have_ids_and_settings(tmp_path: Path) -> None:
    lines = [
        {"prompt": "a cat"},
        {"prompt": "a dog", "id": "a-cat", "seed": 7, "cache": "TAYLORSEER@2"},
        {"prompt": "a cow", "id": 12, "teacache_params": {"teacache_thresh": 0.3}},
    ]
    first, second, third = read_rows(write(tmp_path / "p.jsonl", *lines))
    assert (first.id, first.sampling, first.cache) == ("a-cat_1", {}, None), "what others were given is not taken"
    assert (second.id, second.sampling, second.cache) == ("a-cat", {"seed": 7}, "TAYLORSEER@2")
    assert (third.id, third.sampling["teacache_params"].teacache_thresh) == ("12", 0.3)


BAD_LINES = [
    ('{"prompt": "a cat", "id": "a/b"}', r"the id 'a/b' is no name for a file"),
    ('{"prompt": "a cat", "id": "../x"}', r"the id '\.\./x' is no name"),
    ('{"prompt": "a cat", "id": "nul.x"}', r"the id 'nul\.x' is no name"),
    ('{"prompt": "a cat", "id": ""}', r"the id '' is no name"),
    ('{"prompt": "a cat", "id": true}', r"the id True is no name"),
    ('{"prompt": "a cat"', r"is no JSON: Expecting ',' delimiter"),
    ('["a cat"]', r"a row is an object with a prompt, not"),
    ('{"id": "x"}', r"there is no prompt in"),
    ('{"prompt": 3}', r"a prompt must be text, not 3"),
    ('{"prompt": "a cat", "hight": 32}', r"unknown sampling parameter 'hight'; did you mean height\?"),
    ('{"prompt": "a cat", "seed": 1, "seed": 2}', r"'seed' is given twice: \[1, 2\]"),
    ('{"prompt": "a cat", "guidance_scale": NaN}', r"NaN is no number"),
    ('{"prompt": "a cat", "output_path": "x"}', r"output_path is 'x', but no row can have it: give the folder"),
    ('{"prompt": "a cat", "num_videos_per_prompt": 2}', r"give a row for each video, with its seed"),
    (
        '{"prompt": "a cat", "teacache_params": {"thresh": 1}}',
        r"unknown setting in teacache_params 'thresh'; there are",
    ),
    ('{"prompt": "a cat", "cache": 0.2}', r"cache must be the name of a caching policy, such as TEACACHE@0.2, not 0.2"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_bad_line_is_told_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"^p\.jsonl:2: .*{message}"):
        read_rows(write(tmp_path / "p.jsonl", {"prompt": "ok"}, line))


def test_a_row_whose_sampling_parameters_have_no_names_is_told() -> None:
    with pytest.raises(InputError, match=r"^row 0: sampling must hold sampling parameters by name, not \[64\]"):
        rows_from([PromptRow("a cat", sampling=[64])])  # type: ignore[arg-type]  # that is the mistake


def test_all_bad_lines_are_told_and_an_id_given_twice_is_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as told:
        read_rows(write(tmp_path / "p.jsonl", *["{"] * 25))
    assert len(str(told.value).splitlines()) == 21
    assert str(told.value).endswith("and 5 more rows are wrong")
    with pytest.raises(InputError, match=r"^p.jsonl:2: the id 'Cat' is that of p.jsonl:1 already$"):
        read_rows(write(tmp_path / "p.jsonl", {"prompt": "a", "id": "cat"}, {"prompt": "b", "id": "Cat"}))
    with pytest.raises(InputError, match=r"^p.txt:1: .* is JSON, but the file's name says text; end it in .jsonl"):
        read_rows(write(tmp_path / "p.txt", {"prompt": "a"}))
    with pytest.raises(InputError, match="has no prompts"):
        read_rows(write(tmp_path / "p.jsonl", ""))


def test_rows_that_the_model_cannot_do_are_told_before_it_is_loaded(
    wan_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", lambda *args, **kwargs: pytest.fail("loaded"))
    lines = [{"prompt": "cat"}, {"prompt": "cat", "height": 30}, {"prompt": "cat", "cache": "TEACASH"}]
    done = batch(wan_folder, write(tmp_path / "p.jsonl", *lines), "--output", "out")
    assert done.exit_code == 1
    assert "p.jsonl:2: height 30 is not a multiple of 16" in done.stderr
    assert "p.jsonl:3: unknown caching policy 'TEACASH'" in done.stderr
    assert not Path("out").exists()
    good = write(tmp_path / "g.jsonl", lines[0])
    for options, message in [
        (("--output", "x.mp4"), "'x.mp4' names one file"),
        (("--shard", "0/2"), "--shard '0/2': parts are counted from 1/2 to 2/2"),
        (("--shard", "3/2"), "--shard '3/2'"),
        (("--shard", "half"), "--shard 'half' is not I/N"),
    ]:
        done = batch(wan_folder, good, *options)
        assert (done.exit_code, message in done.stderr) == (1, True), done.output
    done = CliRunner().invoke(fv, ["generate", "cat", "--model", str(wan_folder), "--retry-failed"])
    assert "--retry-failed is for --prompts FILE" in done.stderr


def test_rows_are_made_once_and_found_again(generator: VideoGenerator, tmp_path: Path) -> None:
    rows = [{"prompt": "cat", "id": "one"}, PromptRow("dog", "two", {"seed": 9}), {"prompt": "cat dog"}]
    made = work(generator, rows, tmp_path, sheet=True)
    assert statuses(made) == [("one", "made"), ("two", "made"), ("cat-dog", "made")]
    assert all(one.video is not None and one.seconds > 0 for one in made)
    assert names(tmp_path) == sorted(
        f"{name}{end}" for name in ("one", "two", "cat-dog") for end in (".json", ".mp4", ".png")
    )
    alone = generator.generate_video("dog", PARAMS, seed=9, save_video=False)
    assert made[1].video is not None
    assert np.array_equal(made[1].video.frames, alone.frames), "a row is made as if it was asked for alone"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = work(generator, rows, tmp_path, sheet=True)
    assert statuses(again) == [("one", "found"), ("two", "found"), ("cat-dog", "found")]
    assert [one.video_path for one in again] == [one.video_path for one in made]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 4}, "seed was 3, now 4"),
        ({"num_inference_steps": 3}, "num_inference_steps was 2, now 3"),
        ({"max_sequence_length": 64}, "max_sequence_length was null, now 64"),
        ({"negative_prompt": "dog"}, 'negative_prompt was "", now "dog"'),
        ({"sheet": True}, "a contact sheet is wanted now"),
        ({"cache": "TAYLORSEER@2:warm_up=1"}, "cache was null, now"),
    ],
)
def test_a_video_with_other_settings_is_not_taken_for_done(
    generator: VideoGenerator, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    work(generator, [{"prompt": "cat", "id": "x"}], tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other, new = work(generator, [{"prompt": "cat", "id": "x"}, {"prompt": "dog"}], tmp_path, **change)
    assert isinstance(other.error, OutputError)
    assert told in str(other.error)
    assert new.status is RowStatus.MADE, "the others go on"
    assert {path: path.read_bytes() for path in before} == before
    same = work(generator, [{"prompt": "dog"}], tmp_path, **change)
    assert same[0].status is RowStatus.FOUND, same


def test_another_prompt_or_kernel_is_told(wan_folder: Path, generator: VideoGenerator, tmp_path: Path) -> None:
    work(generator, [{"prompt": "cat", "id": "x"}], tmp_path)
    (other,) = work(generator, [{"prompt": "dog", "id": "x"}], tmp_path)
    assert 'prompt was "cat", now "dog"' in str(other.error)
    with VideoGenerator.from_pretrained(wan_folder, device="cpu", attention_backend="TORCH_SDPA") as named:
        (other,) = work(named, [{"prompt": "cat", "id": "x"}], tmp_path)
    assert 'requested_backend was null, now "TORCH_SDPA"' in str(other.error)
    with VideoGenerator.from_pretrained(wan_folder, device="cpu", quantization="fp8-layerwise") as rounded:
        (other,) = work(rounded, [{"prompt": "cat", "id": "x"}], tmp_path)
        work(rounded, [{"prompt": "cat", "id": "y"}], tmp_path)
        (same,) = work(rounded, [{"prompt": "cat", "id": "y"}], tmp_path)
    kind = '{"transformer": "FP8, cast layer by layer"}'
    assert f"quantization was {{}}, now {kind}" in str(other.error)
    assert same.status is RowStatus.FOUND
    (other,) = work(generator, [{"prompt": "cat", "id": "y"}], tmp_path)
    assert f"quantization was {kind}, now {{}}" in str(other.error)


def test_what_a_killed_run_left_does_not_count_and_what_is_damaged_stays(
    generator: VideoGenerator, tmp_path: Path
) -> None:
    row = [{"prompt": "cat", "id": "x"}]
    work(generator, row, tmp_path)
    video, receipt = tmp_path / "x.mp4", tmp_path / "x.json"
    content = video.read_bytes()
    video.unlink()
    assert statuses(work(generator, row, tmp_path)) == [("x", "made")], "a receipt alone is a leftover"
    assert names(tmp_path) == ["x.json", "x.mp4"]
    video.write_bytes(content[:-100])
    assert "is damaged" in str(work(generator, row, tmp_path)[0].error)
    video.write_bytes(content)
    receipt.unlink()
    assert "has no receipt x.json" in str(work(generator, row, tmp_path)[0].error)
    video.unlink()
    receipt.write_text('{"mine": 1}')
    assert "x.json' is there, and is of no video" in str(work(generator, row, tmp_path)[0].error)
    assert names(tmp_path) == ["x.json"]


def test_a_video_that_another_process_made_meanwhile_counts(
    generator: VideoGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = output.save_as

    def after_another(folder: Path, stem: str, files: dict[str, bytes | Path]) -> dict[str, Path]:
        monkeypatch.setattr(output, "save_as", save)
        generator._alone._lock.release()  # as another process would not hold it
        assert statuses(work(generator, row, tmp_path)) == [("x", "made")]
        assert generator._alone._lock.acquire(blocking=False)
        return save(folder, stem, files)

    row = [{"prompt": "cat", "id": "x"}]
    monkeypatch.setattr(output, "save_as", after_another)
    assert statuses(work(generator, row, tmp_path)) == [("x", "found")]
    assert names(tmp_path) == ["x.json", "x.mp4"]


def test_a_row_fails_alone_but_a_full_disk_and_a_closed_generator_end_it(
    generator: VideoGenerator, wan_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = type(generator._pipe.vae).decode
    calls = iter([False, True, False])

    def failing(self: Any, *args: Any, **more: Any) -> Any:
        if next(calls):
            raise RuntimeError("out of memory")
        return decode(self, *args, **more)

    monkeypatch.setattr(type(generator._pipe.vae), "decode", failing)
    results = work(generator, [{"prompt": name} for name in ("cat", "dog", "cat dog")], tmp_path / "a")
    monkeypatch.setattr(type(generator._pipe.vae), "decode", decode)
    assert statuses(results) == [("cat", "made"), ("dog", "failed"), ("cat-dog", "made")]
    assert results[1].as_dict()["error"] == "RuntimeError: out of memory"
    monkeypatch.setattr(output, "save_as", lambda *given: (_ for _ in ()).throw(OutputError("full")))
    with pytest.raises(OutputError, match="full"):
        work(generator, [{"prompt": "cat"}], tmp_path / "b")
    with VideoGenerator.from_pretrained(wan_folder, device="cpu") as other:
        videos = other.generate_videos([{"prompt": "cat"}], PARAMS)
    with pytest.raises(AttachError, match="closed"):
        next(videos)


def test_the_command_resumes_and_gives_up_on_what_failed(
    wan_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import AutoencoderKLWan

    decode = AutoencoderKLWan.decode
    file = write(tmp_path / "p.jsonl", *[{"prompt": name, "id": name} for name in ("cat", "dog")])
    failing = iter([False, True])

    def decoding(self: Any, *args: Any, **more: Any) -> Any:
        if next(failing, False):
            raise RuntimeError("out of memory")
        return decode(self, *args, **more)

    monkeypatch.setattr(AutoencoderKLWan, "decode", decoding)
    done = batch(wan_folder, file, "--output", "out")
    assert done.exit_code == 1
    assert "[1/2] cat  " in done.stderr
    assert "[2/2] dog  failed: out of memory" in done.stderr
    assert "2 of 2 videos: 1 made, 0 done before, 1 failed" in done.stderr
    done = batch(wan_folder, file, "--output", "out")
    assert done.exit_code == 1
    assert "2 of 2 videos: 0 made, 1 done before, 1 failed" in done.stderr
    assert "[1/2] dog  failed: in an earlier run, RuntimeError: out of memory; --retry-failed tries it" in done.stderr
    done = batch(wan_folder, file, "--output", "out", "--retry-failed")
    assert done.exit_code == 0, done.output
    assert "2 of 2 videos: 1 made, 1 done before, 0 failed" in done.stderr
    assert "results in out/results.jsonl" in done.stderr
    lines = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    assert [(line["id"], line["status"]) for line in lines] == [("cat", "made"), ("dog", "failed"), ("dog", "made")]
    assert lines[2]["video_path"] == "out/dog.mp4"
    assert names(Path("out")) == ["cat.json", "cat.mp4", "dog.json", "dog.mp4", "results.jsonl"]


def test_parts_are_apart_and_make_the_whole(wan_folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "p.txt", "cat", "dog", "cat")
    for part in ("1/2", "2/2"):
        assert batch(wan_folder, file, "--output", "out", "--shard", part).exit_code == 0
    found = {path.name: path.read_text() for path in Path("out").glob("*.jsonl")}
    ids = {name: [json.loads(line)["id"] for line in text.splitlines()] for name, text in found.items()}
    assert ids == {"results-1-of-2.jsonl": ["cat", "cat_1"], "results-2-of-2.jsonl": ["dog"]}
    assert Shard.parse(None) == Shard(1, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such lock")
def test_a_second_run_of_the_same_part_is_refused(wan_folder: Path, tmp_path: Path) -> None:
    import fcntl

    Path("out").mkdir()
    with Path("out/results.jsonl").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = batch(wan_folder, write(tmp_path / "p.txt", "cat"), "--output", "out")
    assert (done.exit_code, "another run is writing 'out/results.jsonl' right now" in done.stderr) == (1, True)
    Path("out/results.jsonl").write_text("nonsense\n")
    done = batch(wan_folder, tmp_path / "p.txt", "--output", "out")
    assert "is no file of results, or damaged" in done.stderr


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_whole_videos_and_the_next_ends_it(wan_folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", *[{"prompt": "cat", "id": f"v{number}", "seed": number} for number in range(16)])
    command = [sys.executable, "-m", "fastvideo_core", "generate", "--prompts", str(file), "--model", str(wan_folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *SHORT[:-2], "--output", "out"], env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while len(list(Path("out").glob("v*.mp4"))) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    videos = {path: path.stat().st_mtime_ns for path in Path("out").glob("v*.mp4")}
    assert 3 <= len(videos) < 16
    assert all(is_whole(path) and path.with_suffix(".json").is_file() for path in videos)
    done = batch(wan_folder, file, "--output", "out", "--seed", "0")
    assert done.exit_code == 0, done.output
    assert f"{16 - len(videos)} made, {len(videos)} done before, 0 failed" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in videos} == videos
    assert len(list(Path("out").iterdir())) == 2 * 16 + 1, "nothing unfinished is left"
    results = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    assert sorted({line["id"] for line in results}) == sorted(f"v{number}" for number in range(16))


def test_a_whole_mp4_is_told_from_one_that_is_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert is_whole(path)
    cut = tmp_path / "cut.mp4"
    for length in range(0, len(content), 7):
        cut.write_bytes(content[:length])
        assert not is_whole(cut), length
    assert not is_whole(tmp_path)


def test_the_time_left_is_that_of_the_videos_made(tmp_path: Path) -> None:
    now = iter([0.0, 100.0])
    tally = Tally(5, clock=lambda: next(now))
    assert tally.count(RowResult("a", "", RowStatus.FOUND)) == "[1/5] a  done before"
    assert tally.count(RowResult("b", "", RowStatus.MADE, seconds=10)) == "[2/5] b  10.0 s; about 30 s left"
    failed = RowResult("c", "", RowStatus.FAILED, seconds=1, error=ValueError("no"))
    assert tally.count(failed) == "[3/5] c  failed: no; about 20 s left"
    assert tally.summary(tmp_path) == (f"3 of 5 videos: 1 made, 1 done before, 1 failed; 2 min; results in {tmp_path}")
    assert [duration(s) for s in (0, 59.6, 3600, 7500, 90_000)] == ["0 s", "1 min", "1 h 0 min", "2 h 5 min", "1 d 1 h"]


def test_a_row_that_fails_ends_the_process_with_status_one(
    wan_folder: Path, generator: VideoGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(generator, [{"prompt": "dog", "id": "cat"}], tmp_path / "out")
    file = tmp_path / "p.txt"
    command = ["fv", "generate", "--prompts", str(file), "--model", str(wan_folder), *SHORT, "--output", "out"]
    monkeypatch.setattr(sys, "argv", command)
    for prompt, status in (("cat", 1), ("dog", 0)):
        write(file, prompt)
        assert cli._run() == status
