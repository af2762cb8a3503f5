"""Which caching policy was asked for, by argument or environment, and with what settings."""

from __future__ import annotations

import difflib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastvideo_core.caching.policy import CachedModel, CachePolicy
from fastvideo_core.errors import InputError, PolicyMismatchError, UnknownPolicyError
from fastvideo_core.lookup import unknown_name
from fastvideo_core.models.family import ModelFamily
from fastvideo_core.models.info import ModelInfo
from fastvideo_core.plugins import Plugin, Plugins
from fastvideo_core.settings import normalize_backend_name, read_settings

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
    plugins: Plugins, argument: str | CachePolicy | None, settings: dict[str, dict[str, Any]] | None = None
) -> ChosenPolicy | None:
    """The policy that was asked for: by the argument, then the environment, else none.

    Args:
        argument: NAME, NAME@VALUE, NAME@VALUE:SETTING=VALUE…, NAME@SETTING=VALUE…, "none", or a policy object.
        settings: per policy name, settings that count where the text does not give them.

    Raises:
        UnknownPolicyError: no plugin provides it.
        InputError: a setting that it does not have, or a value that it does not take.
        DuplicateProviderError: two plugins provide it.
    """
    if isinstance(argument, CachePolicy):
        return ChosenPolicy(argument, "an object", "cache=")
    if argument is not None and not isinstance(argument, str):
        raise InputError(f"cache= takes a policy's name or object, not {argument!r}")
    asked, origin = (argument, "cache=") if argument else (read_settings().cache_policy, "FASTVIDEO_CACHE_POLICY")
    if asked is None:
        return None
    name, values = split(asked, origin)
    if name == NONE:
        return None
    kind, plugin = find_policy(plugins, name, origin)
    given = {**(settings or {}).get(name, {}), **_named(kind, values, asked, origin)}
    return ChosenPolicy(make_policy(kind, given, f"{asked!r} (from {origin})"), plugin.label, f"requested by {origin}")


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
        values[key.strip()] = _value(value.strip())
    return normalize_backend_name(name) or "", values


def _value(text: str) -> Any:
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
    known = [name for name in inspect.signature(kind).parameters if name != "self"]
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known) or 'none'}"
            raise InputError(f"{what}: {kind.name} has no setting {name!r}; {hint}")
    return kind(**settings)


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


def check_policy(plugins: Plugins, argument: str | CachePolicy | None, info: ModelInfo) -> None:
    """Refuse a policy, asked for by argument or environment, that is unknown or cannot serve a model; see `fit`."""
    if chosen := choose_policy(plugins, argument):
        fit(chosen.policy, model_of(info.family, info.location, info.pipeline))


def fit(policy: Policy, model: CachedModel) -> Policy:
    """The policy, made ready for a model.

    Raises:
        PolicyMismatchError: the model's family does not have the policy's signal, or the policy refuses the model.
    """
    fitted = policy.for_model(model)
    if fitted.signal not in model.signals:
        raise PolicyMismatchError(
            f"{policy.name} looks at {fitted.signal}, which {model.family} models do not have; they have "
            f"{', '.join(sorted(model.signals))}"
        )
    return fitted
