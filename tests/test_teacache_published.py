"""All that was published for TEACACHE, as literals, and schedules by the published rule."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fv_teacache.checkpoints import PUBLISHED
from fv_teacache.policy import TeaCache

from fastvideo_core import Branch, CachedModel
from fastvideo_core.engine.caching.choice import prepare_policy
from tests.support.families import FAMILIES

DOCS = Path(__file__).parents[1] / "docs" / "teacache.md"

LITERAL: dict[tuple[str, bool], list[float]] = {
    ("Wan2.1-T2V-1.3B", False): [2.39676752e03, -1.31110545e03, 2.01331979e02, -8.29855975e00, 1.37887774e-01],
    ("Wan2.1-T2V-1.3B", True): [-5.21862437e04, 9.23041404e03, -5.28275948e02, 1.36987616e01, -4.99875664e-02],
    ("Wan2.1-T2V-14B", False): [-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404],
    ("Wan2.1-T2V-14B", True): [-3.03318725e05, 4.90537029e04, -2.65530556e03, 5.87365115e01, -3.15583525e-01],
    ("Wan2.1-I2V-14B-480P", False): [-3.02331670e02, 2.23948934e02, -5.25463970e01, 5.87348440e00, -2.01973289e-01],
    ("Wan2.1-I2V-14B-480P", True): [2.57151496e05, -3.54229917e04, 1.40286849e03, -1.35890334e01, 1.32517977e-01],
    ("Wan2.1-I2V-14B-720P", False): [-114.36346466, 65.26524496, -18.82220707, 4.91518089, -0.23412683],
    ("Wan2.1-I2V-14B-720P", True): [8.10705460e03, 2.13393892e03, -3.72934672e02, 1.66203073e01, -4.17769401e-02],
    ("HunyuanVideo", False): [7.33226126e02, -4.01131952e02, 6.75869174e01, -3.14987800e00, 9.61237896e-02],
    ("LTX-Video-0.9.1", False): [2.14700694e01, -1.28016453e01, 2.31279151e00, 7.92487521e-01, 9.69274326e-03],
    ("mochi-1-preview", False): [-3.51241319e03, 8.11675948e02, -6.09400215e01, 2.42429681e00, 3.05291719e-03],
    ("CogVideoX-2b", False): [-3.10658903e01, 2.54732368e01, -5.92380459e00, 1.75769064e00, -3.61568434e-03],
    ("CogVideoX-5b", False): [-1.53880483e03, 8.43202495e02, -1.34363087e02, 7.97131516e00, -5.23162339e-02],
    ("CogVideoX1.5-5B", False): [2.50210439e02, -1.65061612e02, 3.57804877e01, -7.81551492e-01, 3.58559703e-02],
    ("CogVideoX1.5-5B-I2V", False): [1.22842302e02, -1.04088754e02, 2.62981677e01, -3.06009921e-01, 3.71213220e-02],
}
"""Per checkpoint, and whether for use_ret_steps, as the files of https://github.com/ali-vilab/TeaCache have them."""


THRESHOLDS: dict[tuple[str, bool], tuple[float, ...]] = {
    ("Wan2.1-T2V-1.3B", False): (0.05, 0.07, 0.08),
    ("Wan2.1-T2V-1.3B", True): (0.05, 0.1),
    ("Wan2.1-T2V-14B", False): (0.14, 0.15, 0.2),
    ("Wan2.1-T2V-14B", True): (0.1, 0.2),
    ("Wan2.1-I2V-14B-480P", False): (0.13, 0.19, 0.26),
    ("Wan2.1-I2V-14B-480P", True): (0.2, 0.3),
    ("Wan2.1-I2V-14B-720P", False): (0.18, 0.2, 0.3),
    ("Wan2.1-I2V-14B-720P", True): (0.2, 0.3),
    ("HunyuanVideo", False): (0.1, 0.15),
    ("LTX-Video-0.9.1", False): (0.03, 0.05),
    ("mochi-1-preview", False): (0.06, 0.09),
    ("CogVideoX-2b", False): (0.1, 0.2),
    ("CogVideoX-5b", False): (0.1, 0.15, 0.2),
    ("CogVideoX1.5-5B", False): (0.1, 0.2, 0.3),
    ("CogVideoX1.5-5B-I2V", False): (0.1, 0.2, 0.3),
}
"""Those that the READMEs of the same repository have times for."""

SAME = {
    "CogVideoX-5b-I2V": "CogVideoX-5b",
    "LTX-Video": "LTX-Video-0.9.1",
    "Wan2.1-T2V-14B-Diffusers": "Wan2.1-T2V-14B",
}
"""Checkpoints with the coefficients of another; LTX-Video and diffusers' Wan by their contents."""


