"""What was asked for by argument or environment: a name, with settings if it is NAME@VALUE:SETTING=VALUE."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fastvideo_core.contract.reading import GivenValue, shown
from fastvideo_core.contract.settings import MAIN_SETTING, Config, Named, Requested
from fastvideo_core.discovery.environment import normalize_backend_name, read_settings
from fastvideo_core.errors import InputError

ATTENTION = "attention_backend="
CACHE = "cache="

_NONE = "NONE"


@dataclass(frozen=True)
class Asked:
    """A backend or policy that was asked for.

    Attributes:
        name: normalised; None if nothing was asked for.
        origin: the argument or the variable that asked.
        settings: those that the text gives, and FASTVIDEO_ATTENTION_CONFIG.
    """

    name: str | None
    origin: str
    settings: Requested = field(default_factory=Requested)

    def with_config(self, config: Config, parameter: str) -> Requested:
        """What was given for it, by the text and by a parameter such as attention_config.

        Raises:
            InputError: nothing was asked for that it could be for.
        """
        requested = self.settings.beside(config, parameter)
        if self.name is None:
            _refuse(requested, parameter)
        return requested


def asked_backend(argument: str | None) -> Asked:
    """The attention backend that was asked for: by the argument, then by the environment.

    Raises:
        InputError: the argument or the variable is no name with settings.
    """
    environment = read_settings()
    asked = _asked(argument, environment.attention_backend, ATTENTION, "FASTVIDEO_ATTENTION_BACKEND")
    path = environment.attention_config
    if path is None:
        return asked
    file = (MAIN_SETTING, GivenValue(path, "FASTVIDEO_ATTENTION_CONFIG"))
    return replace(asked, settings=replace(asked.settings, environment=(*asked.settings.environment, file)))


def asked_policy(argument: str | None) -> Asked:
    """The caching policy that was asked for, as `asked_backend`; "none" asks for none, whatever the variable says."""
    asked = _asked(argument, read_settings().cache_policy, CACHE, "FASTVIDEO_CACHE_POLICY")
    return replace(asked, name=None, origin=CACHE) if asked.name == _NONE else asked


def _asked(argument: str | None, variable: str | None, parameter: str, variable_name: str) -> Asked:
    if argument is not None and not isinstance(argument, str):
        kind = "a backend's" if parameter == ATTENTION else "a policy's"
        raise InputError(
            f"{parameter} takes {kind} name or object, not {shown(argument)}, of type {type(argument).__name__}"
        )
    if argument is not None and argument.strip():
        name, values = parse_asked(argument, parameter)
        return Asked(name, parameter, Requested(explicit=values))
    if variable:
        name, values = parse_asked(variable, variable_name)
        return Asked(name, variable_name, Requested(environment=values))
    return Asked(None, parameter)


def parse_asked(text: str, origin: str) -> tuple[str, Named]:
    """NAME@VALUE:SETTING=VALUE as the name and its settings; the value without a name is for the main one.

    Args:
        origin: the argument or the variable that gave the text.

    Raises:
        InputError: it is of another form.
    """
    name, at, rest = text.strip().partition("@")
    where = f"{origin.removesuffix('=')}={text.strip()!r}"
    example = "SLIDING_TILE_ATTN@windows.json" if "ATTENTION" in origin.upper() else "TEACACHE@0.08"
    if not name.strip():
        raise InputError(f"{where} names nothing in front of the @; write NAME@VALUE, such as {example}")
    found: list[tuple[str, GivenValue]] = []
    for part in rest.split(":") if at else []:
        key, equals, value = part.partition("=")
        key, value = (key.strip(), value.strip()) if equals else (MAIN_SETTING, part.strip())
        if not value or (not key and (equals or found)):
            colon = "; a value that holds a colon is given by --set NAME.SETTING=VALUE or in Python" if found else ""
            raise InputError(
                f"{where} is none of NAME, NAME@VALUE and NAME@VALUE:SETTING=VALUE, such as {example}{colon}"
            )
        found.append((key, GivenValue(value, f"{key} in {where}" if key else where)))
    return normalize_backend_name(name) or "", tuple(found)


def _refuse(requested: Requested, parameter: str) -> None:
    given = [one for _, one in (*requested.explicit, *requested.environment)]
    if given:
        what, argument, variable = (
            ("attention backend", ATTENTION, "FASTVIDEO_ATTENTION_BACKEND")
            if parameter == "attention_config"
            else ("caching policy", CACHE, "FASTVIDEO_CACHE_POLICY")
        )
        raise InputError(
            f"{given[0].origin} gives {given[0].shown}, but no {what} was asked for that it could be for: set "
            f"{argument} or {variable}"
        )
