"""SLIDING_TILE_ATTN computes what its windows mean, on full and ragged canvases, in any model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from fv_sta.backend import SlidingTileAttention
from fv_sta.default import Default, default_for, pairs_of_blocks, window_that_reaches
from fv_sta.kernels import KERNELS, fa4
from fv_sta.observer import OBSERVER, Observer
from fv_sta.sparse import Sparse
from fv_sta.strategy import Table
from fv_sta.tiles import BLOCK, Tiling, Triple, tiling_for
from fv_sta.windows import block_lists, dense_mask, effective, visible_on_axis
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvideo_core import AttentionCall, Capabilities, KernelUsed, Probe, Role, Run, TokenLayout, attach
from fastvideo_core.errors import BackendMismatchError, BackendUnavailableError, InputError
from fastvideo_core.testing import AttentionBackendSuite
from fastvideo_core.testing.cases import Case, Inputs, exact_attention, relative_error
from tests.support.models import (
    build_cogvideox_pipeline,
    build_hunyuan_pipeline,
    build_ltx_pipeline,
    build_wan_pipeline,
)
from tests.support.models import run_to_latents as run

LARGE: dict[str, Any] = {"height": 160, "width": 208}
"""A 3x10x13 grid of tokens."""


def configure(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in {"TILE": "2,8,8", "WINDOW": "1,1,1", "DENSE": "0", **values}.items():
        monkeypatch.setenv(f"FASTVIDEO_STA_{name}", value)


class OneHeadSize(SlidingTileAttention):
    """With fewer things to compile for."""

    capabilities = Capabilities(
        roles=frozenset({Role.JOINT}),
        lossless=False,
        tolerance=0.02,
        head_dims=frozenset({64}),
        dtypes=frozenset({"bfloat16"}),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("real_flex")
class TestFlex(AttentionBackendSuite):
    """Windows of one tile, so that nearly everything is sparse; most of the suite's canvases are ragged."""

    backend = OneHeadSize()
    settings: ClassVar[Mapping[str, Any]] = {"tile": (1, 8, 16), "window": (1, 1, 1), "dense": 0, "kernel": "flex"}

    def visible(self, case: Case, inputs: Inputs) -> torch.Tensor:
        text = case.layout.text_after
        return torch.from_numpy(dense_mask(Tiling(case.grid, (1, 8, 16)), (1, 1, 1), text, text))


class TestInstalled(AttentionBackendSuite):
    """Canvases of a single tile are full attention."""

    backend = "SLIDING_TILE_ATTN"


triples = st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 9))
tiles = st.sampled_from([(2, 8, 8), (1, 8, 16), (4, 4, 8), (6, 8, 8), (128, 1, 1), (1, 2, 64), (3, 32, 4)])


