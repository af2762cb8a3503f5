"""What a generator offers, in plain values, which a process without torch can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Choices:
    """Names, in alphabetical order.

    Attributes:
        attention_backends: those that run here and fit the model.
        cache_policies: those that serve the model with their default settings.
        file_settings: by those names, the settings whose values may name files; "" is the value in NAME@VALUE.
    """

    attention_backends: tuple[str, ...]
    cache_policies: tuple[str, ...]
    file_settings: Mapping[str, frozenset[str]] = field(default_factory=dict)
