"""LTX-2's family with a fault each, in what no family of one stream has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from fastvideo_core import AttentionSite, ModelFamily, Role
from fastvideo_core.contract.model import heads_of
from tests.support.families import FAMILIES

LTX2 = FAMILIES["LTX-2"]


def _stack(**changes: Any) -> ModelFamily:
    return replace(LTX2, stack=replace(LTX2.stack, **changes))


def _sites(change: Callable[[AttentionSite, str], AttentionSite]) -> ModelFamily:
    def attentions(transformer: Any) -> Iterator[AttentionSite]:
        names = {id(module): name.rpartition(".")[2] for name, module in transformer.named_modules()}
        return (change(site, names[id(site.module)]) for site in LTX2.attentions(transformer))

    return replace(LTX2, attentions=attentions)


FAULTY: dict[str, tuple[ModelFamily, str]] = {
    "takes audio for text": (
        _stack(second_stream=False, returns_text=True),
        "test_a_policy_that_always_reuses_adds_the_residual",
    ),
    "forgets that audio is returned": (_stack(second_stream=False), "test_a_policy_that_never_skips_changes_no_bit"),
    "forgets that blocks are counted": (_stack(counted=False), "test_a_policy_that_never_skips_changes_no_bit"),
    "takes the audio's rotary embedding": (_stack(rotary=13), "test_tokens_in_another_order_give_the_same"),
    "forgets the video's other rotary embedding": (
        _stack(more_rotary=()),
        "test_tokens_in_another_order_give_the_same",
    ),
    "forgets that audio sees the video": (
        _sites(lambda site, name: replace(site, video_keys=False)),
        "test_tokens_in_another_order_give_the_same",
    ),
    "takes the audio's own attention for the video's": (
        _sites(lambda site, name: replace(site, role=Role.SELF) if name == "audio_attn1" else site),
        "test_calls_are_what_the_family_says",
    ),
    "gives the audio the video's heads": (replace(LTX2, heads=heads_of), "test_calls_are_what_the_family_says"),
    "forgets what guidance leaves out": (replace(LTX2, idle=None), "test_it_computes_what_the_bare_pipeline_does"),
}
"""By what is wrong: the family, and the test that is to fail."""
