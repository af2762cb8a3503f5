"""File names: made of the prompt, free, and given only to whole files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastvideo_core.app import output


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red circle, moving left.", "a-red-circle-moving-left"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\con\0.txt", "c-con-txt"),
        ("🦊🦊", "video"),
        ("ein Kreis für Ä", "ein-kreis-fr"),
        ("x" * 10_000, "x" * 60),
    ],
)
def test_names_are_safe(prompt: str, name: str) -> None:
    assert output.name_for(prompt) == name


def test_nothing_is_overwritten_and_the_files_of_a_video_share_a_stem(tmp_path: Path) -> None:
    (tmp_path / "cat.mp4").write_text("mine")
    (tmp_path / "cat_1.json").write_text("mine too")
    names = output.save(tmp_path, "cat", {".json": b"{}", ".mp4": b"video"})
    assert {suffix: path.name for suffix, path in names.items()} == {".json": "cat_2.json", ".mp4": "cat_2.mp4"}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "cat.mp4": "mine",
        "cat_1.json": "mine too",
        "cat_2.json": "{}",
        "cat_2.mp4": "video",
    }


def test_a_path_may_name_the_file(tmp_path: Path) -> None:
    assert output.prepare_folder(tmp_path / "deep" / "Film.MP4") == (tmp_path / "deep", "Film")
    assert output.prepare_folder(tmp_path / "v1.0") == (tmp_path / "v1.0", None)
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*names: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    for _ in range(2):
        output.save(tmp_path, "cat", {".json": b"{}", ".mp4": b"video"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat.json", "cat.mp4", "cat_1.json", "cat_1.mp4"]


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left, foreign = tmp_path / f".partial-{ended.stdout.strip()}-a.mp4", tmp_path / ".partial-me"
    own = tmp_path / f".partial-{os.getpid()}-b.mp4"
    for path in (left, own, foreign):
        path.write_text("half a video")
    output.prepare_folder(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([own.name, foreign.name])
