"""Every environment variable that the core reads, in one place; plugins read their own."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvideo_core.discovery.home import expanded
from fastvideo_core.errors import InputError

VARIABLES: dict[str, str] = {
    "FASTVIDEO_API_KEY": "What clients of `fv serve` must send; unset or empty: it serves this machine alone.",
    "FASTVIDEO_ATTENTION_BACKEND": "Attention backend, for example SAGE_ATTN or NAME@VALUE; unset or empty: automatic.",
    "FASTVIDEO_ATTENTION_CONFIG": "A file for the chosen backend, such as windows for SLIDING_TILE_ATTN.",
    "FASTVIDEO_ATTENTION_FALLBACK": "Backend to use where the chosen one cannot run; unset or empty: that is an error.",
    "FASTVIDEO_CACHE_POLICY": "Caching policy, for example TEACACHE or TEACACHE@0.08; unset, empty or none: none.",
    "FASTVIDEO_DISABLE_PLUGINS": "Plugins to leave out: distribution or plugin names, separated by commas; * for all.",
    "FASTVIDEO_HUB_KERNELS": "1: kernels may be fetched from the hub, and run; else only those in the cache are used.",
    "FASTVIDEO_PARALLEL_TIMEOUT": "Seconds that a process waits for the others of its run; unset or empty: 600.",
    "FASTVIDEO_PLUGIN_TIMEOUT": "Seconds that a plugin may take to import; unset or empty: 30.",
}

SECRETS = frozenset({"FASTVIDEO_API_KEY"})
"""Those whose values are shown to nobody."""

DEFAULT_PLUGIN_TIMEOUT = 30.0
DEFAULT_PARALLEL_TIMEOUT = 600.0
LONGEST_TIMEOUT = 86400.0


@dataclass(frozen=True)
class Settings:
    """What the environment asks for."""

    attention_backend: str | None
    attention_config: Path | None
    attention_fallback: str | None
    cache_policy: str | None
    disabled_plugins: frozenset[str]
    plugin_timeout: float
    parallel_timeout: float = DEFAULT_PARALLEL_TIMEOUT


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environment` (default: the process's), now.

    Raises:
        InputError: a value means nothing.
    """
    environment = os.environ if environment is None else environment
    config = environment.get("FASTVIDEO_ATTENTION_CONFIG", "").strip()
    disabled = environment.get("FASTVIDEO_DISABLE_PLUGINS", "").split(",")
    return Settings(
        attention_backend=normalize_asked(environment.get("FASTVIDEO_ATTENTION_BACKEND", "")),
        attention_config=expanded(config) if config else None,
        attention_fallback=normalize_backend_name(environment.get("FASTVIDEO_ATTENTION_FALLBACK")),
        cache_policy=environment.get("FASTVIDEO_CACHE_POLICY", "").strip() or None,
        disabled_plugins=frozenset(normalize_plugin_name(name) for name in disabled if name.strip()),
        plugin_timeout=_seconds("FASTVIDEO_PLUGIN_TIMEOUT", environment, DEFAULT_PLUGIN_TIMEOUT),
        parallel_timeout=_seconds("FASTVIDEO_PARALLEL_TIMEOUT", environment, DEFAULT_PARALLEL_TIMEOUT),
    )


def _seconds(name: str, environment: Mapping[str, str], default: float) -> float:
    text = environment.get(name, "").strip()
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise InputError(f"{name} is {text!r}, it must be a number of seconds above 0, at most {LONGEST_TIMEOUT:g}")
    return seconds


def normalize_backend_name(name: str | None) -> str | None:
    """Upper-case with underscores; None for nothing but spaces."""
    return (name or "").strip().upper().replace("-", "_") or None


def normalize_asked(text: str) -> str | None:
    """NAME@VALUE with its name normalised; the value is text of its own."""
    name, at, value = text.strip().partition("@")
    return f"{normalize_backend_name(name) or ''}{at}{value}" or None


def normalize_plugin_name(name: str) -> str:
    """Lower-case with dashes, as package indexes spell distributions."""
    return name.strip().lower().replace("_", "-").replace(".", "-")
