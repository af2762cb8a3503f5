"""A backend in whole runs on one loaded function: announced, in its own token order, ended, asked for details."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch

from fastvideo_core.contract.attention import AttentionCall, Role, Run, TokenLayout, TokenOrder
from fastvideo_core.engine.attention.operator import attend
from fastvideo_core.engine.attention.route import LoadedBackend
from fastvideo_core.engine.forward_pass import under_way
from fastvideo_core.errors import BackendError, InputError
from fastvideo_core.testing.cases import Case, Inputs, make_inputs
from fastvideo_core.testing.subject import UsableBackend, attention_pass

LAYERS = 2
LONG = (21, 40, 40)
"""33,600 tokens: more than 16 bits count."""


@dataclass(frozen=True)
class Ran:
    """What became of a run: the output in the model's order of tokens, the order, and the details for the receipt."""

    output: torch.Tensor
    order: TokenOrder | None
    details: dict[str, Any]


class LoadedOnce:
    """A backend whose function is loaded once and serves run after run.

    Attributes:
        changed: fields of the call object that the backend wrote to.
    """

    def __init__(self, kernel: UsableBackend, role: Role) -> None:
        self.kernel, self.changed = kernel, set[str]()
        loaded = LoadedBackend.load(kernel.resolution(role))
        attend = loaded.attend

        def watched(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            before = _described(call)
            result = attend(query, key, value, call)
            after = _described(call)
            self.changed |= {name for name in before if after[name] is not before[name] and after[name] != before[name]}
            return result

        self._loaded = replace(loaded, attend=watched)

    def run(self, case: Case, inputs: Inputs | None = None) -> Ran:
        """A run of one step and two layers, of which the last one's output is kept.

        Skips the test where the backend refuses the run.
        """
        kernel, backend = self.kernel, self.kernel.backend
        inputs = inputs or make_inputs(case, kernel.device)
        try:
            backend.start_run(_run_of(case, kernel.device))
        except (BackendError, InputError) as error:
            pytest.skip(f"{backend.name} refuses a run of {case}: {error}")
        order = None
        if case.role.among_video:
            order = backend.token_order(case.layout, torch.device(kernel.device))
        layout = replace(case.layout, ordered=order is not None)
        query, key, value = (_in_order(one, order, layout) for one in (inputs.query, inputs.key, inputs.value))
        with under_way(attention_pass(kernel, case.role, layout, self._loaded)) as forward, torch.no_grad():
            for _ in range(LAYERS):
                output = forward.attend(case.role, query, key, value, inputs.mask, case.scale)
        backend.end_run(None)
        return Ran(_back_in_order(output, order, layout), order, backend.run_details())


def check_order(order: TokenOrder, layout: TokenLayout) -> None:
    """Fail unless every video token has one place, and every place a token."""
    time, height, width = layout.grid
    tokens = time * height * width
    assert order.gather.dtype is order.scatter.dtype is torch.int64, "gather and scatter are int64"
    assert order.scatter.shape == (tokens,), f"scatter has {tuple(order.scatter.shape)} places for {tokens} tokens"
    found = order.gather[order.scatter]
    assert torch.equal(found, torch.arange(tokens, device=found.device)), "gather[scatter] is not every token in turn"


def _run_of(case: Case, device: str) -> Run:
    place = "cuda:0" if device == "cuda" else device
    return Run("Suite", case.role, case.layout, 1, LAYERS, case.heads, case.head_dim, case.dtype, place)


def _described(call: AttentionCall) -> dict[str, Any]:
    return {field.name: getattr(call, field.name) for field in fields(call) if field.name != "served"}


def _in_order(tensor: torch.Tensor, order: TokenOrder | None, layout: TokenLayout) -> torch.Tensor:
    return tensor if order is None else _moved(tensor, order.gather, len(order.scatter), layout)


def _back_in_order(tensor: torch.Tensor, order: TokenOrder | None, layout: TokenLayout) -> torch.Tensor:
    return tensor if order is None else _moved(tensor, order.scatter, len(order.gather), layout)


def _moved(tensor: torch.Tensor, places: torch.Tensor, tokens: int, layout: TokenLayout) -> torch.Tensor:
    """The tensor with its video tokens, of which it has so many, moved."""
    before, video = layout.text_before, tensor[:, layout.text_before : layout.text_before + tokens]
    after = tensor[:, layout.text_before + tokens :]
    return torch.cat([tensor[:, :before], video.index_select(1, places), after], dim=1)


class Layer(torch.nn.Module):
    """What a transformer's block does around attention, without the rest of it."""

    def __init__(self, role: Role) -> None:
        super().__init__()
        self.role = role

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return query + attend(self.role, query, key, value, None, None)


def stack(layers: list[Layer], query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The output of one layer after the other."""
    with torch.no_grad():
        for layer in layers:
            query = layer(query, key, value)
    return query
