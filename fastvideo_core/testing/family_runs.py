"""A pipeline watched from outside: what its transformer is called with, and what its own modules make of that."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from fastvideo_core.contract.attention import (
    AttentionBackend,
    AttentionCall,
    AttentionFunction,
    Capabilities,
    Probe,
    Role,
    Run,
    TokenLayout,
    TokenOrder,
)
from fastvideo_core.contract.caching import Action, Branch, CachePolicy, Signal, Step
from fastvideo_core.contract.model import ModelFamily

PADDING = 3
"""Places of padding that the other order of tokens has."""


class Watching(AttentionBackend):
    """Exact attention that keeps where it was called, and may want another order of the tokens."""

    name = "FAMILY_SUITE"
    capabilities = Capabilities(roles=frozenset(Role), lossless=True)

    def __init__(self, ordered: bool = False) -> None:
        self.ordered = ordered
        self.runs: dict[Role, Run] = {}
        self.calls: list[Call] = []

    def probe(self) -> Probe:
        return Probe(True, kernel="torch.nn.functional.scaled_dot_product_attention", version=str(torch.__version__))

    def start_run(self, run: Run) -> None:
        self.runs[run.role] = run

    def token_order(self, layout: TokenLayout, device: torch.device) -> TokenOrder | None:
        """Backwards, and padded behind."""
        if not self.ordered:
            return None
        tokens = video_tokens(layout)
        backwards = torch.arange(tokens - 1, -1, -1, device=device)
        return TokenOrder(torch.cat([backwards, backwards[:1].expand(PADDING)]), backwards)

    def load(self) -> AttentionFunction:
        return self._attend

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        assert call.layout is not None
        self.calls.append(Call(call.role, call.step, call.branch, call.layer, call.layout, query.shape, key.shape))
        if call.layout.ordered and call.role.among_video:
            first = call.layout.text_before + video_tokens(call.layout)
            key, value = (torch.cat([one[:, :first], one[:, first + PADDING :]], dim=1) for one in (key, value))
        q, k, v = (one.transpose(1, 2) for one in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=call.scale).transpose(1, 2)


@dataclass(frozen=True)
class Call:
    """A call of attention."""

    role: Role
    step: int
    branch: str
    layer: int
    layout: TokenLayout
    query: torch.Size
    key: torch.Size


def video_tokens(layout: TokenLayout) -> int:
    time, height, width = layout.grid
    return time * height * width


@dataclass
class Scripted(CachePolicy):
    """Computes always, or the first step alone; keeps the signals that it is given."""

    name = "FAMILY_SUITE"
    signal: Signal = Signal.NONE
    reuses: bool = False
    signals: list[torch.Tensor] = field(default_factory=list)

    def start(self, branch: Branch) -> Any:
        return None

    def decide(self, step: Step, state: Any) -> Action:
        if step.signal is not None:
            self.signals.append(step.signal.detach().clone())
        return Action.REUSE if self.reuses and step.index else Action.COMPUTE


@dataclass
class Pass:
    """What was seen of one forward pass: what entered the blocks, what left them, and what certain modules made.

    Attributes:
        entered: the arguments of the first block by position.
        first: the video tokens that entered the second one: what the first returned, and what is added behind it.
        left: those that the last one returned, and the tokens of text or of another stream, if it returned such.
        attended: what the first attention was called with.
        made: what named modules returned last.
    """

    entered: tuple[Any, ...] = ()
    first: torch.Tensor | None = None
    left: tuple[torch.Tensor, ...] = ()
    attended: torch.Tensor | None = None
    made: dict[str, Any] = field(default_factory=dict)


def arguments_of(transformer: Any, generate: Callable[[], torch.Tensor]) -> list[dict[str, Any]]:
    """What each pass of a generation calls the transformer with."""
    given: list[dict[str, Any]] = []
    parameters = tuple(inspect.signature(type(transformer).forward).parameters)[1:]

    def before(module: Any, args: Any, kwargs: Any) -> None:
        named = dict(zip(parameters, args, strict=False)) | kwargs
        given.append({name: _copied(value) for name, value in named.items()})

    hook = transformer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        generate()
    finally:
        hook.remove()
    return given


def run_bare(transformer: Any, family: ModelFamily, arguments: Mapping[str, Any]) -> Pass:
    """One pass of a transformer that nothing is attached to, watched."""
    seen = Pass()
    with watched(transformer, family, seen), torch.no_grad():
        transformer(**arguments)
    return seen


@contextmanager
def watched(transformer: Any, family: ModelFamily, seen: Pass) -> Iterator[None]:
    """Write what happens in a pass into `seen`."""
    blocks = blocks_of(transformer, family)
    sites = {site.module for site in family.attentions(transformer)}
    attention = next(module for module in blocks[0].modules() if module in sites)

    def enter(module: Any, args: Any, kwargs: Any) -> None:
        seen.entered = tuple(_copied(value) for value in (*args, *kwargs.values()))

    def after_first(module: Any, args: Any, kwargs: Any) -> None:
        seen.first = _copied([*args, *kwargs.values()][0])

    def leave(module: Any, args: Any, output: Any) -> None:
        seen.left = tuple(_copied(one) for one in _parts(output))

    def attend(module: Any, args: Any, kwargs: Any) -> None:
        seen.attended = _copied(args[0] if args else kwargs["hidden_states"])

    hooks = [
        blocks[0].register_forward_pre_hook(enter, with_kwargs=True),
        blocks[1].register_forward_pre_hook(after_first, with_kwargs=True),
        blocks[-1].register_forward_hook(leave),
        attention.register_forward_pre_hook(attend, with_kwargs=True),
    ]
    for name in {name for names in family.time_signals.values() for name in names}:

        def made(module: Any, args: Any, output: Any, name: str = name) -> None:
            seen.made[name] = _copied(output)

        hooks.append(transformer.get_submodule(name).register_forward_hook(made))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def blocks_of(transformer: Any, family: ModelFamily) -> list[Any]:
    """The repeated blocks, list after list."""
    return [block for name in family.stack.lists for block in transformer.get_submodule(name)]


def attending_blocks(transformer: Any, family: ModelFamily) -> list[Any]:
    """Likewise, and those that make hints for them."""
    return [block for name in family.stack.attending_lists for block in transformer.get_submodule(name)]


def beside_video(family: ModelFamily, layout: TokenLayout, seen: Pass) -> int:
    """How many tokens enter the blocks with the video's and have no place in the grid; text is a stream of its own."""
    others = layout.text_before + layout.text_after
    return others - int(seen.entered[1].shape[1]) if family.stack.returns_text else others


