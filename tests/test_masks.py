"""A mask comes down to its simplest kind, and attention with it is what it was with the mask itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from fastvideo_core import AttentionFunction, MaskKind, Need, Role, TokenLayout
from fastvideo_core.engine.attention.masks import MaskReader, reduce_mask
from fastvideo_core.engine.attention.resolve import resolve
from fastvideo_core.engine.attention.route import LoadedBackend, Route
from fastvideo_core.errors import BackendMismatchError
from tests.support.backends import Recorder, plugins_with

KEYS = 6


def lengths(*counts: int) -> torch.Tensor:
    """(batch, KEYS), True for the first n keys of each entry."""
    return torch.arange(KEYS) < torch.tensor(counts)[:, None]


def additive(seen: torch.Tensor) -> torch.Tensor:
    return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))


HOLES = torch.tensor([[True, False, True, True, False, True]]).expand(2, KEYS)


@pytest.mark.parametrize(
    ("mask", "kind", "key_lengths"),
    [
        (lengths(KEYS, KEYS), MaskKind.NONE, None),
        (torch.zeros(2, 1, 1, KEYS), MaskKind.NONE, None),
        (lengths(4, 4), MaskKind.KEY_LENGTH, (4, 4)),
        (lengths(4, 2)[:, None, None], MaskKind.KEY_LENGTH, (4, 2)),
        (lengths(3)[:, None, None], MaskKind.KEY_LENGTH, (3, 3)),
        (lengths(4, 2)[:, None, None].expand(2, 3, 5, KEYS), MaskKind.KEY_LENGTH, (4, 2)),
        (additive(lengths(4, 2)), MaskKind.KEY_LENGTH, (4, 2)),
        (additive(lengths(4, 2)).clamp(min=torch.finfo(torch.float32).min), MaskKind.KEY_LENGTH, (4, 2)),
        (additive(lengths(4, 2)).clamp(min=-10_000).bfloat16(), MaskKind.KEY_LENGTH, (4, 2)),
        (torch.full((2, KEYS), -100.0), MaskKind.ARBITRARY, None),
        (HOLES, MaskKind.ARBITRARY, None),
        (lengths(4, 0), MaskKind.ARBITRARY, None),
        (torch.ones(5, KEYS, dtype=torch.bool).tril(), MaskKind.ARBITRARY, None),
        (torch.full((2, KEYS), 0.5), MaskKind.ARBITRARY, None),
    ],
)
def test_kinds(mask: torch.Tensor, kind: MaskKind, key_lengths: tuple[int, ...] | None) -> None:
    reduced = reduce_mask(mask, batch=2, keys=KEYS)
    assert (reduced.kind, reduced.key_lengths) == (kind, key_lengths)


def routed(backend: Recorder | None = None, fallback: str | None = None) -> Route:
    """Cross attention by that backend, in a run of its own; by TORCH_SDPA if there is none."""
    needs, name = [Need(Role.CROSS, 8, "float32", "cpu")], backend.name if backend else "TORCH_SDPA"
    found = resolve(plugins_with(*([backend] if backend else [])), name, "a test", needs, fallback)
    return Route(LoadedBackend.load(found[Role.CROSS]), MaskReader())


def tensors(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(batch, 5, 3, 8), torch.randn(batch, KEYS, 3, 8), torch.randn(batch, KEYS, 3, 8)


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None]).transpose(1, 2).float()


def test_padding_of_one_length_becomes_a_slice_that_any_backend_takes() -> None:
    backend = Recorder()
    q, k, v = tensors()
    out = routed(backend)(q, k, v, mask=lengths(4, 4))
    assert backend.masks == [(4, None, None)]
    torch.testing.assert_close(out, reference(q, k, v, lengths(4, 4)))


def test_torch_sdpa_takes_every_mask() -> None:
    q, k, v = tensors()
    for mask in (lengths(4, 2), HOLES, lengths(KEYS, KEYS), lengths(1, 1)):
        torch.testing.assert_close(routed()(q, k, v, mask=mask), reference(q, k, v, mask))


def test_key_lengths_reach_a_backend_that_declares_them_and_are_gone_at_the_next_call() -> None:
    backend = Recorder(masks=frozenset({MaskKind.NONE, MaskKind.KEY_LENGTH}))
    attend = routed(backend)
    attend(*tensors(), mask=lengths(4, 2))
    attend(*tensors())
    assert backend.masks == [(KEYS, (4, 2), None), (KEYS, None, None)]


def test_key_lengths_reach_any_other_backend_as_shorter_keys_one_entry_at_a_time() -> None:
    backend = Recorder()
    q, k, v = tensors()
    route = routed(backend)
    route.start_pass(0, "cond", TokenLayout((1, 1, 5), text_after=KEYS, text_lengths=(4, 2)))
    out = route(q, k, v, lengths(4, 2))
    assert backend.masks == [(4, None, None), (2, None, None)]
    assert [layout.text_lengths for *_, layout in backend.seen] == [(4,), (2,)]
    torch.testing.assert_close(out, reference(q, k, v, lengths(4, 2)))


SECOND_ENTRY = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 0]]).bool()
ONE_HEAD = torch.ones(2, 3, 1, KEYS).bool()
ONE_HEAD[0, 1, 0, 3:] = False
ONE_QUERY = torch.ones(2, 1, 5, KEYS).bool()
ONE_QUERY[1, 0, 4, 2:] = False
ALMOST_HIDDEN = additive(lengths(4, 2)).clamp(min=-50)[:, None, None]
WEIGHED = torch.linspace(-3, 3, 2 * 3 * 5 * KEYS).reshape(2, 3, 5, KEYS)


@pytest.mark.parametrize(
    "mask",
    [SECOND_ENTRY, ONE_HEAD, ONE_QUERY, WEIGHED, ALMOST_HIDDEN],
    ids=["entry", "head", "query", "weighed", "almost hidden"],
)
def test_what_only_one_entry_head_or_query_has_is_arbitrary_and_applied_as_it_is(mask: torch.Tensor) -> None:
    assert reduce_mask(mask, batch=2, keys=KEYS).kind is MaskKind.ARBITRARY
    q, k, v = tensors()
    whole = mask[:, None, None] if mask.ndim == 2 else mask
    heads_first = [x.double().transpose(1, 2) for x in (q, k, v)]
    weights = whole if whole.dtype == torch.bool else whole.double()
    expected = scaled_dot_product_attention(heads_first[0], heads_first[1], heads_first[2], attn_mask=weights)
    torch.testing.assert_close(routed()(q, k, v, mask=mask), expected.transpose(1, 2).float())


def test_each_branch_has_its_own_mask_even_of_the_same_shape() -> None:
    backend = Recorder()
    route = routed(backend)
    q, k, v = (tensor[:1] for tensor in tensors())
    for _ in range(2):
        for branch, real in (("cond", 4), ("uncond", 2)):
            route.start_pass(0, branch, TokenLayout((1, 1, 5), text_lengths=(real,)))
            out = route(q, k, v, lengths(real))
            torch.testing.assert_close(out, reference(q, k, v, lengths(real)))
    assert [keys for keys, _, _ in backend.masks] == [4, 2, 4, 2]


@pytest.mark.parametrize(
    ("role", "kind", "counted"),
    [
        (Role.JOINT, MaskKind.KEY_LENGTH, (4 + 2, 2 + 2)),
        (Role.CROSS, MaskKind.KEY_LENGTH, (4, 2)),
        (Role.AUDIO, MaskKind.KEY_LENGTH, (4, 2)),
        (Role.SELF, MaskKind.ARBITRARY, None),
    ],
)
def test_padding_of_the_video_tokens_counts_where_they_are_keys(
    role: Role, kind: MaskKind, counted: tuple[int, ...] | None
) -> None:
    """In SELF attention the first keys are others than the model's, once they are in an order."""
    reader = MaskReader()
    reader.padding = 2
    key = torch.zeros(2, KEYS + (2 if role.among_video else 0), 3, 8)
    layout = TokenLayout((1, 1, 3), text_after=3, text_lengths=(1, 1), ordered=True)
    reduced = reader.read(lengths(4, 2), key, layout, role)
    assert (reduced.kind, reduced.key_lengths) == (kind, counted)
    if role is Role.JOINT:
        with pytest.raises(BackendMismatchError, match="cannot be brought into the token order"):
            reader.read(HOLES.clone(), key, replace(layout, text_lengths=None), role)


