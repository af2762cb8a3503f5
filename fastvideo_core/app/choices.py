"""What could be chosen for a model on this machine: the backends that run and fit, the policies that serve it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.contract.attention import Need
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
    """

    attention_backends: tuple[str, ...]
    cache_policies: tuple[str, ...]


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
    return Choices(tuple(backends), tuple(policies))


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
