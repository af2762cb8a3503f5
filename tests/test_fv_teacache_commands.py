"""`fv teacache`: plans without generating, and calibrations that resume and refuse."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from fv_teacache import calibrate
from fv_teacache.calibrate import fit
from fv_teacache.policy import TeaCache

from fastvideo_core import Signal, VideoGenerator, attach, preview_plan
from fastvideo_core.app import preview
from fastvideo_core.cli import fv
from fastvideo_core.errors import InputError, ModelNotFoundError
from tests.support.models import build_cogvideox_pipeline, build_mochi_pipeline, build_wan_pipeline, run

RISING = [0.0, 0.0, 0.0, 0.2, 0.0]
SMALL = ("--height", "32", "--width", "48", "--frames", "9")


def teacache(*arguments: object) -> Result:
    return CliRunner().invoke(fv, ["teacache", *map(str, arguments)])


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (build_wan_pipeline, {}),
        (lambda: build_wan_pipeline(experts=2), {}),
        (build_cogvideox_pipeline, {"max_sequence_length": 16}),
    ],
    ids=["Wan 2.1", "Wan 2.2", "CogVideoX"],
)
def test_the_plan_is_what_then_runs(build: Any, options: dict[str, Any], tmp_path: Path) -> None:
    pipe = build()
    pipe.save_pretrained(tmp_path / "model")
    policy = TeaCache(0.4, coefficients=RISING)
    plans = preview_plan(str(tmp_path / "model"), policy, 12)
    with attach(pipe, cache=policy) as fv:
        run(pipe, num_inference_steps=12, **options)
    assert fv.receipt.cache is not None
    schedules = list(fv.receipt.cache.schedule.values())
    branches = len(fv.receipt.steps_computed)
    assert ["".join(action.value[0] for action in plan) for _, plan in plans] == schedules[::branches]
    assert "R" in "".join(schedules)


def test_the_plan_reads_the_time_embedding_alone(wan_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = preview.read_tensors

    def counted(file: Any, names: Any) -> Any:
        tensors = original(file, names)
        read.append(sum(tensor.nbytes for tensor in tensors.values()))
        assert all("time_embedder" in name or "time_proj" in name for name in tensors)
        return tensors

    monkeypatch.setattr(preview, "read_tensors", counted)
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", lambda *args: pytest.fail("the model was loaded"))
    file = Path("teacache.json")
    file.write_text(json.dumps({"coefficients": RISING, "signal": "TIME_EMBEDDING"}))
    done = teacache("plan", "--model", wan_folder, "--steps", 10, "--threshold", 0.5, "--coefficients", file)
    assert done.exit_code == 0, done.output
    letters, summary = done.output.splitlines()
    assert len(letters) == 10
    computed = letters.count("C")
    assert summary.startswith(f"C computed, R reused: {computed} of 10 steps are computed, {10 - computed} skipped")
    assert f"{10 / computed:.2f} times as fast" in summary
    weights = (wan_folder / "transformer" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert 0 < read[0] < weights / 2


def test_weights_in_several_files(tmp_path: Path) -> None:
    pipe = build_wan_pipeline()
    pipe.save_pretrained(tmp_path / "one")
    pipe.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many" / "transformer").glob("*.safetensors"))) > 3
    policy = TeaCache(0.4, coefficients=RISING)
    one, many = (preview_plan(str(tmp_path / name), policy, 9) for name in ("one", "many"))
    assert one[0][1] == many[0][1]
    assert one[0][0].changes == many[0][0].changes


def test_what_cannot_be_planned(wan_folder: Path, tmp_path: Path) -> None:
    build_mochi_pipeline().save_pretrained(tmp_path / "mochi")
    done = teacache("plan", "--model", tmp_path / "mochi", "--threshold", 0.08, "--coefficients", "mochi-1-preview")
    assert "decides for" in done.output
    assert "by MODULATED_INPUT, which is known only while it runs" in done.output
    done = teacache("plan", "--model", wan_folder, "--threshold", 0.1)
    assert "TEACACHE has no coefficients for" in done.output
    done = teacache(
        "plan", "--model", wan_folder, "--threshold", 0.06, "--coefficients", "Wan2.1-T2V-1.3B", "--steps", 0
    )
    assert "num_inference_steps is 0, it must be 1 to 1000" in done.output


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    build_wan_pipeline().save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
    for content in (b"", b'\x10\0\0\0\0\0\0\0{"a": 1}        ', b"x" * 100):
        file.write_bytes(content)
        with pytest.raises(ModelNotFoundError, match="the weights of the transformer lack or garble"):
            preview_plan(str(tmp_path / "model"), TeaCache(0.1, coefficients=RISING))
    file.unlink()
    with pytest.raises(ModelNotFoundError, match="that can be read"):
        preview_plan(str(tmp_path / "model"), TeaCache(0.1, coefficients=RISING))


def calibrated(model: Path | str, prompts: Path, *options: object) -> Result:
    return teacache("calibrate", "--model", model, "--prompts", prompts, "--output", "teacache.json", *SMALL, *options)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("cat\ndog\ncat dog\n")
    return file


def test_a_calibration_can_be_used(wan_folder: Path, prompts: Path) -> None:
    done = calibrated(wan_folder, prompts, "--steps", 20, "--threshold", 0.3)
    assert done.exit_code == 0, done.output
    content = json.loads(Path("teacache.json").read_text())
    assert len(content["coefficients"]) == 5
    assert (content["prompts"], content["pairs"], content["steps"]) == (3, 2 * 3 * 19, 20)
    assert content["signal"] == "TIME_EMBEDDING"
    assert f"R² {content['r_squared']:.3f} over 114 pairs" in done.output
    assert Path("teacache.png").read_bytes().startswith(b"\x89PNG")
    assert not Path("teacache.json.measured.jsonl").exists()
    assert teacache("plan", "--model", wan_folder, "--coefficients", "teacache.json", "--steps", 20).exit_code == 0
    with VideoGenerator.from_pretrained(wan_folder) as generator:
        size: dict[str, Any] = {
            "height": 32,
            "width": 48,
            "num_frames": 9,
            "num_inference_steps": 20,
            "save_video": False,
        }
        receipt = generator.generate_video("cat", cache="TEACACHE@coefficients=teacache.json", **size).receipt
    assert receipt.cache is not None
    assert receipt.cache.settings["threshold"] == 0.3


def test_an_interrupted_calibration_goes_on(wan_folder: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generated: list[str] = []
    original = VideoGenerator.generate_video

    def stop_at_the_second(self: Any, prompt: str, **options: Any) -> Any:
        if len(generated) == 1:
            raise KeyboardInterrupt
        generated.append(prompt)
        return original(self, prompt, **options)

    monkeypatch.setattr(VideoGenerator, "generate_video", stop_at_the_second)
    assert calibrated(wan_folder, prompts, "--steps", 20).exit_code != 0
    assert not Path("teacache.json").exists()
    notes = Path("teacache.json.measured.jsonl")
    with notes.open("a") as file:
        file.write('{"prompt": "do')
    monkeypatch.setattr(VideoGenerator, "generate_video", original)
    other = calibrated(wan_folder, prompts, "--steps", 19)
    assert "holds what was measured with other settings" in other.output
    done = calibrated(wan_folder, prompts, "--steps", 20)
    assert done.exit_code == 0, done.output
    assert "[1/3]" not in done.output
    assert "[2/3] dog" in done.output


def test_too_little_data_is_no_fit(wan_folder: Path, prompts: Path) -> None:
    done = calibrated(wan_folder, prompts, "--steps", 5)
    assert "3 prompts of 5 steps give at most 24 pairs, a fit needs 100" in done.output
    assert not Path("teacache.json").exists()
    assert calibrated(wan_folder, prompts, "--steps", 5, "--signal", "noise").exit_code == 1
    rng = np.random.default_rng(0)
    few_arguments = [(x, x) for x in np.repeat(rng.random(9), 20)]
    with pytest.raises(InputError, match="180 pairs with 9 different changes"):
        fit(few_arguments, Signal.NONE, "", 1, 1)


def test_a_fit_finds_the_polynomial_that_it_was_given() -> None:
    rng = np.random.default_rng(0)
    arguments = rng.random(300)
    wanted = (1.0, -2.0, 0.5, 0.3, 0.1)
    exact = fit([(x, float(np.polyval(wanted, x))) for x in arguments], Signal.TIME_EMBEDDING, "m", 3, 50)
    assert exact.coefficients == pytest.approx(wanted)
    assert exact.r_squared == pytest.approx(1)
    noise = fit([(x, float(rng.random())) for x in arguments], Signal.TIME_EMBEDDING, "m", 3, 50)
    assert noise.r_squared is not None
    assert noise.r_squared < 0.1
    assert calibrate.LEAST_PAIRS <= 300


def test_changes_are_relative_to_what_was_before(wan_folder: Path) -> None:
    """The same pairs as from what enters and leaves the bare blocks, divided by the step before."""
    pipe, steps = build_wan_pipeline(), 4
    seen: dict[str, list[torch.Tensor]] = {"time": [], "entered": [], "left": []}
    hooks = [
        pipe.transformer.condition_embedder.time_embedder.register_forward_hook(
            lambda module, args, output: seen["time"].append(output.clone())
        ),
        pipe.transformer.blocks[0].register_forward_pre_hook(lambda module, args: seen["entered"].append(args[0])),
        pipe.transformer.blocks[-1].register_forward_hook(lambda module, args, output: seen["left"].append(output)),
    ]
    run(pipe, num_inference_steps=steps, guidance_scale=1.0)
    for hook in hooks:
        hook.remove()
    collector = calibrate.Collector(Signal.TIME_EMBEDDING)
    with attach(pipe, attention_backend="TORCH_SDPA", cache=collector):
        run(pipe, num_inference_steps=steps, guidance_scale=1.0)
    added = [left - entered for left, entered in zip(seen["left"], seen["entered"], strict=True)]
    expected = [
        tuple(float((now - before).abs().mean() / before.abs().mean()) for before, now in pair)
        for pair in zip(pairwise(seen["time"]), pairwise(added), strict=True)
    ]
    assert collector.pairs == [pytest.approx(pair, rel=1e-4) for pair in expected]


def test_shapes_has_coefficients_of_its_own() -> None:
    plans = preview_plan("shapes", TeaCache())
    letters = "".join(action.value[0] for action in plans[0][1])
    assert len(letters) == 20
    assert letters[0] == letters[-1] == "C"
    assert 4 <= letters.count("R") <= 14