def test_a_mask_of_all_keys_is_not_taken_for_that_of_the_text_where_keys_have_padding() -> None:
    """An additive mask of all keys has zeros where they are seen; as a mask of text these would count as hidden."""
    reader = MaskReader()
    reader.padding = 2
    layout = TokenLayout((1, 1, 3), text_after=3, text_lengths=(1, 1), ordered=True)
    reduced = reader.read(additive(lengths(4, 2)), torch.zeros(2, KEYS + 2, 3, 8), layout, Role.JOINT)
    assert (reduced.kind, reduced.key_lengths) == (MaskKind.KEY_LENGTH, (6, 4))


def test_the_longest_text_is_no_mask_at_all() -> None:
    backend = Recorder()
    routed(backend)(*tensors(), mask=lengths(KEYS, KEYS))
    assert backend.masks == [(KEYS, None, None)]


def test_a_mask_that_the_backend_does_not_take_is_an_error() -> None:
    message = (
        r"RECORDER cannot serve CROSS attention: the model passes an ARBITRARY mask of shape \(2, 1, 1, 6\), it takes"
    )
    with pytest.raises(BackendMismatchError, match=message + " KEY_LENGTH, NONE"):
        routed(Recorder())(*tensors(), mask=HOLES)


def test_grouped_heads_that_the_backend_does_not_take_are_an_error() -> None:
    q, k, v = tensors()
    with pytest.raises(BackendMismatchError, match="the model has 3 heads of queries and 1 of keys, it takes equal"):
        routed(Recorder())(q, k[:, :, :1], v[:, :, :1])


