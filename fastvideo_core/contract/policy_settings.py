"""How a caching policy has settings: it is a dataclass of them, whether made in Python or from what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from fastvideo_core.contract.reading import GivenValue
from fastvideo_core.contract.settings import (
    Config,
    HasSettings,
    Requested,
    declared_settings,
    given_settings,
    read_settings,
)


class PolicySettings(HasSettings):
    """A dataclass whose fields are declared with `setting`; what its constructor is given is read as all else is."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.settings_type = cls

    def __post_init__(self) -> None:
        """Read and check what the constructor was given; a policy that has one of its own calls this first.

        Raises:
            InputError: a value that its setting does not take.
        """
        given = {}
        for one in declared_settings(self):
            value = getattr(self, one.name)
            if value is one.default:
                continue
            read = one.reader.read(GivenValue(value, f"{self.name}: {one.name}"))
            object.__setattr__(self, one.name, read)
            if type(read) is not type(one.default) or read != one.default:
                given[one.name] = GivenValue(value, f"{type(self).__name__}(…)")
        self.remember(given)

    @classmethod
    def from_settings(cls, config: Config = None, requested: Requested | None = None) -> Self:
        """A policy with what was given, by the environment too.

        Args:
            config: as `cache_config=` takes it.
            requested: what was given beside it.

        Raises:
            InputError: a setting that there is not, a value that it does not take, or two for one.
        """
        given = given_settings(cls, (requested or Requested()).beside(config, "cache_config"))
        made = cls(**read_settings(cls, given))
        made.remember(given)
        return made

    def remember(self, given: Mapping[str, GivenValue]) -> None:
        """Note what gave its settings, for messages and the receipt."""
        object.__setattr__(self, "given_values", dict(given))

    def settings_used(self) -> dict[str, Any]:
        """Every setting with its value."""
        return {one.name: getattr(self, one.name) for one in declared_settings(self)}
