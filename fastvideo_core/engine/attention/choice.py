"""What attention was asked for, by argument or environment, and what that comes to for a model."""

from __future__ import annotations

from functools import partial

from fastvideo_core.contract.attention import AttentionBackend, Need, Role
from fastvideo_core.contract.settings import Config, Requested, given_settings
from fastvideo_core.discovery.environment import read_settings
from fastvideo_core.discovery.plugins import Plugins
from fastvideo_core.discovery.provided import checked_backend
from fastvideo_core.engine.asked import asked_backend
from fastvideo_core.engine.attention.answers import ask
from fastvideo_core.engine.attention.resolve import Resolution, find_backend, resolve


def choose_attention(
    plugins: Plugins, argument: str | AttentionBackend | None, needs: list[Need], config: Config
) -> tuple[str | None, dict[Role, Resolution]]:
    """The backend that was asked for, by argument or environment, with its settings; and what serves each need.

    Args:
        argument: NAME, NAME@VALUE, NAME@VALUE:SETTING=VALUE…, NAME@SETTING=VALUE…, or an object.

    Raises:
        BackendError, PluginError: as `resolve` does.
        InputError: settings were given and no backend was asked for, or it does not have or take them, or one of them
            was given twice.
    """
    if isinstance(argument, AttentionBackend):
        plugins, argument = plugins.with_backend(checked_backend(argument), "an object"), argument.name
    asked = asked_backend(argument)
    requested = asked.with_config(config, "attention_config")
    origin = asked.origin if asked.name else "automatic"
    prepare = partial(_prepare, requested=requested)
    return asked.name, resolve(plugins, asked.name, origin, needs, read_settings().attention_fallback, prepare)


def check_backend_name(plugins: Plugins, argument: str | None, config: Config = None) -> None:
    """Refuse a backend that is unknown, and settings that it does not have, by argument or environment.

    Nothing is asked of its kernel, which may be for another machine.

    Raises:
        UnknownBackendError: no plugin provides it, or the fallback that the environment names.
        DuplicateProviderError: two plugins provide it.
        InputError: as `choose_attention`, but for the values of settings, which are not read.
    """
    asked = asked_backend(argument)
    requested = asked.with_config(config, "attention_config")
    if asked.name is None:
        return
    backend, _ = find_backend(plugins, asked.name, asked.origin)
    ask("settings", lambda: given_settings(backend, requested), dict)
    if fallback := read_settings().attention_fallback:
        find_backend(plugins, fallback, "FASTVIDEO_ATTENTION_FALLBACK")


def _prepare(backend: AttentionBackend, requested: Requested) -> None:
    backend.take_settings(requested=requested)
