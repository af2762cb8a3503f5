"""`fv serve` as a process: killed at random moments, and in the end stopped as users stop it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from serve_killed import kill_again_and_again

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal"),
]


def test_no_video_is_lost_or_made_twice_when_the_server_is_killed(wan_folder: Path, tmp_path: Path) -> None:
    counts = kill_again_and_again(str(wan_folder), tmp_path / "served", kills=2, each=4, seed=1)
    assert counts["accepted"] >= 4
