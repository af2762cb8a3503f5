"""The families that the core brings, by their names, as plugins of it are found."""

from __future__ import annotations

from fastvideo_core import ModelFamily
from tests.support.backends import core_alone

FAMILIES: dict[str, ModelFamily] = {family.name: family for family in core_alone().families()}


def family_of_transformer(pipe: object) -> ModelFamily:
    """The family whose transformer the pipeline has."""
    kind = type(pipe.transformer).__name__  # type: ignore[attr-defined]  # every pipeline here has one
    return next(family for family in FAMILIES.values() if family.transformer == kind)
