"""File names: made of the prompt, free, and given only to whole files."""

from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastvideo_core.app import output
from fastvideo_core.app.files import written_whole
from fastvideo_core.app.unfinished import unfinished


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


def test_a_contact_sheet_is_as_large_as_its_frames_with_gaps_between() -> None:
    greys = np.linspace(0, 1, 23, dtype=np.float32)
    frames = np.broadcast_to(greys[:, None, None, None], (23, 6, 10, 3))
    sheet = np.asarray(Image.open(io.BytesIO(output.contact_sheet(frames[:5]))))
    assert sheet.shape == (6 + 4 + 6, 4 * 10 + 3 * 4, 3)
    assert sheet[15, 9, 0] == round(float(greys[4]) * 255)
    assert (sheet[10:, 10:] == 255).all()
    sheet = np.asarray(Image.open(io.BytesIO(output.contact_sheet(frames))))
    shown = [int(sheet[row * 10, column * 14, 0]) for row in range(3) for column in range(4)]
    assert shown == [round(float(greys[number]) * 255) for number in range(0, 23, 2)]


def test_brightness_is_rounded_to_the_nearest_of_256() -> None:
    assert output.to_bytes(np.array([-1, 0, 0.498, 0.5019, 0.999, 1, 2], np.float32)).tolist() == [
        0,
        0,
        127,
        128,
        255,
        255,
        255,
    ]


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


HOLD = """
import sys, time
from pathlib import Path
from fastvideo_core.app.unfinished import unfinished
with unfinished(Path(sys.argv[1]), ".mp4") as file:
    file.write_text("half a video")
    print(file.name, flush=True)
    time.sleep(600)
"""


def test_what_another_process_is_writing_stays_until_it_is_killed(tmp_path: Path) -> None:
    mine = tmp_path / ".partial-012345678-mine.txt"
    mine.write_text("no file of this program")
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            name = writer.stdout.readline().strip()
            output.prepare_folder(tmp_path)
            assert {path.name for path in tmp_path.iterdir()} == {name, mine.name}
        finally:
            writer.kill()
    assert (tmp_path / name).read_text() == "half a video"
    output.prepare_folder(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]


def test_what_this_process_is_writing_stays(tmp_path: Path) -> None:
    with unfinished(tmp_path, ".mp4") as file:
        file.write_text("half a video")
        output.prepare_folder(tmp_path)
        assert file.read_text() == "half a video"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_where_a_file_system_has_no_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with unfinished(tmp_path, ".mp4") as file:
        output.prepare_folder(tmp_path)
        assert file.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_a_file_that_is_taken_for_a_leftover_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    lock = fcntl.flock
    taken: list[Path] = []

    def flock(descriptor: int, operation: int) -> None:
        if not taken:
            (file,) = tmp_path.iterdir()
            taken.append(file)
            file.unlink()
        lock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", flock)
    with unfinished(tmp_path, ".mp4") as file:
        assert file.exists()
        assert taken != [file]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights of their own")
def test_a_link_with_the_name_of_an_unfinished_file_is_neither_followed_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, victim = tmp_path / "videos", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("precious")
    link = folder / ".partial-0123456789abcdef.mp4"
    link.symlink_to(victim)
    output.prepare_folder(folder)
    assert link.is_symlink()
    monkeypatch.setattr("secrets.token_hex", lambda size: "0123456789abcdef")
    with pytest.raises(FileExistsError), unfinished(folder, ".mp4") as file:
        file.write_text("a video")
    assert (victim.read_text(), list(folder.iterdir())) == ("precious", [link])


@pytest.mark.skipif(sys.platform == "win32", reason="there are no permissions of this kind")
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        names = output.save(tmp_path, "cat", {".json": b"{}", ".mp4": b"video"})
        with written_whole(tmp_path / "notes.txt") as file:
            file.write_text("notes")
    finally:
        os.umask(before)
    for path in (*names.values(), tmp_path / "notes.txt"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_content_is_on_the_disk_before_it_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        named = ",".join(sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")))
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.pread(descriptor, 9, 0).decode()
        seen.append((kind, named))
        sync(descriptor)

    monkeypatch.setattr("os.fsync", watched)
    output.save(tmp_path, "cat", {".json": b"{}", ".mp4": b"video"})
    assert seen == [("{}", ""), ("video", ""), ("folder", "cat.json,cat.mp4")]
    seen.clear()
    with written_whole(tmp_path / "notes.txt") as file:
        file.write_text("notes")
    assert seen == [("notes", "cat.json,cat.mp4"), ("folder", "cat.json,cat.mp4,notes.txt")]


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".notes.txt.part").symlink_to(victim)
    with written_whole(tmp_path / "notes.txt") as file:
        file.write_text("notes")
    assert victim.read_text() == "precious"
    assert (tmp_path / "notes.txt").read_text() == "notes"
    assert (tmp_path / ".notes.txt.part").is_symlink()
