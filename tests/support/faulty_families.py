"""Model families with a fault each, for trying the suite on: Wan's, but where another model is needed for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fastvideo_core import AttentionSite, Geometry, ModelFamily, Role, Signal, TokenLayout
from tests.support.families import FAMILIES

WAN, COGVIDEOX, HUNYUAN = FAMILIES["Wan"], FAMILIES["CogVideoX"], FAMILIES["HunyuanVideo"]


def _only_self(transformer: Any) -> Iterator[AttentionSite]:
    return (site for site in WAN.attentions(transformer) if site.role is Role.SELF)


def _backwards(transformer: Any) -> Iterator[AttentionSite]:
    return iter(list(WAN.attentions(transformer))[::-1])


def _roles_swapped(transformer: Any) -> Iterator[AttentionSite]:
    other = {Role.SELF: Role.CROSS, Role.CROSS: Role.SELF}
    return (replace(site, role=other[site.role]) for site in WAN.attentions(transformer))


def _called_twice(transformer: Any) -> Iterator[AttentionSite]:
    return (replace(site, calls=2) for site in WAN.attentions(transformer))


def _on_its_side(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    time, height, width = WAN.token_layout(config, arguments).grid
    return TokenLayout((time, width, height))


def _in_latents(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    time, height, width = arguments["hidden_states"].shape[2:]
    return TokenLayout((time, height, width))


def _of_others(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    return replace(WAN.geometry(transformer, vae), pixels_per_token=(8, 8))


def _stack(family: ModelFamily, **changes: Any) -> ModelFamily:
    return replace(family, stack=replace(family.stack, **changes))


_PROJECTION = WAN.time_signals[Signal.TIME_PROJECTION]

FAULTY: dict[str, tuple[str, ModelFamily, str]] = {
    "forgets cross attention": (
        "Wan 2.1",
        replace(WAN, attentions=_only_self, roles=(Role.SELF,)),
        "test_every_attention_of_the_blocks_is_named",
    ),
    "forgets a role": ("Wan 2.1", replace(WAN, roles=(Role.SELF,)), "test_every_attention_of_the_blocks_is_named"),
    "names attentions backwards": (
        "Wan 2.1",
        replace(WAN, attentions=_backwards),
        "test_attentions_run_in_the_order_in_which_they_are_named",
    ),
    "mistakes self attention for cross attention": (
        "Wan 2.1",
        replace(WAN, attentions=_roles_swapped),
        "test_calls_are_what_the_family_says",
    ),
    "says that each calls twice": (
        "Wan 2.1",
        replace(WAN, attentions=_called_twice),
        "test_calls_are_what_the_family_says",
    ),
    "takes latents for tokens": (
        "Wan 2.1",
        replace(WAN, token_layout=_in_latents),
        "test_calls_are_what_the_family_says",
    ),
    "lays the grid on its side": (
        "Wan 2.1",
        replace(WAN, token_layout=_on_its_side),
        "test_the_grid_is_that_of_the_model",
    ),
    "has the pixels of another": ("Wan 2.1", replace(WAN, geometry=_of_others), "test_the_grid_is_that_of_the_model"),
    "leaves out an activation": (
        "Wan 2.1",
        replace(
            WAN, time_signals={Signal.TIME_PROJECTION: tuple(name for name in _PROJECTION if "act_fn" not in name)}
        ),
        "test_signals_are_what_the_model_computes",
    ),
    "takes the embedding for the projection": (
        "Wan 2.1",
        replace(WAN, time_signals={Signal.TIME_PROJECTION: WAN.time_signals[Signal.TIME_EMBEDDING]}),
        "test_signals_are_what_the_model_computes",
    ),
    "takes text for time": (
        "Wan 2.1",
        replace(WAN, block_signals={Signal.TIME_EMBEDDING: 1}, time_signals={}),
        "test_time_signals_change_with_the_timestep",
    ),
    "takes text for rotary": ("Wan 2.1", _stack(WAN, rotary=1), "test_tokens_in_another_order_give_the_same"),
    "counts another axis of rotary": (
        "Wan 2.1",
        _stack(WAN, rotary_axis=2),
        "test_tokens_in_another_order_give_the_same",
    ),
    "takes modulation per token for whole": (
        "Wan 2.2 per token",
        _stack(WAN, modulation_per_token=3),
        "test_tokens_in_another_order_give_the_same",
    ),
    "forgets that text is returned": (
        "CogVideoX",
        _stack(COGVIDEOX, returns_text=False),
        "test_a_policy_that_never_skips_changes_no_bit",
    ),
    "runs its lists the other way": (
        "HunyuanVideo",
        _stack(HUNYUAN, lists=HUNYUAN.stack.lists[::-1]),
        "test_a_policy_that_always_reuses_adds_the_residual",
    ),
    "takes padding for text": (
        "HunyuanVideo",
        replace(HUNYUAN, name="Padded"),
        "test_it_computes_what_the_bare_pipeline_does",
    ),
    "stops between blocks": ("Wan that breaks", WAN, "test_compiled_blocks_give_the_same"),
}
"""By what is wrong: the pipeline that it is tried on, the family, and the test that is to fail."""
