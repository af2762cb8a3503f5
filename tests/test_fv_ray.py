"""fv-ray without a cluster: rows as Ray Data has them, where files go, how much a cluster can hold, what is refused."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner
from fv_ray import VideoPredictor
from fv_ray.cluster import passed_on, problem_of
from fv_ray.columns import as_result, plain_row, rebuilt, result_row, rows_in, with_id
from fv_ray.commands import _MORE_SAMPLING, _SAMPLING
from fv_ray.listening import Callers
from fv_ray.run import check_table, write_table
from fv_ray.shape import Asked, shape_for

from fastvideo_core import (
    PromptRow,
    RowResult,
    RowStatus,
    SamplingParam,
    TeaCacheParams,
    check_names,
    errors,
    sampling_options,
)
from fastvideo_core.cli import fv
from fastvideo_core.errors import InputError, OutputError

SMALL = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2}


@pytest.fixture
def predictor(wan_folder: Path, tmp_path: Path) -> Iterator[VideoPredictor]:
    made = VideoPredictor(str(wan_folder), str(tmp_path / "out"), sampling=SMALL, device="cpu")
    yield made
    made.close()


def batch(**columns: list[Any]) -> dict[str, Any]:
    """Columns as Ray Data's numpy format has them."""
    return {name: np.array(values) for name, values in columns.items()}


def column(told: dict[str, list[Any]], name: str) -> Any:
    (value,) = told[name]
    return value


def test_what_ray_fills_up_is_not_given_and_numbers_are_whole_again() -> None:
    rows = rows_in(
        {
            "prompt": np.array(["a", "b"], dtype=object),
            "seed": np.array([7.0, np.nan]),
            "guidance_scale": np.array([1.5, 2.0]),
            "negative_prompt": np.array([None, "x"], dtype=object),
            "teacache_params": np.array([{"teacache_thresh": 0.3, "coefficients": None}, None], dtype=object),
        }
    )
    assert rows == [
        {"prompt": "a", "seed": 7, "guidance_scale": 1.5, "teacache_params": {"teacache_thresh": 0.3}},
        {"prompt": "b", "guidance_scale": 2, "negative_prompt": "x"},
    ]
    assert type(rows[0]["seed"]) is int


def test_a_row_without_an_id_has_one_that_only_the_same_row_has() -> None:
    first, again = (with_id({"prompt": "A cat!", "seed": 1})["id"] for _ in range(2))
    other = with_id({"prompt": "A cat!", "seed": 2})["id"]
    assert first == again != other
    assert first.startswith("a-cat-")
    assert with_id({"prompt": "x" * 500})["id"].startswith("x" * 60 + "-")
    assert with_id({"prompt": "猫"})["id"].startswith("video-")
    assert with_id({"prompt": "a cat", "id": "mine"})["id"] == "mine"


def test_a_row_travels_as_plain_values_with_absolute_paths() -> None:
    row = PromptRow("cat", "a", {"image_path": "i.png", "teacache_params": TeaCacheParams(0.3), "fps": None}, "DBCACHE")
    sent = json.loads(json.dumps(plain_row(row)))
    assert sent["image_path"] == str(Path.cwd() / "i.png")
    assert sent["teacache_params"]["teacache_thresh"] == 0.3
    assert (sent["prompt"], sent["id"], sent["cache"], "fps" in sent) == ("cat", "a", "DBCACHE", False)


@pytest.mark.parametrize(
    "result",
    [
        RowResult("a", "cat", RowStatus.MADE, Path("/o/a.mp4"), Path("/o/a.json"), Path("/o/a.png"), 1.25),
        RowResult("a", "cat", RowStatus.FOUND, Path("/o/a.mp4"), Path("/o/a.json")),
        RowResult("a", "cat", RowStatus.FAILED, error=OutputError("full: up to the brim")),
        RowResult("a", "cat", RowStatus.FAILED, error=KeyError("gone")),
    ],
    ids=["made", "found", "failed", "of another's"],
)
def test_a_result_comes_back_as_it_was(result: RowResult) -> None:
    back = as_result(result_row(result, "machine:1"))
    assert back.as_dict() == result.as_dict()
    assert isinstance(back.error, OutputError) is isinstance(result.error, OutputError)


