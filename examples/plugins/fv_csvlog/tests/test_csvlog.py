import csv
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core import attach
from fastvideo_core.testing import latents, small_pipeline


def test_a_line_for_each_video_and_each_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "videos.csv"
    pipe = small_pipeline()
    with attach(pipe):
        latents(pipe, num_steps=2)
        monkeypatch.setenv("FV_CSVLOG", str(file))
        latents(pipe, num_steps=2)
        with pytest.raises(RuntimeError):
            latents(pipe, num_steps=3, callback_on_step_end=_stop)
    finished, failed = csv.DictReader(file.read_text().splitlines())
    assert (finished["model"], finished["steps"], finished["error"]) == ("WanPipeline", "2", "")
    assert float(finished["seconds"]) > 0
    assert (failed["steps"], failed["error"]) == ("1", "RuntimeError: no more")


def _stop(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
    if step == 1:
        raise RuntimeError("no more")
    return {}
