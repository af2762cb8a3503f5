"""Settings of a plugin: fields of a dataclass, given in Python, on the command line, or in the environment."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias, get_type_hints

from fastvideo_core.errors import InputError

MAIN_SETTING = ""
"""Stands for the name of the main setting."""

Config: TypeAlias = str | Path | Mapping[str, Any] | None
"""What `attention_config=` takes: a file, or settings by name."""


def setting(
    default: Any,
    help: str,  # noqa: A002  # what it is called where options are declared
    *,
    ge: float | None = None,
    le: float | None = None,
    parse: Callable[[Any], Any] | None = None,
) -> Any:
    """Declare a setting: the default of a field in a backend's dataclass of settings.

    The field's type says what it takes: `int`, `float`, `bool`, `str`, `Path`, a `Literal` of choices, and anything
    else that pydantic reads from text.

    Args:
        help: what it does, in a phrase; `fv doctor` shows it.
        ge, le: the least and the largest value of a number.
        parse: makes the value from text or from what was given in Python, instead; raises ValueError.
    """
    limits = {name: limit for name, limit in (("ge", ge), ("le", le)) if limit is not None}
    return field(default=default, metadata={"help": help, "limits": limits, "parse": parse})


@dataclass(frozen=True)
class GivenValue:
    """The value of a setting as somebody gave it, and by what, for messages."""

    value: Any
    origin: str


@dataclass(frozen=True)
class DeclaredSetting:
    """A setting that a backend has, with the environment variable that gives it.

    Attributes:
        is_parsed: whether its value is made by its own `parse`, so that what was given says more than the value.
    """

    name: str
    default: Any
    help: str
    variable: str
    is_parsed: bool


class HasSettings:
    """What a backend inherits: `settings`, an object of its dataclass `settings_type`, checked before anything runs."""

    name: ClassVar[str]

    settings_type: ClassVar[type[Any] | None] = None
    """A dataclass whose fields are declared with `setting`; None if there is nothing to set."""

    main_setting: ClassVar[str | None] = None
    """The setting that a file given as `attention_config=` or FASTVIDEO_ATTENTION_CONFIG is for."""

    variable_prefix: ClassVar[str] = ""
    """What the variables of the settings begin with; default FASTVIDEO_NAME, so FASTVIDEO_NAME_SETTING."""

    _settings: Any = None
    _given: Mapping[str, GivenValue] | None = None

    @property
    def settings(self) -> Any:
        """The settings: as given when the backend was attached, else by the environment, else the defaults.

        Raises:
            InputError: a variable of the environment means nothing.
        """
        if self._given is None:
            self.take_settings(None)
        return self._settings

    def take_settings(self, config: Config, file: GivenValue | None = None) -> None:
        """Read and check the settings.

        Args:
            config: settings by name, or the file for `main_setting`.
            file: for `main_setting`, if `config` does not give that.

        Raises:
            InputError: a setting that there is not, or a value that it does not take.
        """
        named = dict(config) if isinstance(config, Mapping) else {MAIN_SETTING: config} if config else {}
        if MAIN_SETTING in named:
            file = _as_given(named.pop(MAIN_SETTING), "attention_config=")
        if file is not None and self.main_setting is None:
            raise InputError(f"{self.name} takes no configuration file; {str(file.value)!r} was given")
        given = {self.main_setting: file} if file and self.main_setting else {}
        given |= {key: _as_given(value, f"attention_config[{key!r}]") for key, value in named.items()}
        known = self.declared_settings()
        names = [declared.name for declared in known]
        for key, one in given.items():
            check_setting(self.name, key, names, one.origin)
        for declared in known:
            if declared.name not in given and (text := os.environ.get(declared.variable, "").strip()):
                given[declared.name] = GivenValue(text, declared.variable)
        self._settings = _make(self.settings_type, given) if self.settings_type else None
        self._given = given

    def origin_of(self, name: str) -> str:
        """What gave a setting, for messages: its variable, if nothing did."""
        given = (self._given or {}).get(name)
        return given.origin if given else self._variable(name)

    def was_given(self, name: str) -> bool:
        """Whether somebody gave a setting, so that it is not its default."""
        return name in (self._given or {})

    def settings_used(self) -> dict[str, Any]:
        """Every setting with the value that was given, else its default."""
        values, given = self.settings, self._given or {}
        return {
            one.name: given[one.name].value if one.is_parsed and one.name in given else getattr(values, one.name)
            for one in self.declared_settings()
        }

    def declared_settings(self) -> list[DeclaredSetting]:
        """What can be set."""
        if self.settings_type is None:
            return []
        return [
            DeclaredSetting(
                one.name,
                one.default,
                one.metadata.get("help", ""),
                self._variable(one.name),
                bool(one.metadata.get("parse")),
            )
            for one in fields(self.settings_type)
        ]

    def _variable(self, name: str) -> str:
        return f"{self.variable_prefix or 'FASTVIDEO_' + self.name}_{name.upper()}"


def as_text(value: Any) -> str:
    """A value as it would be given."""
    if isinstance(value, list | tuple):
        return ",".join(map(as_text, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def check_setting(owner: str, name: str, known: Iterable[str], where: str) -> None:
    """Refuse the name of a setting that `owner` does not have.

    Raises:
        InputError: with the closest name, or all there are.
    """
    known = list(known)
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known) or 'none'}"
        raise InputError(f"{where}: {owner} has no setting {name!r}; {hint}")


def _as_given(value: Any, origin: str) -> GivenValue:
    return value if isinstance(value, GivenValue) else GivenValue(value, origin)


def _make(kind: type[Any], given: Mapping[str, GivenValue]) -> Any:
    """An object of the dataclass with these values, each read as its field declares."""
    types = get_type_hints(kind)
    declared = {one.name: one for one in fields(kind)}
    return kind(**{name: _value(types[name], declared[name].metadata, one) for name, one in given.items()})


def _value(kind: Any, metadata: Mapping[str, Any], given: GivenValue) -> Any:
    from pydantic import Field, TypeAdapter, ValidationError

    try:
        if metadata.get("parse"):
            return metadata["parse"](given.value)
        return TypeAdapter(Annotated[kind, Field(**metadata.get("limits", {}))]).validate_python(given.value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        problem = f"{problem[:1].lower()}{problem[1:]}; it sets {metadata.get('help')}"
    except (ValueError, TypeError) as error:
        problem = str(error)
    raise InputError(f"{given.origin} is {str(given.value)!r}: {problem}")