@pytest.mark.parametrize(("name", "ret_steps"), [*LITERAL, *((name, False) for name in SAME)], ids=str)
def test_a_threshold_that_was_published_is_taken_and_one_beyond_is_warned_of(name: str, ret_steps: bool) -> None:
    family = {"C": "CogVideoX", "H": "HunyuanVideo", "L": "LTX-Video", "m": "Mochi", "W": "Wan"}[name[0]]
    model = CachedModel(f"somebody/{name}", family, "", None, FAMILIES[family].all_signals, frozenset())
    known = THRESHOLDS[SAME.get(name, name), ret_steps]
    prepared = prepare_policy(TeaCache(use_ret_steps=ret_steps), model)
    assert prepared.threshold == known[0]
    assert prepared.coefficients == tuple(LITERAL[SAME.get(name, name), ret_steps])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for threshold in known:
            assert prepare_policy(TeaCache(threshold, ret_steps), model).threshold == threshold
    for threshold in (known[0] - 0.001, known[-1] + 0.001):
        with pytest.warns(UserWarning, match=f"outside what was published for .*, {known[0]} to {known[-1]}"):
            prepare_policy(TeaCache(threshold, ret_steps), model)


def published_schedule(changes: list[float], coefficients: list[float], threshold: float, ret_steps: bool) -> str:
    """The published rule for one branch, with predictions that are not below zero."""
    rescale, total, letters = np.poly1d(coefficients), 0.0, ""
    for index, change in enumerate(changes):
        if index < (5 if ret_steps else 1) or (not ret_steps and index == len(changes) - 1):
            total, letters = 0.0, letters + "C"
            continue
        total += max(0.0, float(rescale(change)))
        skips = total < threshold and not letters.endswith("R" * 10)
        total, letters = (total, letters + "R") if skips else (0.0, letters + "C")
    return letters


@pytest.mark.parametrize(("name", "ret_steps"), LITERAL, ids=lambda value: str(value))
def test_all_published_checkpoints_are_scheduled_by_the_published_rule(name: str, ret_steps: bool) -> None:
    family = {"C": "CogVideoX", "H": "HunyuanVideo", "L": "LTX-Video", "m": "Mochi", "W": "Wan"}[name[0]]
    description = FAMILIES[family]
    model = CachedModel(name, family, "", None, description.all_signals, frozenset())
    seen = set()
    for low, high in ((0.0, 0.05), (0.02, 0.2), (0.1, 0.4)):
        for threshold in (0.02, 0.05, 0.1, 0.3):
            changes = [0.0, *(low + (high - low) * (0.5 + 0.5 * np.sin(step / 2)) for step in range(1, 40))]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                policy = prepare_policy(TeaCache(threshold, ret_steps), model)
            schedule = letters_of(policy.plan(Branch(model, "", 0, 40, changes=tuple(changes))))
            assert schedule == published_schedule(changes, LITERAL[name, ret_steps], threshold, ret_steps)
            seen.add(schedule)
    assert len(seen) > 3


@pytest.mark.parametrize(("name", "ret_steps"), LITERAL, ids=lambda value: str(value))
def test_the_docs_say_where_a_polynomial_is_negative(name: str, ret_steps: bool) -> None:
    title = f"| {name}{', `use_ret_steps`' if ret_steps else ''} | "
    row = next(line for line in DOCS.read_text("utf-8").splitlines() if line.startswith(title))
    spans = [tuple(map(float, span.split(" to "))) for span in row.removeprefix(title)[:-2].split(", ") if "to" in span]
    for change in np.linspace(0, 0.4, 4001):
        if all(abs(change - end) > 0.0006 for span in spans for end in span):
            inside = any(low < change < high for low, high in spans)
            assert inside == (np.polyval(LITERAL[name, ret_steps], change) < 0), change


@pytest.mark.parametrize(
    "name",
    [
        "a-r-r-o-w/LTX-Video-0.9.1-diffusers",
        "/cache/hub/models--a-r-r-o-w--LTX-Video-0.9.1-diffusers/snapshots/0b2f",
        "C:\\hub\\models--Lightricks--LTX-Video\\snapshots\\0b2f\\",
    ],
)
def test_the_ltx_checkpoint_and_folders_of_a_hub_are_recognised(name: str) -> None:
    family = FAMILIES["LTX-Video"]
    prepared = prepare_policy(TeaCache(), CachedModel(name, "LTX-Video", "", None, family.all_signals, frozenset()))
    assert prepared.coefficients == tuple(LITERAL["LTX-Video-0.9.1", False])


def test_another_folder_of_snapshots_is_no_checkpoint() -> None:
    for name, checkpoint in (("a/snapshots/b", "b"), ("models--a--b/b", "b"), ("models--x--y/snapshots/z/", "y")):
        assert CachedModel(name, "Wan", "", None, frozenset(), frozenset()).checkpoint == checkpoint


def test_no_checkpoint_is_left_out() -> None:
    assert len(LITERAL) == len(PUBLISHED) == 15


def letters_of(plan: Any) -> str:
    return "".join(action.value[0] for action in plan)
