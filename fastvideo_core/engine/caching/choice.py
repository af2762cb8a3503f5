"""Which caching policy was asked for, by argument or environment, and with what settings."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fastvideo_core.contract.caching import CachedModel, CachePolicy
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.contract.settings import check_setting
from fastvideo_core.discovery.environment import normalize_backend_name, read_settings
from fastvideo_core.discovery.plugins import Plugin, Plugins
from fastvideo_core.discovery.unknown_name import unknown_name
from fastvideo_core.engine.caching.gated_pass import always_run
from fastvideo_core.errors import InputError, PolicyMismatchError, UnknownPolicyError

Policy = TypeVar("Policy", bound=CachePolicy)

FIRST_PARTY = {"TEACACHE": "fv-teacache"}
"""Policies of this project and the package that brings each."""

NONE = "NONE"


@dataclass(frozen=True)
class ChosenPolicy:
    """A policy, the distribution that it came from, and what asked for it."""

    policy: CachePolicy
    distribution: str
    origin: str


def choose_policy(
    plugins: Plugins,
    argument: str | CachePolicy | None,
    config: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> ChosenPolicy | None:
    """The policy that was asked for: by the argument, then the environment, else none.

    Args:
        argument: NAME, NAME@VALUE, NAME@VALUE:SETTING=VALUE…, NAME@SETTING=VALUE…, "none", or a policy object.
        config: settings by name, beside those in the text.
        defaults: per policy name, settings that count where neither gives them.

    Raises:
        UnknownPolicyError: no plugin provides it.
        InputError: a setting that it does not have, a value that it does not take, a setting given twice, or settings
            without a policy that they are for.
        DuplicateProviderError: two plugins provide it.
    """
    config = config or {}
    if isinstance(argument, CachePolicy):
        _refuse(config, f"cache= is an object, which has its settings already: {argument!r}")
        return ChosenPolicy(argument, "an object", "cache=")
    if argument is not None and not isinstance(argument, str):
        raise InputError(f"cache= takes a policy's name or object, not {argument!r}")
    asked, origin = (argument, "cache=") if argument else (read_settings().cache_policy, "FASTVIDEO_CACHE_POLICY")
    name, values = split(asked or NONE, origin)
    if name == NONE:
        _refuse(config, "no caching policy was asked for: set cache= or FASTVIDEO_CACHE_POLICY")
        return None
    kind, plugin = find_policy(plugins, name, origin)
    values = _named(kind, values, asked or "", origin)
    for key in values.keys() & config.keys():
        raise InputError(f"the setting {key!r} of {name} is given twice: in {asked!r} (from {origin}) and by its name")
    given = {**(defaults or {}).get(name, {}), **values, **config}
    return ChosenPolicy(make_policy(kind, given, f"{asked!r} (from {origin})"), plugin.label, f"requested by {origin}")


def requested_policy(argument: str | None) -> str | None:
    """The name of the policy that was asked for, by the argument, then the environment; None for none."""
    name = split(argument or read_settings().cache_policy or NONE, "cache=")[0]
    return None if name == NONE else name


def _refuse(config: Mapping[str, Any], problem: str) -> None:
    if config:
        raise InputError(f"cache_config gives {', '.join(config)}, but {problem}")


def split(asked: str, origin: str) -> tuple[str, dict[str, Any]]:
    """NAME@VALUE:SETTING=VALUE as the name and its settings; the value without a name has the key ""."""
    name, at, rest = asked.strip().partition("@")
    values: dict[str, Any] = {}
    for part in rest.split(":") if at else []:
        key, equals, value = part.partition("=")
        key, value = (key, value) if equals else ("", part)
        if not value.strip() or key.strip() in values:
            raise InputError(
                f"{asked!r} (from {origin}) is no caching policy; write NAME, NAME@VALUE or NAME@VALUE:SETTING=VALUE, "
                "such as TEACACHE@0.08"
            )
        values[key.strip()] = read_value(value.strip())
    return normalize_backend_name(name) or "", values


def read_value(text: str) -> Any:
    """Numbers, true, false and lists as JSON has them; anything else is text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _named(kind: type[CachePolicy], values: dict[str, Any], asked: str, origin: str) -> dict[str, Any]:
    """The settings, with the value that has no name under the policy's main one."""
    if "" not in values:
        return values
    if kind.main_setting is None:
        raise InputError(f"{asked!r} (from {origin}) gives a value, but {kind.name} has no main setting to give it to")
    return {kind.main_setting: values[""], **{key: value for key, value in values.items() if key}}


def make_policy(kind: type[CachePolicy], settings: dict[str, Any], what: str) -> CachePolicy:
    """A policy with these settings.

    Raises:
        InputError: it has no such setting, or does not take the value.
    """
    for name in settings:
        check_setting(kind.name, name, defaults_of(kind), what)
    return kind(**settings)


def defaults_of(kind: type[CachePolicy]) -> dict[str, Any]:
    """What can be set on a policy, and what it is if it is not."""
    return {name: one.default for name, one in inspect.signature(kind).parameters.items() if name != "self"}


def find_policy(plugins: Plugins, name: str, origin: str) -> tuple[type[CachePolicy], Plugin]:
    """The installed policy of that name, or an error that says what is installed and what to do."""
    try:
        return plugins.policy(name)
    except KeyError:
        message, cause = unknown_name(plugins, "caching policy", name, origin, plugins.policy_names(), FIRST_PARTY)
        raise UnknownPolicyError(message) from cause


def model_of(family: ModelFamily, name: str, pipeline: str) -> CachedModel:
    """What a policy is told of a model; its name may be a local folder."""
    folder = Path(name).expanduser()
    return CachedModel(
        name,
        family.name,
        pipeline,
        folder if folder.is_dir() else None,
        family.all_signals,
        frozenset(family.time_signals),
    )


def check_policy(
    plugins: Plugins,
    argument: str | CachePolicy | None,
    model: CachedModel,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a policy, asked for by argument or environment, that is unknown or cannot serve a model."""
    if chosen := choose_policy(plugins, argument, config):
        prepare_policy(chosen.policy, model)


def prepare_policy(policy: Policy, model: CachedModel) -> Policy:
    """The policy, made ready for a model.

    Raises:
        PolicyMismatchError: the model's family does not have the policy's signal, the model has too few blocks, or the
            policy refuses it.
    """
    prepared = policy.for_model(model)
    first, last = always_run(prepared)
    if model.num_blocks is not None and first + last >= model.num_blocks:
        raise PolicyMismatchError(
            f"{policy.name} always computes the first {first} and the last {last} blocks, and {model.name} has "
            f"{model.num_blocks}: there is nothing left to skip; give fewer"
        )
    if prepared.signal not in model.signals:
        raise PolicyMismatchError(
            f"{policy.name} looks at {prepared.signal}, which {model.family} models do not have; they have "
            f"{', '.join(sorted(model.signals))}"
        )
    return prepared


def prepared_policy(chosen: ChosenPolicy | None, model: CachedModel) -> ChosenPolicy | None:
    """The chosen policy, made ready for a model; raises as `prepare_policy` does."""
    return replace(chosen, policy=prepare_policy(chosen.policy, model)) if chosen else None