def test_an_error_keeps_its_name() -> None:
    assert type(rebuilt("InputError: height: 3")) is errors.InputError
    assert (type(rebuilt("OutOfMemoryError: x")).__name__, str(rebuilt("OutOfMemoryError: x"))) == (
        "OutOfMemoryError",
        "x",
    )
    assert isinstance(rebuilt("Any: x"), errors.FastVideoError), "a name that the module has, and is no error"


def test_the_predictor_makes_finds_and_tells_what_is_wrong(
    predictor: VideoPredictor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = predictor(batch(prompt=["cat"], id=["one"], seed=[3]))
    assert (column(told, "status"), column(told, "error"), column(told, "ends_run")) == ("made", "", False)
    assert Path(column(told, "video")) == tmp_path / "out" / "one.mp4"
    assert json.loads(Path(column(told, "receipt")).read_text())["seed"] == 3
    assert column(told, "seconds") > 0
    assert "[one] begins\n[one] made in " in capfd.readouterr().err
    assert column(predictor(batch(prompt=["cat"], id=["one"], seed=[3])), "status") == "found"
    several = predictor(batch(prompt=["cat", "dog", "cow"], id=["one", "../x", "two"], height=[32, 32, 30]))
    assert several["status"] == ["failed", "failed", "failed"]
    assert "seed was 3, now" in several["error"][0]
    assert several["error"][1].startswith("InputError: row 0: the id '../x' is no name for a file")
    assert "height 30 is not a multiple of 16" in several["error"][2]
    assert several["ends_run"] == [False] * 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.json", "one.mp4"]


def test_a_full_disk_ends_the_run(predictor: VideoPredictor, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("no folder")
    told = predictor(batch(prompt=["cat"], id=["one"]))
    assert (column(told, "status"), column(told, "ends_run")) == ("failed", True)
    assert column(told, "error").startswith("OutputError: ")


def test_an_address_of_fsspec_takes_the_files_and_gives_them_back(wan_folder: Path) -> None:
    made = VideoPredictor(str(wan_folder), "memory://bucket/videos", sampling=SMALL, device="cpu")
    try:
        there = fsspec.filesystem("memory")
        told = made(batch(prompt=["cat"], id=["one"]))
        assert column(told, "status") == "made"
        assert column(told, "video") == "memory://bucket/videos/one.mp4"
        names = [Path(path).name for path in there.ls("/bucket/videos", detail=False)]
        assert sorted(names) == ["one.json", "one.mp4"]
        first = there.cat("/bucket/videos/one.mp4")
        assert column(made(batch(prompt=["cat"], id=["one"])), "status") == "found"
        other = made(batch(prompt=["dog"], id=["one"]))
        assert 'prompt was "cat", now "dog"' in column(other, "error")
        assert there.cat("/bucket/videos/one.mp4") == first
        there.rm("/bucket/videos/one.mp4")
        assert column(made(batch(prompt=["dog"], id=["one"])), "status") == "made", "a receipt alone is of no video"
    finally:
        made.close()
        there.store.clear()


def test_an_unknown_address_is_told_before_a_model_is_loaded() -> None:
    with pytest.raises(InputError, match="the address 'nonsense://x' cannot be used: Protocol not known: nonsense"):
        VideoPredictor("no such model", "nonsense://x")


TWO = [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 3.0}, {"CPU": 2.0}]


def test_sets_of_resources_are_each_on_one_machine() -> None:
    assert problem_of({"GPU": 2.0}, 3, TWO) == ""
    assert problem_of({"GPU": 2.0}, 4, TWO) == (
        "4 times 2 GPU, each on one machine, are asked for, and the machines have: 4 GPU; 3 GPU; 0 GPU"
    )
    assert problem_of({"GPU": 5.0}, 1, TWO).startswith("5 GPU, each on one machine, is asked for")
    assert problem_of({"GPU": 0.0}, 9, []) == ""


def test_a_cluster_gets_as_many_actors_as_it_has_gpus_for() -> None:
    shape = shape_for(Asked(num_gpus=2), TWO, 100)
    assert (shape.device, shape.concurrency, shape.problem) == ("cuda", 3, "")
    assert shape.arguments() == {"concurrency": 3, "num_gpus": 2, "device": "cuda"}, "and no CPU slot"
    assert shape_for(Asked(), TWO, 5).concurrency == 5
    assert shape_for(Asked(concurrency=9), TWO, 100).problem.startswith("9 times 1 GPU")
    cpu = shape_for(Asked(num_processes=2), [{"CPU": 2.0}], 100)
    assert cpu.arguments() == {"concurrency": 1, "num_gpus": 0, "device": "cpu", "num_processes": 2, "num_cpus": 1}
    assert shape_for(Asked(concurrency=2, num_processes=2), [{"CPU": 2.0}], 100).problem.startswith("2 times 2 CPU")
    for asked, message in [
        (Asked(num_gpus=2, device="cpu"), "--num-gpus-per-video is 2 with --device cpu; give --num-processes 2"),
        (Asked(num_processes=2, device="cuda"), "--num-processes is 2 on GPUs: give --num-gpus-per-video 2"),
    ]:
        with pytest.raises(InputError, match=message):
            shape_for(asked, TWO, 1)
    with pytest.raises(InputError, match="the machines of the cluster have no GPUs: to try it give --device cpu"):
        shape_for(Asked(num_gpus=2), [{"CPU": 2.0}], 1)


def test_actors_see_what_was_asked_for_here_and_no_secret() -> None:
    environment = {"FASTVIDEO_CACHE_POLICY": "DBCACHE", "FASTVIDEO_API_KEY": "secret", "HOME": "/x"}
    assert passed_on(environment) == {"runtime_env": {"env_vars": {"FASTVIDEO_CACHE_POLICY": "DBCACHE"}}}
    assert passed_on({"HOME": "/x"}) == {}


def test_only_who_has_the_key_may_call() -> None:
    callers = Callers("127.0.0.1", b"right", 2)
    taken: list[Any] = []

    def take() -> None:
        taken.append(callers.accept())

    for key, expected in [(b"wrong", None), (b"right", 1)]:
        thread = threading.Thread(target=take)
        thread.start()
        try:
            with Client(callers.address, authkey=key) as line:
                line.send(1)
                thread.join(30)
                if expected is not None:
                    rank, end = taken[-1]
                    end.send("hello")
                    assert (rank, line.recv()) == (1, "hello")
                    end.close()
        except AuthenticationError:
            thread.join(30)
            assert expected is None
        assert (taken[-1] is None) is (expected is None)
    thread = threading.Thread(target=take)
    thread.start()
    with socket.create_connection(callers.address):
        pass
    thread.join(30)
    assert taken[-1] is None
    callers.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "s3://bucket/x"), "--output 's3://bucket/x' is an address; give a folder"),
        (("--output", "out", "--table", "t.csv"), "--table 't.csv' must end in .parquet"),
        (("--output", "out", "--height", "30"), "p.txt:1: height 30 is not a multiple of 16"),
        (("--output", "out", "--cache", "TEACASH"), "Error: unknown caching policy 'TEACASH' (from cache=)"),
        (("--output", "out", "--attention-backend", "FLASH_ATN"), "unknown attention backend 'FLASH_ATN'"),
        (("--output", "out", "--attention-backend", "sliding-tile-attn:x"), "unknown attention backend"),
        (("--output", "out", "--attention-backend", "SLIDING_TILE_ATTN@x=1"), "SLIDING_TILE_ATTN has no setting 'x'"),
        (("--output", "out", "--quantization", "torchao-fp7"), "quantization 'torchao-fp7' is none of fp8-layerwise"),
        (("--output", "out", "--dtype", "float8"), "dtype 'float8' is none of float32, bfloat16, float16"),
        (("--output", "out", "--set", "DBCACHE.x=1"), "--set 'DBCACHE.x=1' is for DBCACHE, but nothing was asked for"),
        (("--output", "out.mp4"), "names one file"),
    ],
)
def test_what_is_wrong_is_told_before_ray_is_looked_for(
    wan_folder: Path, options: tuple[str, ...], message: str
) -> None:
    Path("p.txt").write_text("a cat\n")
    done = CliRunner().invoke(fv, ["batch", "p.txt", "--model", str(wan_folder), *options])
    assert (done.exit_code, message in done.stderr) == (1, True), done.output
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("variables", "given", "message"),
    [
        ({"FASTVIDEO_CACHE_POLICY": "dbcache"}, "DBCACHE.x=1", "DBCACHE has no setting 'x'"),
        (
            {"FASTVIDEO_ATTENTION_BACKEND": "torch-sdpa", "FASTVIDEO_CACHE_POLICY": "dbcache@0.1"},
            "TEACACHE.x=1",
            "--set 'TEACACHE.x=1' is for TEACACHE, but TORCH_SDPA and DBCACHE was asked for",
        ),
    ],
)
def test_what_the_environment_asks_for_counts(
    wan_folder: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], given: str, message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    Path("p.txt").write_text("a cat\n")
    done = CliRunner().invoke(fv, ["batch", "p.txt", "--model", str(wan_folder), "--output", "out", "--set", given])
    assert (done.exit_code, message in done.stderr) == (1, True), done.output


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FASTVIDEO_CACHE_POLICY": "TEACASH"}, "unknown caching policy 'TEACASH' (from FASTVIDEO_CACHE_POLICY)"),
        ({"FASTVIDEO_CACHE_POLICY": "TEACACHE"}, "TEACACHE"),
        ({"FASTVIDEO_ATTENTION_BACKEND": "X_ATTN"}, "unknown attention backend 'X_ATTN'"),
        (
            {"FASTVIDEO_ATTENTION_BACKEND": "TORCH_SDPA", "FASTVIDEO_ATTENTION_FALLBACK": "X_ATTN"},
            "unknown attention backend 'X_ATTN' (from FASTVIDEO_ATTENTION_FALLBACK)",
        ),
    ],
)
def test_what_is_wrong_with_the_environment_is_said_once(
    wan_folder: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    Path("p.txt").write_text("a cat\na dog\n")
    done = CliRunner().invoke(fv, ["batch", "p.txt", "--model", str(wan_folder), "--output", "out"])
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1), done.output
    assert done.stderr.startswith(f"Error: {message}"), done.stderr


