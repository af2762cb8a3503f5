"""Caching policies, one of each kind, with models small enough for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from fastvideo_core import CachePolicy
from tests.support import models

firstblock = pytest.importorskip("fv_firstblock")
magcache = pytest.importorskip("fv_magcache")
taylorseer = pytest.importorskip("fv_taylorseer")
teacache = pytest.importorskip("fv_teacache.policy")

STEPS = 9
RATIOS = [1.0, 1.02, 0.97, 1.01, 0.99, 1.0, 1.01, 0.98, 1.0]
LINEAR = (1.0, 0.0)


def wan() -> tuple[Any, dict[str, Any]]:
    pipe = models.build_wan_pipeline()
    torch.manual_seed(3)
    pipe.transformer = models.build_wan_transformer(freq_dim=32)
    return pipe, {}


def cogvideox() -> tuple[Any, dict[str, Any]]:
    return models.build_cogvideox_pipeline(time_embed_dim=32), {"max_sequence_length": 16}


def ltx() -> tuple[Any, dict[str, Any]]:
    options = {"height": 64, "width": 96, "num_frames": 17, "negative_prompt": "dog"}
    return models.build_ltx_pipeline(), options


@dataclass(frozen=True)
class Case:
    """A policy on a kind of model: one that never skips, and one that does."""

    model: Callable[[], tuple[Any, dict[str, Any]]]
    never: Callable[[], CachePolicy]
    skips: Callable[[], CachePolicy]


def tea(threshold: float, **settings: Any) -> Callable[[], CachePolicy]:
    return lambda: teacache.TeaCache(threshold, coefficients=LINEAR, **settings)


CASES = {
    "TEACACHE by TIME_EMBEDDING": Case(cogvideox, tea(0.0), tea(2.0)),
    "TEACACHE by TIME_PROJECTION": Case(wan, tea(0.0, use_ret_steps=True), tea(0.9, use_ret_steps=True)),
    "TEACACHE by MODULATED_INPUT": Case(ltx, tea(0.0), tea(0.2)),
    "FIRSTBLOCK": Case(wan, lambda: firstblock.FirstBlockCache(0.0), lambda: firstblock.FirstBlockCache(0.3)),
    "MAGCACHE": Case(
        wan,
        lambda: magcache.MagCache(max_skips=0, ratios=RATIOS),
        lambda: magcache.MagCache(0.05, ratios=RATIOS),
    ),
    "TAYLORSEER": Case(wan, lambda: taylorseer.TaylorSeer(1), lambda: taylorseer.TaylorSeer(3, warm_up=2)),
}
