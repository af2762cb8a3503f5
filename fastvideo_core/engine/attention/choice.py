"""What was asked for, by argument or environment, and what that comes to for a model."""

from __future__ import annotations

from fastvideo_core.contract.attention import AttentionBackend, Need, Role
from fastvideo_core.contract.settings import Config, GivenValue
from fastvideo_core.discovery.environment import normalize_backend_name, read_settings
from fastvideo_core.discovery.plugins import Plugins
from fastvideo_core.engine.attention.resolve import Resolution, resolve
from fastvideo_core.errors import InputError


def choose_attention(
    plugins: Plugins, argument: str | AttentionBackend | None, needs: list[Need], config: Config
) -> tuple[str | None, dict[Role, Resolution]]:
    """The backend that was asked for, by argument or environment, with its settings; and what serves each need.

    Raises:
        BackendError, PluginError: as `resolve` does.
        InputError: settings were given and no backend was asked for, or it does not have or take them.
    """
    if isinstance(argument, AttentionBackend):
        plugins, argument = plugins.with_backend(argument, "an object"), argument.name
    requested, origin = requested_backend(argument)
    file = file_of_environment()
    if requested is None and (config or file):
        given = config or (file and file.value)
        raise InputError(
            f"the configuration {str(given)!r} is for an attention backend, and none was asked for: set "
            "attention_backend= or FASTVIDEO_ATTENTION_BACKEND"
        )
    return requested, resolve(
        plugins,
        requested,
        origin,
        needs,
        read_settings().attention_fallback,
        lambda backend: backend.take_settings(config, file),
    )


def file_of_environment() -> GivenValue | None:
    """The file that FASTVIDEO_ATTENTION_CONFIG names."""
    path = read_settings().attention_config
    return GivenValue(path, "FASTVIDEO_ATTENTION_CONFIG") if path else None


def requested_backend(argument: str | None) -> tuple[str | None, str]:
    """The backend that was asked for and by what: the argument, then the environment, then nothing."""
    if argument is not None and not isinstance(argument, str):
        raise InputError(f"attention_backend= takes a backend's name or object, not {argument!r}")
    if name := normalize_backend_name(argument):
        return name, "attention_backend="
    if name := read_settings().attention_backend:
        return name, "FASTVIDEO_ATTENTION_BACKEND"
    return None, "automatic"