@settings(max_examples=120, deadline=None)
@given(grid=triples, tile=tiles, window=triples, text=st.sampled_from([(0, 0), (3, 2), (130, 128), (200, 131)]))
def test_block_lists_equal_the_definition(grid: Triple, tile: Triple, window: Triple, text: tuple[int, int]) -> None:
    """The definition, token by token, against the lists expanded over the places of tile order."""
    tiling = Tiling(grid, tile)
    lists = block_lists(tiling, window, *text)
    places = [tiling.places + count for count in text]
    seen = np.zeros([-(-count // BLOCK) * BLOCK for count in places], dtype=bool)
    real = np.pad(tiling.real, (0, seen.shape[1] - tiling.places), constant_values=True)
    for row in range(len(lists.full_count)):
        rows = slice(row * BLOCK, (row + 1) * BLOCK)
        for block in lists.full[row, : lists.full_count[row]]:
            seen[rows, block * BLOCK : (block + 1) * BLOCK] = True
        for block in lists.partial[row, : lists.partial_count[row]]:
            columns = slice(block * BLOCK, (block + 1) * BLOCK)
            assert not seen[rows, columns].any(), "a block is listed once"
            seen[rows, columns] = real[columns]
    queries, keys = (
        np.concatenate((tiling.scatter, np.arange(tiling.places, tiling.places + count))) for count in text
    )
    assert np.array_equal(seen[np.ix_(queries, keys)], by_definition(grid, tile, window, text))
    padding = np.setdiff1d(np.arange(tiling.places), tiling.scatter)
    assert not seen[np.ix_(queries, padding)].any()


def by_definition(grid: Triple, tile: Triple, window: Triple, text: tuple[int, int]) -> Any:
    counts = [-(-size // length) for size, length in zip(grid, tile, strict=True)]
    tokens = np.indices(grid).reshape(3, -1)
    seen = np.ones((tokens.shape[1], tokens.shape[1]), dtype=bool)
    for axis in range(3):
        position = tokens[axis] // tile[axis]
        if window[axis] >= counts[axis]:
            continue
        reach = window[axis] // 2
        centre = np.clip(position, reach, counts[axis] - 1 - reach)
        seen &= np.abs(centre[:, None] - position[None]) <= reach
    return np.pad(seen, ((0, text[0]), (0, text[1])), constant_values=True)


@given(grid=triples, tile=tiles)
def test_tile_order_is_a_permutation_with_padding_below_a_block_a_tile(grid: Triple, tile: Triple) -> None:
    tiling = Tiling(grid, tile)
    assert sorted(tiling.gather[tiling.real].tolist()) == list(range(tiling.tokens))
    assert np.array_equal(tiling.gather[tiling.scatter], np.arange(tiling.tokens))
    assert tiling.places - tiling.tokens < BLOCK * math.prod(tiling.tiles)


@pytest.mark.parametrize(
    ("count", "window", "acts"), [(10, 3, 3), (10, 4, 5), (10, 2, 3), (5, 4, 5), (5, 5, 5), (3, 7, 3), (4, 2, 3)]
)
def test_an_even_window_acts_as_the_next_odd_one(count: int, window: int, acts: int) -> None:
    seen = visible_on_axis(count, window)
    assert set(seen.sum(axis=1)) == {acts}
    assert effective((window,) * 3, (count,) * 3) == (acts,) * 3


def test_auto_pads_least() -> None:
    for grid in ((21, 30, 52), (13, 17, 30), (9, 8, 8), (5, 5, 5)):
        best = tiling_for(grid, None)
        others = [(6, 8, 8), (2, 8, 8), (4, 8, 8), (3, 32, 4), (4, 4, 8)]
        assert math.prod(best.tile) % BLOCK == 0
        assert best.places <= min(Tiling(grid, tile).places for tile in others)


CANVASES = [(21, 30, 52), (21, 45, 80), (31, 30, 53), (16, 22, 40), (13, 30, 45), (31, 22, 40)]
"""Of Wan at 480p and 720p, HunyuanVideo-1.5, LTX-Video, CogVideoX and Wan 2.2 5B; 6x8x8 divides none."""


@pytest.mark.parametrize("grid", CANVASES)
def test_the_default_tile_reaches_as_far_as_the_published_one_with_less_work(grid: Triple) -> None:
    """Along each axis every token sees 6, 8 and 8 tokens to either side, or all up to the border."""
    backend = SlidingTileAttention()
    backend.take_settings({})
    tiling, window = backend.tiling(grid), default_for(grid).window
    for size, tile, count, reach in zip(grid, tiling.tile, window, (6, 8, 8), strict=True):
        places = np.arange(size)
        seen = by_definition((size, 1, 1), (tile, 1, 1), (count, 1, 1), (0, 0))
        near = np.abs(places[:, None] - places[None]) <= reach
        assert seen[near].all()
    published = block_lists(Tiling(grid, (6, 8, 8)), (3, 3, 3)).work
    assert block_lists(tiling, window).work < 0.92 * published
    others = [(2, 8, 8), (4, 4, 8), (1, 8, 16), (8, 4, 4), (4, 8, 4), (2, 16, 4), (2, 4, 16)]
    least = min(block_lists(Tiling(grid, t), window_that_reaches(grid, t)).work for t in others)
    assert block_lists(tiling, window).work <= least


@pytest.mark.parametrize("grid", [(21, 30, 52), (5, 9, 13), (4, 16, 16)])
@pytest.mark.parametrize("tile", [(6, 8, 8), (2, 8, 8), (3, 32, 4), (32, 4, 3)])
def test_work_is_counted_without_lists_as_lists_have_it(grid: Triple, tile: Triple) -> None:
    window = window_that_reaches(grid, tile)
    assert pairs_of_blocks(grid, Default(tile, window)) == block_lists(Tiling(grid, tile), window).work


@pytest.mark.parametrize(
    ("grid", "config", "tile", "window"),
    [
        ((30, 48, 80), {}, (6, 8, 8), (3, 3, 3)),
        ((18, 48, 80), {}, (6, 8, 8), (3, 3, 3)),
        ((21, 30, 52), {"window": (3, 3, 3)}, (6, 8, 8), (3, 3, 3)),
        ((21, 30, 52), {"tile": (2, 8, 8)}, (2, 8, 8), (3, 3, 3)),
        ((21, 30, 52), {"tile": "auto"}, (16, 6, 4), (2, 3, 3)),
        ((21, 30, 52), {"tile": "6,8,8"}, (6, 8, 8), (3, 3, 3)),
        ((21, 30, 52), {"file": Table(np.array([[[(1, 3, 3)]]], dtype=np.int32))}, (6, 8, 8), (1, 3, 3)),
    ],
)
def test_the_published_tile_is_kept_where_it_divides_the_canvas_and_where_windows_are_given(
    grid: Triple, config: dict[str, Any], tile: Triple, window: Triple
) -> None:
    backend = SlidingTileAttention()
    backend.take_settings(config)
    tiling = backend.tiling(grid)
    assert tiling.tile == tile
    assert backend._strategy(tiling).windows(5, 0, 10, 1) == (window,)


def qkv(tokens: int, heads: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(1, tokens, heads, 16), torch.randn(1, tokens, heads, 16), torch.randn(1, tokens, heads, 16)


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(4, 16, 16), (5, 9, 13)])
@pytest.mark.parametrize("text", [0, 37])
@pytest.mark.usefixtures("real_flex")
def test_each_head_has_its_own_window(grid: Triple, text: int) -> None:
    windows: list[Triple] = [(1, 1, 1), (1, 2, 1)]
    backend = SlidingTileAttention()
    backend.take_settings({"file": Table(np.array([[windows]], dtype=np.int32)), "tile": (2, 8, 8)})
    inputs = Inputs(*qkv(math.prod(grid) + text), None)
    layout = TokenLayout(grid, text_after=text, text_lengths=(text,) if text else None)
    result = backend.load()(inputs.query, inputs.key, inputs.value, AttentionCall(Role.JOINT, 0, 0, 1, "", layout))
    tiling = Tiling(grid, (2, 8, 8))
    visible = torch.from_numpy(np.stack([dense_mask(tiling, window, text, text) for window in windows]))
    assert relative_error(result, exact_attention(inputs, None, visible)) < 1e-5


BUILDERS = {"wan": build_wan_pipeline, "hunyuan": build_hunyuan_pipeline, "ltx": build_ltx_pipeline}


@pytest.mark.slow
@pytest.mark.parametrize("family", BUILDERS)
def test_ordering_once_per_forward_pass_changes_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch)
    pipe = BUILDERS[family]()
    size = {"height": 320, "width": 416, "num_frames": 17} if family == "ltx" else LARGE
    names = list(pipe.transformer.state_dict())
    bare, frames, receipts = run(pipe, **size), {}, {}
    for order in ("forward", "layer"):
        monkeypatch.setenv("FASTVIDEO_STA_ORDER", order)
        with attach(pipe, attention_backend="SLIDING_TILE_ATTN") as fv:
            frames[order] = run(pipe, **size)
            receipts[order] = next(iter(fv.receipt.attention.values())).details
            assert list(pipe.transformer.state_dict()) == names
    np.testing.assert_allclose(frames["forward"], frames["layer"], atol=1e-6)
    assert abs(frames["forward"] - bare).max() > 1e-3, "the windows are small enough to matter"
    assert receipts["forward"]["token_order"] == "once per forward pass"
    assert np.array_equal(run(pipe, **size), bare)


@pytest.mark.slow
@pytest.mark.parametrize("build", [build_wan_pipeline, build_hunyuan_pipeline])
def test_dense_steps_and_whole_windows_are_full_attention(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = build()
    bare = run(pipe, **LARGE)
    for values in ({"DENSE": "1"}, {"WINDOW": "2,2,2"}):
        configure(monkeypatch, **values)
        with attach(pipe, attention_backend="SLIDING_TILE_ATTN") as fv:
            np.testing.assert_allclose(run(pipe, **LARGE), bare, atol=1e-5)
        details = next(iter(fv.receipt.attention.values())).details
        assert (details["work"], list(details["kernels"])) == (1.0, ["dense"])


def test_modulation_per_token_is_brought_into_order_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Wan 2.2 TI2V, whose timestep is one for each token."""
    configure(monkeypatch)
    pipe = build_wan_pipeline()
    torch.manual_seed(1)
    tokens = 3 * 10 * 13
    inputs = {
        "hidden_states": torch.randn(1, 16, 3, 20, 26),
        "timestep": torch.rand(1, tokens) * 1000,
        "encoder_hidden_states": torch.randn(1, 7, 16),
        "return_dict": False,
    }
    outputs = {}
    for order in ("forward", "layer"):
        monkeypatch.setenv("FASTVIDEO_STA_ORDER", order)
        with attach(pipe, attention_backend="SLIDING_TILE_ATTN") as fv, fv.run(1) as step_done, torch.no_grad():
            outputs[order] = pipe.transformer(**inputs)[0]
            step_done()
        assert fv.receipt.attention["SELF"].backend == "SLIDING_TILE_ATTN"
    torch.testing.assert_close(outputs["forward"], outputs["layer"])


@pytest.mark.slow
def test_compiled_blocks_see_the_order_too(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch)
    pipe = build_wan_pipeline()
    with attach(pipe, attention_backend="SLIDING_TILE_ATTN"):
        expected = run(pipe, **LARGE)
        pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="aot_eager")
        np.testing.assert_allclose(run(pipe, **LARGE), expected, atol=1e-5)


@pytest.mark.slow
def test_the_receipt_tells_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, DENSE="0.3", TILE="1,8,16")
    pipe = build_wan_pipeline()
    with attach(pipe, attention_backend="sliding-tile-attn") as fv:
        run(pipe, **LARGE, guidance_scale=1.0)
    served = fv.receipt.attention
    assert (served["SELF"].backend, served["CROSS"].backend) == ("SLIDING_TILE_ATTN", "TORCH_SDPA")
    details = served["SELF"].details
    assert (details["tile"], details["tiles"]) == ([1, 8, 16], [3, 2, 1])
    assert details["padding"] == pytest.approx((3 * (128 + 128)) / 390 - 1)
    assert details["kernels"] == {"flex": 4, "dense": 2}, "one of three steps is dense, in two layers"
    assert details["density"] < details["work"] < 1 + details["padding"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"TILE": "3,3,3"}, "FASTVIDEO_STA_TILE is '3,3,3': a tile of 3x3x3 has 27 tokens; it needs a multiple of 128"),
        ({"TILE": "6,8"}, "FASTVIDEO_STA_TILE is '6,8': it must be three whole numbers, 1 or more"),
        ({"WINDOW": "nan,1,1"}, "FASTVIDEO_STA_WINDOW is 'nan,1,1'"),
        ({"WINDOW": "-1,1,1"}, "FASTVIDEO_STA_WINDOW is '-1,1,1'"),
        (
            {"DENSE": "2"},
            "FASTVIDEO_STA_DENSE is '2': input should be less than or equal to 1; it sets dense: the share of",
        ),
        ({"DENSE": "nan"}, "FASTVIDEO_STA_DENSE is 'nan'"),
        ({"ORDER": "never"}, "FASTVIDEO_STA_ORDER is 'never': input should be 'forward' or 'layer'"),
        (
            {"KERNEL": "flax"},
            "FASTVIDEO_STA_KERNEL is 'flax': input should be 'fa4', 'fastvideo_kernel', 'flex' or 'st_attn'",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused_at_construction(
    monkeypatch: pytest.MonkeyPatch, wan_pipeline: Any, values: dict[str, str], message: str
) -> None:
    configure(monkeypatch, **values)
    with pytest.raises(InputError, match=message):
        attach(wan_pipeline, attention_backend="SLIDING_TILE_ATTN")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"WINDOW": "3,1,1"}, "the window 3x1x1 is larger than the canvas of 2x2x2 tiles; the largest window"),
        ({"WINDOW": ""}, "has 2x2x2 tiles of 2x8x8, which the default window of 3x3x3 covers"),
        ({"TILE": "6,32,32"}, "the canvas of 3x10x13 tokens is not larger than one tile of 6x32x32"),
    ],
)
def test_what_does_not_fit_the_canvas_is_refused_before_a_step(
    monkeypatch: pytest.MonkeyPatch, wan_pipeline: Any, values: dict[str, str], message: str
) -> None:
    configure(monkeypatch, **values)
    monkeypatch.setattr(SlidingTileAttention, "attend", lambda *_: pytest.fail("a step was run"))
    with (
        attach(wan_pipeline, attention_backend="SLIDING_TILE_ATTN"),
        pytest.raises(InputError, match=message),
    ):
        run(wan_pipeline, **LARGE)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("fa4", r"FlashAttention 4 \(block-sparse\) .*; FASTVIDEO_STA_KERNEL asks for it"),
        ("st_attn", r"st_attn .*; FASTVIDEO_STA_KERNEL asks for it"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_kernel_that_was_asked_for_and_is_not_there(
    monkeypatch: pytest.MonkeyPatch, wan_pipeline: Any, kernel: str, message: str
) -> None:
    configure(monkeypatch, KERNEL=kernel)
    with pytest.raises(BackendUnavailableError, match=message):
        attach(wan_pipeline, attention_backend="SLIDING_TILE_ATTN")


CANVAS = Tiling((30, 48, 80), (6, 8, 8))


RAGGED_CANVAS = Tiling((21, 30, 52), (6, 8, 8))


def sparse(tiling: Tiling = CANVAS, *windows: Triple, text: tuple[int, int] = (0, 0)) -> Sparse:
    return Sparse(tiling, windows or ((3, 3, 3),), *text, None)


@pytest.mark.parametrize(
    ("sparse", "head_dim", "dtype", "device", "message"),
    [
        (sparse(), 64, "float16", "cuda", None),
        (sparse(), 72, "bfloat16", "cuda", None),
        (sparse(text=(256, 37)), 128, "bfloat16", "cuda", None),
        (sparse(CANVAS, (1, 1, 1), (5, 3, 1)), 128, "bfloat16", "cuda", None),
        (sparse(), 56, "bfloat16", "cuda", "fa4 takes head sizes from 64 to 128, not 56"),
        (sparse(), 136, "bfloat16", "cuda", "head sizes from 64 to 128, not 136"),
        (sparse(), 100, "bfloat16", "cuda", "head sizes from 64 to 128, not 100"),
        (sparse(), 128, "float32", "cuda", "fa4 takes bfloat16 and float16 on cuda, not float32 on cuda"),
        (sparse(), 128, "bfloat16", "cpu", "not bfloat16 on cpu"),
        (sparse(RAGGED_CANVAS, (1, 1, 1), (3, 3, 3), text=(256, 37)), 128, "bfloat16", "cuda", None),
        (sparse(Tiling((21, 30, 52), (16, 6, 4))), 128, "bfloat16", "cuda", None),
    ],
)
def test_what_fa4_takes(sparse: Sparse, head_dim: int, dtype: str, device: str, message: str | None) -> None:
    expect(KERNELS["fa4"].mismatch(sparse, head_dim, dtype, device), message)


HUNYUAN, STEP_VIDEO, WAN = CANVAS, Tiling((36, 48, 48), (6, 8, 8)), Tiling((18, 48, 80), (6, 8, 8))


@pytest.mark.parametrize(
    ("sparse", "head_dim", "dtype", "device", "message"),
    [
        (sparse(HUNYUAN, (3, 3, 3), (5, 6, 1), text=(256, 1)), 128, "bfloat16", "cuda", None),
        (sparse(HUNYUAN, (3, 3, 5), (5, 3, 3), text=(256, 256)), 128, "bfloat16", "cuda", None),
        (sparse(HUNYUAN, (1, 6, 10), (5, 6, 10), text=(256, 37)), 128, "bfloat16", "cuda", None),
        (sparse(STEP_VIDEO), 128, "bfloat16", "cuda", None),
        (sparse(WAN), 128, "bfloat16", "cuda", None),
        (sparse(HUNYUAN, text=(256, 0)), 128, "bfloat16", "cuda", "30x48x80 with 1 to 256 tokens of text, not with 0"),
        (sparse(HUNYUAN, text=(300, 257)), 128, "bfloat16", "cuda", "with 1 to 256 tokens of text, not with 257"),
        (sparse(STEP_VIDEO, text=(1, 1)), 128, "bfloat16", "cuda", "36x48x48 without text, not with 1"),
        (sparse(WAN, text=(9, 9)), 128, "bfloat16", "cuda", "18x48x80 without text, not with 9"),
        (sparse(HUNYUAN, (1, 3, 3), text=(9, 9)), 128, "bfloat16", "cuda", r"not compute the windows [(1, 3, 3)] on"),
        (sparse(HUNYUAN, (3, 3, 3), (3, 3, 7), text=(9, 9)), 128, "bfloat16", "cuda", "windows [(3, 3, 7)]"),
        (sparse(STEP_VIDEO, (3, 3, 5)), 128, "bfloat16", "cuda", "windows [(3, 3, 5)]"),
        (sparse(WAN, (3, 6, 1)), 128, "bfloat16", "cuda", None),
        (sparse(WAN, (3, 6, 7)), 128, "bfloat16", "cuda", "windows [(3, 6, 7)]"),
        (sparse(RAGGED_CANVAS), 128, "bfloat16", "cuda", "st_attn takes the canvases 30x48x80, 36x48x48, 18x48x80 in"),
        (sparse(Tiling((36, 48, 48), (4, 8, 8))), 128, "bfloat16", "cuda", "in tiles of 6x8x8 alone"),
        (sparse(STEP_VIDEO), 64, "bfloat16", "cuda", "not bfloat16 and 64 on cuda"),
        (sparse(STEP_VIDEO), 128, "float16", "cuda", "not float16 and 128 on cuda"),
        (sparse(STEP_VIDEO), 128, "bfloat16", "cpu", "not bfloat16 and 128 on cpu"),
    ],
)
def test_what_st_attn_takes(sparse: Sparse, head_dim: int, dtype: str, device: str, message: str | None) -> None:
    expect(KERNELS["st_attn"].mismatch(sparse, head_dim, dtype, device), message)


def expect(problem: str | None, message: str | None) -> None:
    assert (problem is None) == (message is None), problem
    assert message is None or message in str(problem)


def test_flex_takes_everything() -> None:
    for tiling, device in ((RAGGED_CANVAS, "cpu"), (CANVAS, "cuda"), (Tiling((1, 1, 7), (2, 8, 8)), "cuda")):
        assert KERNELS["flex"].mismatch(sparse(tiling, text=(9, 9)), 24, "float32", device) is None


FLEX = KernelUsed("torch.nn.attention.flex_attention.flex_attention", torch.__version__)
SDPA = KernelUsed("torch.nn.functional.scaled_dot_product_attention", version("torch"))


@pytest.mark.parametrize(
    ("config", "step", "served"),
    [
        ({"window": (1, 1, 1), "dense": 0.5}, 0, SDPA),
        ({"window": (1, 1, 1), "dense": 0.5}, 1, SDPA),
        ({"window": (1, 1, 1), "dense": 0.5}, 2, FLEX),
        ({"window": (1, 1, 1), "dense": 0}, 0, FLEX),
        ({"window": (2, 2, 2), "dense": 0}, 3, SDPA),
        ({"window": (9, 9, 9), "dense": 0}, 3, SDPA),
        ({"file": Table(np.array([[[(2, 2, 2), (1, 1, 1)]]] * 4, dtype=np.int32))}, 3, FLEX),
        ({"file": Table(np.array([[[(2, 2, 2), (2, 2, 3)]]] * 4, dtype=np.int32))}, 3, SDPA),
    ],
)
def test_each_call_says_which_kernel_computed_it(config: dict[str, Any], step: int, served: KernelUsed) -> None:
    backend = SlidingTileAttention()
    backend.take_settings({"tile": (2, 8, 8), **config})
    call = AttentionCall(Role.SELF, 0, step, 4, "", TokenLayout((4, 16, 16)))
    backend.load()(*qkv(4 * 16 * 16), call)
    assert call.served == served


def test_what_a_search_computes_beside_does_not_count_as_served() -> None:
    backend = SlidingTileAttention()
    backend.take_settings({"tile": (2, 8, 8)})
    call = AttentionCall(Role.SELF, 0, 0, 1, "", TokenLayout((4, 16, 16)))
    token = OBSERVER.set(observer := Observer([(1, 1, 1), (2, 2, 2)]))
    try:
        exact = backend.load()(*qkv(4 * 16 * 16), call)
    finally:
        OBSERVER.reset(token)
    assert call.served == SDPA
    torch.testing.assert_close(exact, exact_attention(Inputs(*qkv(4 * 16 * 16), None), None).float())
    errors = observer.take()
    assert errors.shape == (1, 1, 2, 2)
    assert (errors[0, 0, 0] > 0.1).all(), "one tile is not the canvas"
    assert not errors[0, 0, 1].any(), "all tiles are"


def a_run(**changes: Any) -> Run:
    layout = TokenLayout((30, 48, 80), text_after=256, text_lengths=(37,))
    values = {"family": "Wan", "role": Role.SELF, "layout": layout, "num_steps": 4, "num_layers": 2, "num_heads": 1}
    return Run(**{**values, "head_dim": 128, "dtype": "bfloat16", "device": "cuda:1", **changes})


@pytest.mark.parametrize(
    ("kernel", "changes", "message"),
    [
        ("fa4", {}, None),
        ("fa4", {"device": "cuda"}, None),
        ("fa4", {"device": "cpu"}, "fa4 takes bfloat16 and float16 on cuda, not bfloat16 on cpu"),
        ("fa4", {"dtype": "float32"}, "not float32 on cuda"),
        ("fa4", {"head_dim": 256}, "not 256"),
        ("fa4", {"layout": TokenLayout((21, 30, 52))}, None),
        ("st_attn", {}, None),
        ("st_attn", {"layout": TokenLayout((30, 48, 80), text_after=256, text_lengths=(37, 0))}, "not with 0"),
        ("st_attn", {"layout": TokenLayout((30, 48, 80), text_after=257)}, "not with 257"),
        ("st_attn", {"layout": TokenLayout((18, 48, 80))}, None),
        ("flex", {"device": "cuda:1", "dtype": "float32", "layout": TokenLayout((21, 30, 52))}, None),
    ],
)
def test_a_run_that_no_kernel_can_compute_is_refused_before_a_step(
    monkeypatch: pytest.MonkeyPatch, kernel: str, changes: dict[str, Any], message: str | None
) -> None:
    monkeypatch.setattr(KERNELS[kernel], "probe", lambda device: Probe(True, "a.kernel", "1"))
    backend = SlidingTileAttention()
    backend.take_settings({"kernel": kernel})
    if message is None:
        backend.start_run(a_run(**changes))
    else:
        with pytest.raises(BackendMismatchError, match=message):
            backend.start_run(a_run(**changes))


def test_text_in_front_of_the_video_is_refused_before_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch)
    monkeypatch.setattr(SlidingTileAttention, "attend", lambda *_: pytest.fail("a step was run"))
    pipe = build_cogvideox_pipeline()
    message = (
        r"SLIDING_TILE_ATTN takes text, or frames .* behind the video; CogVideoX has \d+ such tokens in front of it; "
    )
    with attach(pipe, attention_backend="SLIDING_TILE_ATTN"), pytest.raises(BackendMismatchError, match=message):
        run(pipe)


def test_a_forced_kernel_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, KERNEL="fa4")
    monkeypatch.setattr(fa4, "probe", lambda device: Probe(True, "flash_attn.cute.flash_attn_func", "4.0.0"))
    backend = SlidingTileAttention()
    q, k, v = qkv(4 * 16 * 16)
    with pytest.raises(BackendMismatchError, match=r"SLIDING_TILE_ATTN \(FASTVIDEO_STA_KERNEL=fa4\) cannot .*on cpu"):
        backend.attend(q, k, v, AttentionCall(Role.SELF, 0, 0, 1, "", TokenLayout((4, 16, 16))))


@pytest.mark.slow
def test_wan_2_2_orders_both_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch)
    pipe = build_wan_pipeline(experts=2)
    with attach(pipe, attention_backend="SLIDING_TILE_ATTN") as fv:
        run(pipe, **LARGE)
        assert fv.receipt.attention["SELF"].details["kernels"] == {"flex": 12}