def computed(family: ModelFamily, signal: Signal, seen: Pass) -> list[torch.Tensor]:
    """What the model itself computed there, in a pass without the core."""
    if signal is Signal.MODULATED_INPUT:
        assert seen.attended is not None
        return [seen.attended]
    if signal is Signal.HIDDEN:
        return [seen.entered[0]]
    if signal is Signal.FIRST_BLOCK_OUTPUT:
        assert seen.first is not None
        return [seen.first]
    if signal in family.block_signals:
        return [seen.entered[family.block_signals[signal]]]
    made = [seen.made[family.time_signals[signal][-1]]]
    return [*made, _modulation(family, seen)] if signal is Signal.TIME_PROJECTION else made


def _modulation(family: ModelFamily, seen: Pass) -> torch.Tensor:
    """What modulates the blocks, token by token where it may differ between them."""
    stack, modulation = family.stack, seen.entered[family.stack.modulation]
    assert isinstance(modulation, torch.Tensor)
    return modulation.movedim(stack.modulation_axis, 1) if modulation.ndim == stack.modulation_per_token else modulation


def each_of(real: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """What the model computed, with what it repeats for the tokens of a frame, if `found` is by frame, in front."""
    frames, values = len(found), real.float()
    if found.ndim != 2 or values.ndim < 3 or not values.shape[1] > frames > 1 or values.shape[1] % frames:
        return values
    return values.reshape(len(values), frames, -1, *values.shape[2:]).movedim(2, 0)


def modules_after(transformer: Any, family: ModelFamily, arguments: dict[str, Any]) -> list[Any]:
    """The modules that are called with what the last block returned: one for each stream.

    Fails where the model goes on with a second stream that the family does not have, or not with one that it has.
    """
    first = _module_after(transformer, family, arguments, 0)
    assert first is not None, "what the blocks return is not what the transformer's next module is called with"
    if not family.stack.returns_two:
        return [first]
    second = _module_after(transformer, family, arguments, 1)
    assert (second is not None) == family.stack.second_stream, (
        "of what the blocks return beside the video the model goes on with the second stream, which the family lacks"
        if second is not None
        else "the model does not go on with the second stream that the blocks return"
    )
    return [first, *([second] if second else [])]


def _module_after(transformer: Any, family: ModelFamily, arguments: dict[str, Any], stream: int) -> Any | None:
    last = blocks_of(transformer, family)[-1]
    left: list[torch.Tensor] = []
    found: list[Any] = []

    def look(module: Any, args: Any) -> None:
        if not left or found or not args or not isinstance(args[0], torch.Tensor):
            return
        given = args[0]
        if len(given) == len(left[0]) and given.shape[-1] == left[0].shape[-1] and given.numel() <= left[0].numel():
            found.extend([module] if torch.equal(given, last_of(left[0], given.shape)) else [])

    own = dict(transformer.named_children())
    lists = family.stack.attending_lists
    hooks = [child.register_forward_pre_hook(look) for name, child in own.items() if name not in lists]
    hooks.append(last.register_forward_hook(lambda module, args, output: left.append(_parts(output)[stream])))
    with torch.no_grad():
        transformer(**arguments)
    for hook in hooks:
        hook.remove()
    return found[0] if found else None


def last_of(tokens: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The last of the tokens, as many as there are in that shape, and in it.

    A model may go on without tokens that stand in front of the video, or with the video's as frames, rows and columns.
    """
    return tokens.flatten(1)[:, -shape[1:].numel() :].reshape(shape)


@contextmanager
def inputs_kept(modules: Sequence[Any]) -> Iterator[list[list[torch.Tensor]]]:
    """What each of the modules is called with while the context lasts."""
    given: list[list[torch.Tensor]] = [[] for _ in modules]
    hooks = [
        module.register_forward_pre_hook(lambda module, args, own=own: own.append(args[0].detach().clone()))
        for module, own in zip(modules, given, strict=True)
    ]
    try:
        yield given
    finally:
        for hook in hooks:
            hook.remove()


def _parts(output: Any) -> tuple[torch.Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
