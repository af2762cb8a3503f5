"""What was asked for, by argument or environment, and what that comes to for a model."""

from __future__ import annotations

from pathlib import Path

from fastvideo_core.attention.backend import Need, Role
from fastvideo_core.attention.resolve import Resolution, resolve
from fastvideo_core.errors import InputError
from fastvideo_core.plugins import Plugins
from fastvideo_core.settings import normalize_backend_name, read_settings


def settle(plugins: Plugins, argument: str | None, needs: list[Need]) -> tuple[str | None, dict[Role, Resolution]]:
    """The backend that was asked for, by argument or environment, and what serves each need."""
    requested, origin = requested_backend(argument)
    return requested, resolve(plugins, requested, origin, needs, read_settings().attention_fallback)


def configure(resolutions: dict[Role, Resolution], requested: str | None, argument: str | Path | None) -> None:
    """Give the file that argument or environment name to the backend that was asked for.

    Raises:
        InputError: no backend was asked for, or the one that was cannot use the file.
    """
    path = Path(argument).expanduser() if argument else read_settings().attention_config
    if path is None:
        return
    if requested is None:
        raise InputError(
            f"the configuration file {str(path)!r} is for an attention backend, and none was asked for: set "
            "attention_backend= or FASTVIDEO_ATTENTION_BACKEND"
        )
    for backend in {id(r.backend): r.backend for r in resolutions.values() if r.backend.name == requested}.values():
        backend.configure(path)


def requested_backend(argument: str | None) -> tuple[str | None, str]:
    """The backend that was asked for and by what: the argument, then the environment, then nothing."""
    if name := normalize_backend_name(argument):
        return name, "attention_backend="
    if name := read_settings().attention_backend:
        return name, "FASTVIDEO_ATTENTION_BACKEND"
    return None, "automatic"
