"""Settings of a plugin: fields of a dataclass, given in Python, on the command line, as NAME@VALUE, or by variables."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from inspect import get_annotations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, TypeAlias, get_type_hints

from fastvideo_core.contract.reading import GivenValue, Reader, shown
from fastvideo_core.errors import InputError

MAIN_SETTING = ""
"""Stands for the name of the main setting."""

Config: TypeAlias = str | Path | Mapping[str, Any] | None
"""What `attention_config=` and `cache_config=` take: settings by name, or a value for the main one."""

Named: TypeAlias = tuple[tuple[str, GivenValue], ...]
"""Settings with their names, of which one may come twice."""


def setting(
    default: Any,
    help: str,  # noqa: A002  # what it is called where options are declared
    *,
    ge: float | None = None,
    le: float | None = None,
    parse: Callable[[Any], Any] | None = None,
    file: bool = False,
) -> Any:
    """Declare a setting: the default of a field in a backend's dataclass of settings, or in a policy.

    The field's type says what it takes: `int`, `float`, `bool`, `str`, `Path`, a `Literal` of choices, and anything
    else that pydantic reads from text. Numbers must be finite; in Python, a bool is no number and a number no bool.

    Args:
        default: None: it can be left to the plugin, and given as `none`.
        help: what it does, in a phrase; `fv doctor` shows it.
        ge, le: the least and the largest value of a number.
        parse: makes the value from text or from what was given in Python, instead; raises ValueError. It is also given
            what it has made.
        file: whether the value may name a file; a request to `fv serve` cannot give such a setting.
    """
    limits = {name: limit for name, limit in (("ge", ge), ("le", le)) if limit is not None}
    return field(default=default, metadata={"help": help, "limits": limits, "parse": parse, "file": file})


@dataclass(frozen=True)
class Requested:
    """What was given for one backend or policy. Of the three, the first that gives a setting counts.

    Attributes:
        explicit: in Python, on the command line, or in the text that names it there.
        assumed: by those who ask on somebody's behalf, such as sampling parameters.
        environment: by variables of the environment that are not its own.
    """

    explicit: Named = ()
    assumed: Named = ()
    environment: Named = ()

    def beside(self, config: Config, parameter: str) -> Requested:
        """These and what a parameter such as attention_config gives."""
        return replace(self, explicit=(*self.explicit, *named_values(config, parameter)))


def named_values(config: Config, parameter: str) -> Named:
    """What a parameter such as attention_config gives, by name; nothing if it is None or blank."""
    if config is None or (isinstance(config, str) and not config.strip()):
        return ()
    settings = config if isinstance(config, Mapping) else {MAIN_SETTING: config}
    return tuple((key, _as_given(key, value, parameter)) for key, value in settings.items())


def _as_given(key: Any, value: Any, parameter: str) -> GivenValue:
    if isinstance(value, GivenValue):
        return value
    is_main = isinstance(key, str) and key == MAIN_SETTING
    return GivenValue(value, f"{parameter}=" if is_main else f"{parameter}[{shown(key)}]")


@dataclass(frozen=True)
class DeclaredSetting:
    """A setting that a backend or a policy has, with the environment variable that gives it.

    Attributes:
        owner: the dataclass that declares it.
        is_parsed: whether its value is made by its own `parse`, so that what was given says more than the value.
    """

    name: str
    default: Any
    help: str
    variable: str
    is_parsed: bool
    owner: type[Any]
    reader: Reader


class HasSettings:
    """What backends and policies inherit: settings, checked before anything runs, and what gave them."""

    name: ClassVar[str]

    settings_type: ClassVar[type[Any] | None] = None
    """A dataclass whose fields are declared with `setting`; None if there is nothing to set."""

    main_setting: ClassVar[str | None] = None
    """The setting that the value in NAME@VALUE is for, and a configuration that is no mapping."""

    variable_prefix: ClassVar[str] = ""
    """What the variables of the settings begin with; default FASTVIDEO_NAME, so FASTVIDEO_NAME_SETTING."""

    given_values: Mapping[str, GivenValue] | None = None
    """The settings that somebody gave, as they were given and by what; None until they are taken."""

    @classmethod
    def settings_types(cls) -> tuple[type[Any], ...]:
        """The dataclasses that declare what can be set."""
        if cls.settings_type is None:
            return ()
        if not is_dataclass(cls.settings_type) and cls.settings_type is not cls:
            raise TypeError(f"settings_type must be a dataclass, not {cls.settings_type!r}")
        return (cls.settings_type,)

    def origin_of(self, name: str) -> str:
        """What gave a setting, for messages: its variable, if nothing did."""
        given = (self.given_values or {}).get(name)
        return given.origin if given else _variable(self, name)

    def was_given(self, name: str) -> bool:
        """Whether somebody gave a setting, so that it is not its default."""
        return name in (self.given_values or {})

    def origins(self) -> dict[str, str]:
        """What gave each setting that is not its default."""
        return {name: given.origin for name, given in (self.given_values or {}).items()}


Owner: TypeAlias = HasSettings | type[HasSettings]
"""A backend, or the class of a policy."""


def declared_settings(owner: Owner) -> list[DeclaredSetting]:
    """What can be set: the fields that are declared with `setting`."""
    return [
        DeclaredSetting(
            one.name,
            one.default,
            one.metadata["help"],
            _variable(owner, one.name),
            bool(one.metadata["parse"]),
            kind,
            Reader(
                one.name,
                None if one.metadata["parse"] else _type_of(kind, one.name),
                one.default,
                one.metadata["help"],
                one.metadata["limits"],
                one.metadata["parse"],
            ),
        )
        for kind in owner.settings_types()
        if is_dataclass(kind)
        for one in fields(kind)
        if "help" in one.metadata
    ]


def file_settings(owner: Owner) -> frozenset[str]:
    """The settings whose values may name files; "" stands for the value without a name, in NAME@VALUE."""
    names = {
        one.name
        for kind in owner.settings_types()
        if is_dataclass(kind)
        for one in fields(kind)
        if one.metadata.get("file")
    }
    return frozenset({*names, ""} if owner.main_setting in names else names)


def given_settings(owner: Owner, requested: Requested) -> dict[str, GivenValue]:
    """What counts of all that was given, the owner's own variables of the environment included.

    Raises:
        InputError: a setting that there is not, or two values for one.
    """
    declared = declared_settings(owner)
    variables = [
        (one.name, GivenValue(text, one.variable))
        for one in declared
        if (text := os.environ.get(one.variable, "").strip())
    ]
    return {
        **_each_once(owner, [*requested.environment, *variables]),
        **_each_once(owner, requested.assumed),
        **_each_once(owner, requested.explicit),
    }


def read_settings(owner: Owner, given: Mapping[str, GivenValue]) -> dict[str, Any]:
    """The values that were given, read.

    Raises:
        InputError: a value that its setting does not take.
    """
    readers = {one.name: one.reader for one in declared_settings(owner)}
    return {name: readers[name].read(one) for name, one in given.items()}


def check_setting(owner: str, name: object, known: Iterable[str], where: str) -> None:
    """Refuse what is not the name of a setting of `owner`.

    Raises:
        InputError: with the closest name, or all there are.
    """
    known = list(known)
    if not isinstance(name, str) or name not in known:
        close = difflib.get_close_matches(name.lower(), known, n=1) if isinstance(name, str) else []
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known) or 'none'}"
        raise InputError(f"{where}: {owner} has no setting {shown(name)}; {hint}")


def _each_once(owner: Owner, named: Iterable[tuple[str, GivenValue]]) -> dict[str, GivenValue]:
    """By name, with the value that has none under the main setting."""
    known = [one.name for one in declared_settings(owner)]
    found: dict[str, GivenValue] = {}
    for key, given in named:
        is_main = isinstance(key, str) and key == MAIN_SETTING
        if is_main and owner.main_setting is None:
            has = f"give one of {', '.join(known)} by its name" if known else "it has nothing to set"
            raise InputError(
                f"{given.origin} gives {given.shown}, but {owner.name} has no main setting to give it to; {has}"
            )
        name = owner.main_setting if is_main and owner.main_setting else key
        check_setting(owner.name, name, known, given.origin)
        if name in found:
            first = found[name]
            raise InputError(
                f"the setting {name!r} of {owner.name} is given twice: {first.shown} by {first.origin}, "
                f"{given.shown} by {given.origin}; leave one out"
            )
        found[name] = given
    return found


def _variable(owner: Owner, name: str) -> str:
    return f"{owner.variable_prefix or 'FASTVIDEO_' + owner.name}_{name.upper()}"


def _type_of(kind: type[Any], name: str) -> Any:
    """The type of a field, from the class that declares it: its other annotations may name what is not imported."""
    home = next(base for base in kind.__mro__ if name in get_annotations(base))
    alone = SimpleNamespace(__annotations__={name: get_annotations(home)[name]})
    return get_type_hints(alone, vars(sys.modules[home.__module__]), dict(vars(home)))[name]
