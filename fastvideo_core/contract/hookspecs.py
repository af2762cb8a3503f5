"""The contract with plugins: the hooks that a module named by an entry point of group `fastvideo` may implement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from fastvideo_core.contract.attention import AttentionBackend
    from fastvideo_core.contract.caching import CachePolicy
    from fastvideo_core.contract.executor import Executor
    from fastvideo_core.contract.model import ModelFamily
    from fastvideo_core.contract.observing import Generation
    from fastvideo_core.contract.preset import ModelPreset
    from fastvideo_core.contract.receipt import Receipt

PROJECT = "fastvideo"

API_VERSION = 2
"""The version of this contract; a plugin's module states the one it was written for as `api_version`."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def fastvideo_attention_backends() -> list[AttentionBackend]:  # type: ignore[empty-body]  # a spec has no body
    """Return the attention backends that the plugin provides, new objects; must import neither torch nor a kernel."""


@hookspec
def fastvideo_cache_policies() -> list[type[CachePolicy]]:  # type: ignore[empty-body]  # a spec has no body
    """Return the classes of the caching policies that the plugin provides; must not import torch."""


@hookspec
def fastvideo_model_families() -> list[ModelFamily]:  # type: ignore[empty-body]  # a spec has no body
    """Return the model families that the plugin describes; must not import torch."""


@hookspec
def fastvideo_model_presets() -> list[ModelPreset]:  # type: ignore[empty-body]  # a spec has no body
    """Return models that can be named by a short name, with their sampling defaults."""


@hookspec
def fastvideo_executors() -> list[type[Executor]]:  # type: ignore[empty-body]  # a spec has no body
    """Return the classes of executors, which start the processes of a generator on several GPUs."""


@hookspec
def fastvideo_register_commands(cli: click.Group) -> None:
    """Add subcommands to `fv`."""


@hookspec
def fastvideo_generation_started(generation: Generation) -> None:
    """A denoising loop is about to start."""


@hookspec
def fastvideo_step_done(generation: Generation) -> None:
    """A denoising step is done."""


@hookspec
def fastvideo_generation_finished(generation: Generation, receipt: Receipt) -> None:
    """A video is finished, and written if it was to be; under `attach`, its denoising loop is."""


@hookspec
def fastvideo_generation_failed(generation: Generation, error: BaseException) -> None:
    """A generation that had started ended with an error, KeyboardInterrupt included; which goes on its way."""
