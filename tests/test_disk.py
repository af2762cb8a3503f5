"""A disk that fills up, folders that cannot be written to: a clear error, and nothing that is half there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fastvideo_core import SamplingParam, VideoGenerator
from fastvideo_core.app.files import JsonLines, written_whole
from fastvideo_core.cli import fv
from fastvideo_core.errors import OutputError

resource = pytest.importorskip("resource", reason="the system has no limit on the size of files")

PARAMS = SamplingParam(height=32, width=48, num_frames=5, num_inference_steps=2)
SHORT = ("--height", "32", "--width", "48", "--frames", "5", "--steps", "2")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Files beyond so many bytes fail, as they do on a full disk: the system's own error, wherever it comes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(fv, list(arguments))


@pytest.fixture(scope="module")
def generator(wan_folder: Path) -> Iterator[VideoGenerator]:
    with VideoGenerator.from_pretrained(wan_folder, device="cpu") as shared:
        yield shared


@pytest.fixture(scope="module")
def sizes(generator: VideoGenerator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How large the files of a video are, per suffix."""
    folder = tmp_path_factory.mktemp("whole")
    generator.generate_video("a cat", PARAMS, output_path=folder, sheet=True)
    return {path.suffix: path.stat().st_size for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", [".mp4", ".json", ".png"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_disk_that_fills_up(
    generator: VideoGenerator, sizes: dict[str, int], suffix: str, share: float, tmp_path: Path
) -> None:
    room = int(sizes[suffix] * share)
    with room_for(room), pytest.raises(OutputError, match="nothing was kept") as no:
        generator.generate_video("a cat", PARAMS, output_path=tmp_path, sheet=True)
    assert not list(tmp_path.iterdir())
    assert no.value.result is not None
    again = generator.generate_video("a cat", PARAMS, output_path=tmp_path, sheet=True)
    assert np.array_equal(no.value.result.frames, again.frames), "the video itself is not lost"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".mp4", ".png"]


@pytest.mark.skipif(sys.platform != "linux", reason="only there is a folder that root cannot write to")
def test_a_folder_that_cannot_be_written_to_is_refused_before_any_weight_is_loaded(
    wan_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", lambda *args, **more: pytest.fail("loaded"))
    for output in ("/proc/self", "/proc/self/video.mp4", "/proc/videos"):
        done = invoke("generate", "cat", "--model", str(wan_folder), *SHORT, "--output", output)
        assert done.exit_code == 1
        assert "no file can be written to '/proc/" in done.output
        assert "choose another output_path" in done.output


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(wan_folder: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = invoke("generate", "cat", "--model", str(wan_folder), *SHORT, "--output", str(tmp_path))
    assert "Permission denied; choose another output_path" in done.output


def test_a_new_plugin_is_whole_or_not_there(tmp_path: Path) -> None:
    with room_for(300):
        done = invoke("plugins", "new", "fv-mykernel")
    assert done.exit_code == 1
    assert "'fv-mykernel' cannot be written" in done.output
    assert not list(tmp_path.iterdir())
    done = invoke("plugins", "new", "fv-mykernel", "--into", "/proc/self")
    assert "'/proc/self/fv-mykernel' cannot be made" in done.output


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "windows.json"
    path.write_text("before")
    message = r"windows.json' cannot be written: File too large; free some space, or choose another place"
    with room_for(10), pytest.raises(OutputError, match=message), written_whole(path, overwrite=True) as file:
        file.write_text("x" * 100)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("windows.json", "before")]


def test_lines_are_whole_or_not_there(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "measured.jsonl")
    assert lines.read() == []
    lines.append({"prompt": "café"})
    with room_for(40), pytest.raises(OutputError, match=r"measured.jsonl' cannot be written"):
        lines.append({"prompt": "x" * 100})
    assert lines.read() == [{"prompt": "café"}]
    lines.path.write_bytes(lines.path.read_bytes() + '{"prompt": "é'.encode()[:-1])
    assert lines.read() == [{"prompt": "café"}], "a line that was cut off, in the middle of a letter"
    lines.append(["one line\u2028for JSON\x0b"])
    assert lines.read() == [{"prompt": "café"}, ["one line\u2028for JSON\x0b"]]
    assert lines.path.read_bytes().count(b"\n") == 2
