"""Paths that begin with "~"."""

from __future__ import annotations

import os.path
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """With the home folder in place of "~" or "~user"; as it is if there is no such user, so that it is not found."""
    return Path(os.path.expanduser(path))
