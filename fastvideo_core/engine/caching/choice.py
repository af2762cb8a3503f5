"""Which caching policy was asked for, by argument or environment, and with what settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastvideo_core.contract.caching import CachedModel, CachePolicy, Signal
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.contract.reading import GivenValue, shown
from fastvideo_core.contract.settings import Config, named_values
from fastvideo_core.discovery.home import expanded
from fastvideo_core.discovery.plugins import Plugin, Plugins
from fastvideo_core.discovery.printable import explain
from fastvideo_core.discovery.provided import checked_policy
from fastvideo_core.discovery.unknown_name import unknown_name
from fastvideo_core.engine.asked import CACHE, asked_policy
from fastvideo_core.engine.caching.gated_pass import always_run
from fastvideo_core.engine.plugin_calls import hook
from fastvideo_core.errors import CacheError, FastVideoError, InputError, PolicyMismatchError, UnknownPolicyError

Policy = TypeVar("Policy", bound=CachePolicy)

_ATTRIBUTES = {"signal": Signal, "history": int, "branches_decide_together": bool, "sees_others": bool}
"""What a policy says of itself, and of which type that is."""

FIRST_PARTY = {"TEACACHE": "fv-teacache"}
"""Policies of this project and the package that brings each."""


@dataclass(frozen=True)
class ChosenPolicy:
    """A policy, the distribution that it came from, and what asked for it."""

    policy: CachePolicy
    distribution: str
    origin: str


def choose_policy(
    plugins: Plugins,
    argument: str | CachePolicy | None,
    config: Config = None,
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> ChosenPolicy | None:
    """The policy that was asked for: by the argument, then the environment, else none.

    Args:
        argument: NAME, NAME@VALUE, NAME@VALUE:SETTING=VALUE…, NAME@SETTING=VALUE…, "none", or a policy object.
        config: settings by name, or a value for the main one, beside those in the text.
        defaults: per policy name, settings that count where neither gives them.

    Raises:
        UnknownPolicyError: no plugin provides it.
        InputError: a setting that it does not have, a value that it does not take, a setting given twice, or settings
            without a policy that they are for.
        DuplicateProviderError: two plugins provide it.
    """
    if isinstance(argument, CachePolicy):
        for _, given in named_values(config, "cache_config"):
            raise InputError(
                f"{given.origin} gives {given.shown}, but cache= is an object, which has its settings already: "
                f"{shown(argument)}"
            )
        checked_policy(type(argument))
        return ChosenPolicy(argument, "an object", CACHE)
    asked = asked_policy(argument)
    requested = asked.with_config(config, "cache_config")
    if asked.name is None:
        return None
    kind, plugin = find_policy(plugins, asked.name, asked.origin)
    assumed = (defaults or {}).get(asked.name, {})
    named = tuple((key, GivenValue(value, f"teacache_params.{key}")) for key, value in assumed.items())
    try:
        policy = kind.from_settings(requested=replace(requested, assumed=named))
    except (FastVideoError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise CacheError(
            f"{asked.name} (from {asked.origin}, provided by {plugin.label}) is broken: making it raised "
            f"{explain(error)}. Report it to its author"
        ) from error
    return ChosenPolicy(policy, plugin.label, f"requested by {asked.origin}")


def find_policy(plugins: Plugins, name: str, origin: str) -> tuple[type[CachePolicy], Plugin]:
    """The installed policy of that name, or an error that says what is installed and what to do."""
    try:
        return plugins.policy(name)
    except KeyError:
        message, cause = unknown_name(plugins, "caching policy", name, origin, plugins.policy_names(), FIRST_PARTY)
        raise UnknownPolicyError(message) from cause


def model_of(family: ModelFamily, name: str, pipeline: str) -> CachedModel:
    """What a policy is told of a model; its name may be a local folder."""
    folder = expanded(name)
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
    config: Config = None,
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
    with hook(policy, "for_model"):
        prepared = policy.for_model(model)
    _check_attributes(policy.name, prepared)
    if policy.given_values is not None:
        prepared.remember(policy.given_values)
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


def _check_attributes(name: str, prepared: object) -> None:
    """What a policy says of itself is of the type that the contract has.

    Raises:
        CacheError: with what it is instead.
    """
    if not isinstance(prepared, CachePolicy):
        raise CacheError(
            f"for_model of {name} returned {shown(prepared)}, it must be a caching policy; report it to its author"
        )
    for attribute, kind in _ATTRIBUTES.items():
        value = getattr(prepared, attribute)
        if not isinstance(value, kind):
            raise CacheError(
                f"{name} has {attribute}={value!r}, it must be of type {kind.__name__}; report it to its author"
            )


def prepared_policy(chosen: ChosenPolicy | None, model: CachedModel) -> ChosenPolicy | None:
    """The chosen policy, made ready for a model; raises as `prepare_policy` does."""
    return replace(chosen, policy=prepare_policy(chosen.policy, model)) if chosen else None
