"""`fv`, as its users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastvideo_core import Probe
from fastvideo_core.cli import fv
from fastvideo_core.errors import OutputError
from tests.support.backends import Recorder, plugins_with

SHORT = ("--height", "32", "--width", "48", "--frames", "5", "--steps", "2", "--seed", "3")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(fv, list(arguments))


def test_generate_prints_where_the_video_is_and_what_ran(wan_folder: Path, tmp_path: Path) -> None:
    done = invoke(
        "generate", "a cat", "--model", str(wan_folder), *SHORT, "--sheet", "--output", str(tmp_path / "x.mp4")
    )
    assert done.exit_code == 0, done.output
    assert f"video    {tmp_path / 'x.mp4'}" in done.stdout
    assert f"sheet    {tmp_path / 'x.png'}" in done.stdout
    assert "TORCH_SDPA" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.mp4", "x.png"]


def test_generate_json_is_nothing_but_json(wan_folder: Path, tmp_path: Path) -> None:
    done = invoke("generate", "a cat", "--model", str(wan_folder), *SHORT, "--json", "--output", str(tmp_path))
    receipt = json.loads(done.stdout)
    assert receipt["video_path"] == str(tmp_path / "a-cat.mp4")
    assert (receipt["seed"], receipt["num_frames"], receipt["prompt"]) == (3, 5, "a cat")


@pytest.mark.parametrize("as_json", [True, False])
def test_generate_takes_a_file_of_prompts(wan_folder: Path, tmp_path: Path, as_json: bool) -> None:
    (tmp_path / "prompts.txt").write_text("cat\n\n dog \ncat\n")
    options = ("--model", str(wan_folder), *SHORT, "--output", str(tmp_path / "out"), *(["--json"] if as_json else []))
    done = invoke("generate", "--prompts", str(tmp_path / "prompts.txt"), *options)
    assert done.exit_code == 0, done.output
    expected = [str(tmp_path / "out" / name) for name in ("cat.mp4", "dog.mp4", "cat_1.mp4")]
    if as_json:
        assert [json.loads(line)["video_path"] for line in done.stdout.splitlines()] == expected
    else:
        assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("video ")] == expected
    assert all(Path(path).stat().st_size > 0 for path in expected)


def test_what_is_done_stays_when_a_later_prompt_fails(
    wan_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastvideo_core.app import output

    save = output.save_as

    def save_or_fail(folder: Path, stem: str, files: dict[str, bytes | Path]) -> dict[str, Path]:
        if stem == "dog":
            raise OutputError("the disk is full")
        return save(folder, stem, files)

    monkeypatch.setattr(output, "save_as", save_or_fail)
    (tmp_path / "prompts.txt").write_text("cat\ndog\ncat\n")
    options = ("--model", str(wan_folder), *SHORT, "--output", str(tmp_path / "out"))
    done = invoke("generate", "--prompts", str(tmp_path / "prompts.txt"), *options)
    assert done.exit_code == 1
    assert f"video    {tmp_path / 'out' / 'cat.mp4'}" in done.stdout
    assert "Error: the disk is full" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cat.json", "cat.mp4", "results.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either a PROMPT or --prompts FILE"),
        (("cat", "--prompts", "x.txt"), "give either a PROMPT or --prompts FILE"),
        (("--prompts", "x.txt"), "the prompts 'x.txt' cannot be read"),
        (("", "--model", "shapes"), "the prompt '' is empty"),
        (("cat", "--model", "shape"), "did you mean shapes?"),
        (("cat", "--model", "shapes", "--height", "130"), "near it: 128 or 144"),
        (("cat", "--model", "shapes", "--frames", "32"), "near it: 29 or 33"),
        (("cat", "--model", "shapes", "--attention-backend", "NOSUCH_ATTN"), "installed: "),
        (("cat", "--model", "shapes", "--attention-backend", "FLASH_ATTN"), "switched off by FASTVIDEO_DISABLE"),
        (("cat", "--model", "shapes", "--attention-backend", "SAGE_ATTN"), "takes bfloat16, float16|needs an NVIDIA"),
        (("cat", "--model", "shapes", "--output", "x.avi"), "videos are written as .mp4"),
        (("cat", "--model", "shapes", "--cache", "TEACASH@0.1"), "did you mean TEACACHE?"),
        (
            ("cat", "--model", "shapes", "--cache", "TEACACHE@-1"),
            "cache='TEACACHE@-1' is '-1': input should be greater",
        ),
    ],
)
def test_mistakes_are_one_line_before_anything_is_loaded(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", lambda *args, **kwargs: pytest.fail("loaded"))
    monkeypatch.setenv("FASTVIDEO_DISABLE_PLUGINS", "fv-flash")
    done = invoke("generate", *arguments)
    assert done.exit_code == 1
    assert any(part in done.output for part in message.split("|")), done.output
    assert "Traceback" not in done.output
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_plugins_lists_in_words_and_in_json() -> None:
    words = invoke("plugins").stdout
    assert "TORCH_SDPA" in words
    assert [line.split()[0] for line in words.splitlines() if line.endswith("watches generations")][:1] == [
        "progress-bar"
    ]
    listed = json.loads(invoke("plugins", "--json").stdout)
    assert {"name": "torch-sdpa", "status": "loaded", "error": None}.items() <= listed[0].items()


def test_doctor_is_well_and_says_why_when_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    well = invoke("doctor")
    assert well.exit_code == 0, well.output
    assert "TORCH_SDPA (fastvideo-core" in well.stdout
    assert "no problems" in well.stdout
    monkeypatch.setenv("FASTVIDEO_DISABLE_PLUGINS", "fv-nonsense")
    assert "names fv-nonsense, which is not installed" in invoke("doctor").stdout
    monkeypatch.setenv("FASTVIDEO_ATTENTION_BACKEND", "FLASH_ATN")
    ill = invoke("doctor")
    assert ill.exit_code == 1
    assert "did you mean FLASH_ATTN?" in ill.stdout


def test_doctor_is_ill_when_a_kernel_is_broken_and_well_when_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    for broken, status in ((True, 1), (False, 0)):
        backend = Recorder("GPU_ATTN", probe=Probe(False, reason="no luck", remedy="Do this", broken=broken))
        monkeypatch.setattr("fastvideo_core.cli.doctor.discovered", lambda backend=backend: plugins_with(backend))
        done = invoke("doctor")
        assert done.exit_code == status
        assert "GPU_ATTN (acme 1.0) cannot run here: no luck. Do this" in done.stdout


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (
            {"ATTENTION_CONFIG": "x.json"},
            "FASTVIDEO_ATTENTION_CONFIG gives 'x.json', but no attention backend was asked",
        ),
        ({"ATTENTION_BACKEND": "GPU_ATTN"}, "GPU_ATTN (from FASTVIDEO_ATTENTION_BACKEND) cannot run here; see above"),
        (
            {"ATTENTION_BACKEND": "GPU_ATTN", "ATTENTION_FALLBACK": "GPU_ATTN"},
            "cannot run here, nor can GPU_ATTN, its fallback",
        ),
        ({"ATTENTION_BACKEND": "GPU_ATTN", "ATTENTION_FALLBACK": "TORCH_SDPA"}, None),
        ({"ATTENTION_FALLBACK": "NOPE"}, "unknown attention backend 'NOPE' (from FASTVIDEO_ATTENTION_FALLBACK)"),
    ],
)
def test_doctor_is_ill_where_generate_would_fail(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], problem: str | None
) -> None:
    backend = Recorder("GPU_ATTN", probe=Probe(False, reason="no luck", remedy="Do this"))
    monkeypatch.setattr("fastvideo_core.cli.doctor.discovered", lambda: plugins_with(backend))
    for name, value in variables.items():
        monkeypatch.setenv(f"FASTVIDEO_{name}", value)
    done = invoke("doctor")
    assert done.exit_code == (problem is not None), done.output
    assert (problem or "no problems") in done.stdout


def test_generate_shows_what_a_backend_tells_of_the_run(wan_folder: Path, tmp_path: Path) -> None:
    options = ("--model", str(wan_folder), *SHORT, "--output", str(tmp_path), "--attention-backend", "NEIGHBORHOOD")
    done = invoke("generate", "cat", *options)
    assert done.exit_code == 0, done.output
    told = json.loads(next(tmp_path.glob("*.json")).read_text())["attention"]["SELF"]["details"]
    assert told
    lines = done.stdout.splitlines()
    line = lines[1 + next(number for number, one in enumerate(lines) if one.startswith("self "))]
    assert all(name in line for name in told)


def test_a_model_that_is_switched_off_is_not_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIDEO_DISABLE_PLUGINS", "fv-shapes")
    done = invoke("generate", "cat")
    assert done.exit_code == 1
    assert "fv-shapes, which has it, is installed but switched off by FASTVIDEO_DISABLE_PLUGINS" in done.output


def test_a_file_whose_name_is_no_text_is_refused_before_loading(
    wan_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", lambda *args, **more: pytest.fail("loaded"))
    given = ("--attention-backend", "TORCH_SDPA", "--attention-config", "w\udcff.json")
    done = invoke("generate", "cat", "--model", str(wan_folder), *SHORT, *given)
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert "--attention-config is 'w\\udcff.json', which is no text: " in done.output


def test_the_module_runs_too() -> None:
    command = [sys.executable, "-m", "fastvideo_core", "plugins", "new", "no name"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: 'no name' is no name for a plugin; take letters")
    assert done.stderr.count("\n") == 1


def test_generate_says_what_was_skipped(wan_folder: Path, tmp_path: Path) -> None:
    options = ("--model", str(wan_folder), *SHORT, "--steps", "6", "--output", str(tmp_path))
    done = invoke("generate", "cat", *options, "--cache", "TAYLORSEER@3:warm_up=1")
    assert done.exit_code == 0, done.output
    assert "cache    TAYLORSEER (fv-taylorseer 0.2.0), 6 of 12 steps skipped" in done.stdout


def test_the_doctor_knows_caching_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke("doctor")
    assert "caching policies" in done.output
    assert "  TEACACHE (fv-teacache 0.2.0)" in done.output
    monkeypatch.setenv("FASTVIDEO_CACHE_POLICY", "TEACACHE@much")
    done = invoke("doctor")
    assert done.exit_code == 1
    assert "FASTVIDEO_CACHE_POLICY='TEACACHE@much' is 'much': input should be a valid number" in done.output