def test_a_fallback_that_was_named_serves_what_the_backend_does_not_take() -> None:
    backend = Recorder()
    route = routed(backend, fallback="TORCH_SDPA")
    q, k, v = tensors()
    torch.testing.assert_close(route(q, k, v, HOLES), reference(q, k, v, HOLES))
    torch.testing.assert_close(route(q, k, v, lengths(4, 2)), reference(q, k, v, lengths(4, 2)))
    assert route.fallback is not None
    assert (route.calls, route.fallback.calls, len(backend.masks)) == (2, 1, 2)
    assert "passes an ARBITRARY mask" in route.mismatch


class Failing(Recorder):
    def load(self) -> AttentionFunction:
        def attend(*_: object) -> torch.Tensor:
            raise RuntimeError("CUDA error")

        return attend


def test_an_error_from_a_kernel_keeps_its_type_and_says_where() -> None:
    with pytest.raises(RuntimeError, match="CUDA error") as raised:
        routed(Failing())(*tensors())
    assert raised.value.__notes__ == [
        "in RECORDER: CROSS attention, layer 0, step 0, branch '', query (2, 5, 3, 8), key (2, 6, 3, 8), torch.float32"
    ]


def test_a_mask_is_read_once_a_run(mask_reads: list[object]) -> None:
    mask = lengths(4, 4)
    for _ in range(2):
        route = routed(Recorder())
        for _ in range(5):
            route(*tensors(), mask=mask)
    assert len(mask_reads) == 2


def test_masks_made_anew_at_each_call_are_not_all_kept() -> None:
    import gc
    import weakref

    route, alive = routed(Recorder()), []
    for _ in range(100):
        mask = lengths(4, 4)
        alive.append(weakref.ref(mask))
        route(*tensors(), mask=mask)
        del mask
    gc.collect()
    assert sum(one() is not None for one in alive) <= 16