@pytest.mark.parametrize(
    "names",
    [
        {"attention_backend": "SAGE_ATTN", "quantization": "bnb_nf4", "dtype": "float16"},
        {"attention_backend": "SLIDING_TILE_ATTN@window=3,3,3", "quantization": "torchao-int8"},
        {"attention_backend": "SLIDING_TILE_ATTN", "attention_config": "of-another-machine.json", "cache": "TEACACHE"},
        {"cache": "DBCACHE@0.1"},
    ],
)
def test_what_another_machine_may_be_able_to_do_is_not_refused_here(wan_folder: Path, names: dict[str, str]) -> None:
    check_names(wan_folder, **names)


def test_a_table_is_whole_and_may_be_written_again(tmp_path: Path) -> None:
    from pyarrow import parquet

    rows = [result_row(RowResult("a", "cat", RowStatus.FAILED, error=InputError("x")), "machine:1")]
    for content in (rows, rows * 2):
        check_table(tmp_path / "t.parquet")
        write_table(tmp_path / "t.parquet", content)
        assert parquet.read_table(tmp_path / "t.parquet").to_pylist() == content
    with pytest.raises(OutputError, match="there is no folder"):
        check_table(tmp_path / "none" / "t.parquet")


def test_every_sampling_option_of_the_command_goes_into_the_sampling() -> None:
    @sampling_options
    def command() -> None: ...

    options = {option.name for option in command.__click_params__}  # type: ignore[attr-defined]  # click's own
    assert len(options) > 5
    assert options <= {*_SAMPLING, *_MORE_SAMPLING}
    assert {*_SAMPLING, *_MORE_SAMPLING} <= {field.name for field in dataclasses.fields(SamplingParam)}
