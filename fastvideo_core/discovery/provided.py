"""What a plugin provides, checked once when it is loaded, so that listings and searches can trust names and types."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from fastvideo_core.contract.attention import AttentionBackend
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.contract.executor import Executor
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.contract.preset import ModelPreset
from fastvideo_core.discovery.printable import printable
from fastvideo_core.errors import PluginError

if TYPE_CHECKING:
    import click

CONTENTS = {
    "fastvideo_attention_backends": "AttentionBackend instances",
    "fastvideo_cache_policies": "subclasses of CachePolicy",
    "fastvideo_model_families": "ModelFamily instances",
    "fastvideo_model_presets": "ModelPreset instances",
    "fastvideo_executors": "subclasses of Executor",
}
"""What the list that a hook returns is of."""


_COMMON_BASES = frozenset({"object", "Module", "ModelMixin", "ConfigMixin", "PreTrainedModel"})
"""Of these are models of every family, and families are matched by bases, too."""


def checked_backend(thing: Any) -> AttentionBackend:
    """The backend, whose name can be read without running code of the plugin.

    Raises:
        PluginError: it is none, or its name is none.
    """
    if not isinstance(thing, AttentionBackend):
        raise _not_in("fastvideo_attention_backends", thing)
    _check_plain(thing, type(thing).__getattribute__ is object.__getattribute__)
    _check_name("backend", thing)
    return thing


def checked_policy(thing: Any) -> type[CachePolicy]:
    """The class of a caching policy; otherwise as `checked_backend`."""
    if not isinstance(thing, type) or not issubclass(thing, CachePolicy):
        raise _not_in("fastvideo_cache_policies", thing)
    _check_plain(thing, type(thing).__getattribute__ is type.__getattribute__)
    _check_name("caching policy's", thing)
    if inspect.isabstract(thing):
        raise PluginError(
            f"the caching policy {thing.name} has no {' and no '.join(sorted(thing.__abstractmethods__))}"
        )
    return thing


def checked_family(thing: Any) -> ModelFamily:
    """The model family.

    Raises:
        PluginError: it is none, its name or its transformer's class is no text, or that class is a base of all models.
    """
    if type(thing) is not ModelFamily:  # a subclass could fail wherever it is looked at
        raise _not_in("fastvideo_model_families", thing)
    for field in ("name", "transformer"):
        value = getattr(thing, field)
        if type(value) is not str or value != printable(value) or not value.strip():
            raise PluginError(f"the {field} of the model family {thing.name!r} is {value!r}, it must be text")
    if thing.transformer in _COMMON_BASES:
        raise PluginError(
            f"the transformer of the model family {thing.name!r} is {thing.transformer!r}, a base of all models: it "
            "must be the class of one"
        )
    return thing


def checked_preset(thing: Any) -> ModelPreset:
    """The preset, as a plain one.

    Raises:
        PluginError: it is none, or a field is of another type.
    """
    if not isinstance(thing, ModelPreset):
        raise _not_in("fastvideo_model_presets", thing)
    plain = ModelPreset(**{one.name: getattr(thing, one.name) for one in fields(ModelPreset)})
    for field in ("name", "location", "description", "transformer", "task"):
        value = getattr(plain, field)
        needed = field in ("name", "location")
        if type(value) is not str or value != printable(value) or (needed and not value.strip()):
            raise PluginError(f"the {field} of the model preset {plain.name!r} is {value!r}, it must be text")
    if type(plain.sampling) is not dict or not all(type(name) is str for name in plain.sampling):
        raise PluginError(f"the sampling of the model preset {plain.name!r} must be a dict of sampling parameters")
    if plain.score is not None and not callable(plain.score):
        raise PluginError(f"the score of the model preset {plain.name!r} is {plain.score!r}, it must be a function")
    if type(plain.parameters) is not dict or not all(map(_is_count, plain.parameters.items())):
        raise PluginError(
            f"the parameters of the model preset {plain.name!r} are {plain.parameters!r}, they must be a dict such as "
            "{'transformer': 1418996800}"
        )
    if type(plain.flow_shift) is not dict or not all(map(_is_shift, plain.flow_shift.items())):
        raise PluginError(
            f"the flow_shift of the model preset {plain.name!r} is {plain.flow_shift!r}, it must be a dict such as "
            "{(480, 832): 3.0}"
        )
    return plain


def checked_executor(thing: Any) -> type[Executor]:
    """The class of an executor, whose name can be read without running code of the plugin.

    Raises:
        PluginError: it is none, or its name is none.
    """
    if not isinstance(thing, type) or not issubclass(thing, Executor):
        raise _not_in("fastvideo_executors", thing)
    name = inspect.getattr_static(thing, "name", None)
    if type(name) is not str or not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise PluginError(f"the executor's name {name!r} is not lower case with digits, underscores and dashes")
    return thing


def _is_count(item: tuple[Any, Any]) -> bool:
    return type(item[0]) is str and item[0] == printable(item[0]) and type(item[1]) is int and item[1] >= 0


def _is_shift(item: tuple[Any, Any]) -> bool:
    size, shift = item
    sizes = type(size) is tuple and len(size) == 2 and all(type(one) is int and one > 0 for one in size)
    return sizes and type(shift) in (int, float) and 0 < shift < math.inf


def check_commands(cli: click.Group) -> None:
    """Refuse what is no command.

    Raises:
        PluginError: with its name.
    """
    import click

    for name, command in cli.commands.items():
        if type(name) is not str or name != printable(name) or not isinstance(command, click.Command):
            raise PluginError(f"the command {name!r} that it adds is {command!r}, it must be a click command")
        command.get_short_help_str()  # as the list of commands will


def _not_in(hook: str, thing: Any) -> PluginError:
    return PluginError(f"{hook} must return a list of {CONTENTS[hook]}, not one with {thing!r}")


def _check_plain(thing: Any, plain: bool) -> None:
    if not plain:
        raise PluginError(f"{thing!r} has a __getattribute__ of its own, which could fail wherever it is looked at")


def _check_name(kind: str, thing: Any) -> None:
    name = inspect.getattr_static(thing, "name", None)
    if type(name) is not str:
        raise PluginError(f"the {kind} name must be text that stands in the class, not {name!r}")
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
        raise PluginError(f"the {kind} name {name!r} is not upper case with digits and underscores")
