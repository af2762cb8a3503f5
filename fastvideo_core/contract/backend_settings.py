"""How an attention backend has settings: an object that takes them when it is attached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fastvideo_core.contract.settings import (
    Config,
    HasSettings,
    Requested,
    declared_settings,
    given_settings,
    read_settings,
    setting,
)


@dataclass(frozen=True)
class GuardSettings:
    """What every backend has whose output may overflow."""

    guard: bool = setting(True, "whether NaN or infinity in the output ends the run with an error")


class BackendSettings(HasSettings):
    """`settings`, an object of the dataclass `settings_type`."""

    overflows_in: ClassVar[frozenset[str]] = frozenset()
    """The dtypes, such as "float16", in which finite inputs may lead to NaN or infinity.

    In these the core watches the output, without waiting for the GPU, and the backend has the setting `guard`.
    """

    _values: Mapping[type[Any], Any] | None = None

    @classmethod
    def settings_types(cls) -> tuple[type[Any], ...]:
        return (*super().settings_types(), *([GuardSettings] if cls.overflows_in else []))

    @property
    def settings(self) -> Any:
        """The settings: as given when the backend was attached, else by the environment, else the defaults.

        Raises:
            InputError: a variable of the environment means nothing.
        """
        return self._taken().get(self.settings_type) if self.settings_type else None

    @property
    def is_guarded(self) -> bool:
        """Whether its output is to be watched where it may overflow."""
        return bool(self.overflows_in) and self._taken()[GuardSettings].guard is True

    def take_settings(self, config: Config = None, requested: Requested | None = None) -> None:
        """Read and check the settings.

        Args:
            config: as `attention_config=` takes it.
            requested: what was given beside it.

        Raises:
            InputError: a setting that there is not, a value that it does not take, or two for one.
        """
        given = given_settings(self, (requested or Requested()).beside(config, "attention_config"))
        values = read_settings(self, given)
        kinds: dict[type[Any], dict[str, Any]] = {kind: {} for kind in self.settings_types()}
        for one in declared_settings(self):
            if one.name in values:
                kinds[one.owner][one.name] = values[one.name]
        self._values = {kind: kind(**own) for kind, own in kinds.items()}
        self.given_values = given

    def settings_used(self) -> dict[str, Any]:
        """Every setting with the value that was given, else its default."""
        taken, given = self._taken(), self.given_values or {}
        return {
            one.name: given[one.name].value
            if one.is_parsed and one.name in given
            else getattr(taken[one.owner], one.name)
            for one in declared_settings(self)
        }

    def _taken(self) -> Mapping[type[Any], Any]:
        if self._values is None:
            self.take_settings()
        assert self._values is not None
        return self._values
