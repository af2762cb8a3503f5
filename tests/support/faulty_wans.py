"""Families of Wan's kin with a fault each, for what they have beside a list of blocks: hints, adapters, frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fastvideo_core import AttentionSite, Geometry, ModelFamily, Role
from tests.support.families import FAMILIES

VACE, ANIMATE, SKYREELS = FAMILIES["Wan VACE"], FAMILIES["Wan Animate"], FAMILIES["SkyReels-V2"]


def _stack(family: ModelFamily, **changes: Any) -> ModelFamily:
    return replace(family, stack=replace(family.stack, **changes))


def _hints(**changes: Any) -> ModelFamily:
    assert VACE.stack.hints is not None
    return _stack(VACE, hints=replace(VACE.stack.hints, **changes))


def _hints_last(transformer: Any) -> Iterator[AttentionSite]:
    sites = list(VACE.attentions(transformer))
    hints = 2 * len(transformer.vace_blocks)
    return iter(sites[hints:] + sites[:hints])


def _without_hints(transformer: Any) -> Iterator[AttentionSite]:
    return iter(list(VACE.attentions(transformer))[2 * len(transformer.vace_blocks) :])


def _called_once(transformer: Any) -> Iterator[AttentionSite]:
    return (replace(site, calls=1) for site in SKYREELS.attentions(transformer))


def _face_first(transformer: Any) -> Iterator[AttentionSite]:
    yield from (AttentionSite(adapter, Role.CROSS) for adapter in transformer.face_adapter)
    yield from ANIMATE.attentions(transformer)


def _without_reference(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    return replace(ANIMATE.geometry(transformer, vae), extra_latents=0)


FAULTY_WANS: dict[str, tuple[str, ModelFamily, str]] = {
    "knows nothing of hints": (
        "VACE",
        replace(_stack(VACE, hints=None), attentions=_without_hints),
        "test_a_policy_that_never_skips_changes_no_bit",
    ),
    "takes blocks that make hints for the others": (
        "VACE",
        _stack(VACE, hints=None, lists=("vace_blocks", "blocks")),
        "test_a_policy_that_always_reuses_adds_the_residual",
    ),
    "forgets the attention of hints": (
        "VACE",
        replace(VACE, attentions=_without_hints),
        "test_every_attention_of_the_blocks_is_named",
    ),
    "names hints last": (
        "VACE",
        replace(VACE, attentions=_hints_last),
        "test_attentions_run_in_the_order_in_which_they_are_named",
    ),
    "hands on the text of hints": ("VACE", _hints(own=1), "test_a_policy_that_never_skips_changes_no_bit"),
    "takes the hints' text for rotary": ("VACE", _hints(rotary=1), "test_tokens_in_another_order_give_the_same"),
    "knows nothing of adapters": (
        "Animate",
        _stack(ANIMATE, adapters=None),
        "test_a_policy_that_never_skips_changes_no_bit",
    ),
    "gives adapters to the backend": (
        "Animate",
        replace(ANIMATE, attentions=_face_first),
        "test_calls_are_what_the_family_says",
    ),
    "forgets the reference image": (
        "Animate",
        replace(ANIMATE, geometry=_without_reference),
        "test_the_grid_is_that_of_the_model",
    ),
    "counts another axis of modulation": (
        "SkyReels forcing image",
        _stack(SKYREELS, modulation_axis=1),
        "test_tokens_in_another_order_give_the_same",
    ),
    "forgets that cross attention sees an image too": (
        "SkyReels image",
        replace(SKYREELS, attentions=_called_once),
        "test_calls_are_what_the_family_says",
    ),
}
"""By what is wrong: the pipeline that it is tried on, the family, and the test that is to fail."""
