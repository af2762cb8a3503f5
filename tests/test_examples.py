"""The examples run as they stand, here with few steps of small videos."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.support.small import make_small

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def load(name: str) -> Any:
    """The example's `main`, and its globals."""
    loaded = runpy.run_path(str(EXAMPLES / name))
    return loaded["main"], loaded["main"].__globals__


def test_teacache(capsys: pytest.CaptureFixture[str]) -> None:
    main, names = load("teacache.py")
    names["STEPS"] = 6
    main(2.0)
    printed = capsys.readouterr().out
    assert re.search(r"without +[\d.]+ s, 0 forward passes skipped, outputs/.*\.mp4", printed)
    assert re.search(r"with TeaCache +[\d.]+ s, [1-9]\d* forward passes skipped, outputs/.*_1\.mp4", printed)
    assert re.search(r"speed-up of denoising: \d+\.\d\d", printed)


def test_attention_backend(capsys: pytest.CaptureFixture[str]) -> None:
    main, names = load("attention_backend.py")
    names["STEPS"] = 2
    main("torch-sdpa")
    printed = capsys.readouterr().out
    assert printed.count("SELF TORCH_SDPA") == 2
    assert re.search(r"speed-up of denoising: \d+\.\d\d", printed)


@pytest.mark.usefixtures("quick_start")
def test_parallel(capsys: pytest.CaptureFixture[str]) -> None:
    main, names = load("parallel.py")
    names["SIZE"] = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 2}
    receipt = names["with_own_processes"](2)
    assert receipt.parallel.guidance == 2
    names["with_own_processes"] = lambda number: receipt
    main()
    printed = capsys.readouterr().out
    assert "2 processes: guidance 2 x sequence 1" in printed
    assert re.search(r"process 1 on cpu: calls {'SELF': 21, 'CROSS': 21}, [\d.]+ MiB sent", printed)
