"""What could be chosen for a model, on this machine: what runs, fits and serves it; on any: what there is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from fastvideo_core.app.loading import check_dtype
from fastvideo_core.app.model_info import ModelInfo, read_model
from fastvideo_core.app.offered import Choices
from fastvideo_core.app.quantization import check_quantization_name
from fastvideo_core.contract.attention import Need
from fastvideo_core.contract.settings import Config, file_settings
from fastvideo_core.discovery.plugins import Plugins, load_plugins
from fastvideo_core.engine.attention.choice import check_backend_name, choose_attention
from fastvideo_core.engine.caching.choice import check_policy, choose_policy, prepared_policy
from fastvideo_core.errors import FastVideoError


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


def check_names(
    model_path: str | Path,
    *,
    attention_backend: str | None = None,
    attention_config: Config = None,
    cache: str | None = None,
    cache_config: Config = None,
    quantization: str | None = None,
    dtype: str | None = None,
) -> None:
    """Refuse what no machine can do, before others are asked to make videos; what is None the environment may name.

    The model, the names, and the settings of backend and policy. Whether a backend or a quantization can run is known
    on the machine where it is to run, and whether a policy serves the model may depend on a video's parameters; the one
    that the environment names must serve it as it is.

    Args:
        model_path: a preset's name, a local folder or a hub id. The others are those of `VideoGenerator`.

    Raises:
        ModelError, BackendError, CacheError, InputError: as `VideoGenerator` would.
    """
    plugins = load_plugins()
    info = read_model(plugins, model_path)
    check_backend_name(plugins, attention_backend, attention_config)
    check_policy(plugins, None, info.cached_model)
    choose_policy(plugins, cache, cache_config)
    check_quantization_name(quantization)
    check_dtype(dtype, "cpu")
