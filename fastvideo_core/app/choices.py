"""What could be chosen for a model on this machine: the backends that run and fit, the policies that serve it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.contract.attention import Need
from fastvideo_core.contract.settings import file_settings
from fastvideo_core.discovery.plugins import Plugins
from fastvideo_core.engine.attention.choice import choose_attention
from fastvideo_core.engine.caching.choice import choose_policy, prepared_policy
from fastvideo_core.errors import FastVideoError


@dataclass(frozen=True)
class Choices:
    """Names, in alphabetical order.

    Attributes:
        attention_backends: those that run here and fit the model.
        cache_policies: those that serve the model with their default settings.
        file_settings: by those names, the settings whose values may name files; "" is the value in NAME@VALUE.
    """

    attention_backends: tuple[str, ...]
    cache_policies: tuple[str, ...]
    file_settings: Mapping[str, frozenset[str]] = field(default_factory=dict)


def choices_for(plugins: Plugins, info: ModelInfo, needs: list[Need]) -> Choices:
    """What the loaded plugins offer for a model; each is asked, none is loaded."""
    backends, policies = [], []
    for name in sorted(plugins.backend_names()):
        with suppress(FastVideoError):
            served = choose_attention(plugins, name, needs, None)[1].values()
            if any(one.backend.name == name for one in served):
                backends.append(name)
    for name in sorted(plugins.policy_names()):
        with suppress(FastVideoError):
            prepared_policy(choose_policy(plugins, name), info.cached_model)
            policies.append(name)
    owners = {name: plugins.backend(name)[0] for name in backends} | {
        name: plugins.policy(name)[0] for name in policies
    }
    files = {name: found for name, owner in owners.items() if (found := file_settings(owner))}
    return Choices(tuple(backends), tuple(policies), files)


def check_choices(
    plugins: Plugins, info: ModelInfo, needs: list[Need], attention_backend: str | None, cache: str | None
) -> None:
    """Refuse a backend or a policy, each with its settings, that a video could not be made with; None is not checked.

    Raises:
        BackendError, CacheError, InputError: as `VideoGenerator` would.
    """
    if attention_backend is not None:
        choose_attention(plugins, attention_backend, needs, None)
    if cache is not None:
        prepared_policy(choose_policy(plugins, cache), info.cached_model)
