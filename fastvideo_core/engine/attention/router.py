"""Where a run stands: the routes of a pipeline's attention, its steps and branches, its masks and its token order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace

import torch

from fastvideo_core.contract.attention import AttentionBackend, MaskKind, Role, TokenLayout, TokenOrder
from fastvideo_core.engine.attention.clock import KernelClock
from fastvideo_core.engine.attention.masks import ReducedMask, reduce_mask
from fastvideo_core.engine.attention.resolve import Resolution
from fastvideo_core.engine.attention.route import Route
from fastvideo_core.errors import AttachError, BackendMismatchError

_current: ContextVar[Router | None] = ContextVar("fastvideo_router", default=None)


def attend(
    role: Role,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor:
    """Attention of the transformer whose forward pass is under way; also while torch.compile traces it.

    Compiled code calls one opaque operator for all layers, backends and pipelines: where the run stands is found when
    it runs, so nothing of it becomes part of a graph.
    """
    if torch.compiler.is_compiling():
        result: torch.Tensor = _opaque(query, key, value, mask, scale, role.value)
        return result
    router = _current.get()
    if router is None:
        raise AttachError(f"{role.value} attention was called outside of a forward pass of an attached transformer")
    return router.routes[role](query, key, value, mask, scale)


@torch.library.custom_op("fastvideo_core::attention", mutates_args=())
def _opaque(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    role: str,
) -> torch.Tensor:
    return attend(Role(role), query, key, value, mask, scale).contiguous()


@_opaque.register_fake
def _(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    role: str,
) -> torch.Tensor:
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


class Router:
    """Carries the attention of one pipeline to its backends."""

    def __init__(
        self, resolutions: Mapping[Role, Resolution], calls_per_layer: Mapping[Role, int | None] | None = None
    ) -> None:
        per_layer = calls_per_layer or {}
        self.routes = {
            role: Route(resolution, per_layer.get(role, 1), self._read_mask) for role, resolution in resolutions.items()
        }
        self.steps: Counter[str] = Counter()
        """Forward passes per guidance branch, in the run that is under way or the last one."""
        self.order: TokenOrder | None = None
        """The order of the video tokens within the blocks of the forward pass that is under way; None: as they are."""
        self._masks: dict[object, tuple[torch.Tensor, ReducedMask]] = {}
        self._text: dict[int, tuple[torch.Tensor, tuple[int, ...]]] = {}

    @property
    def layout(self) -> TokenLayout | None:
        """How the tokens of the latest forward pass are arranged."""
        return next(iter(self.routes.values())).state.layout

    def serving(self) -> Iterator[AttentionBackend]:
        """The backends that served calls in the latest run."""
        for route in self.routes.values():
            yield route.resolution.backend
            if route.fallback and route.fallback.calls:
                yield route.fallback.resolution.backend

    @contextmanager
    def timed(self) -> Iterator[Callable[[], float]]:
        """Time every call of a kernel; yields what tells the seconds so far, which waits for the device."""
        clock = KernelClock()
        with ExitStack() as undo:
            for route in self.routes.values():
                route.time(clock, undo)
            yield clock.seconds

    def start_run(self, num_steps: int) -> None:
        """Forget the last run; called when a denoising loop starts."""
        self.steps = Counter()
        self._forget()
        for route in self.routes.values():
            route.start_run(num_steps)

    def end_run(self) -> None:
        """Let go of the masks of the run."""
        self._forget()

    def start_forward(self, branch: str, layout: TokenLayout, order: TokenOrder | None = None) -> None:
        """Called before each forward pass of a transformer, whose attention comes here until `end_forward`."""
        self.order = order
        if order is not None:
            layout = replace(layout, ordered=True)
        step = self.steps[branch]
        self.steps[branch] += 1
        for route in self.routes.values():
            route.start_forward(step, branch, layout)
        _current.set(self)

    def end_forward(self) -> None:
        """Called after each forward pass, also a failed one."""
        self.order = None
        _current.set(None)

    def wanted_order(self, layout: TokenLayout, device: torch.device) -> TokenOrder | None:
        """The order that the backend of the video tokens' own attention asks for."""
        for role in (Role.SELF, Role.JOINT):
            if role in self.routes:
                return self.routes[role].resolution.backend.token_order(layout, device)
        return None

    def real_tokens(self, text_mask: torch.Tensor) -> tuple[int, ...]:
        """How many text tokens of each batch entry are real; read from the device once a run for each mask."""
        known = self._text.get(id(text_mask))
        if known is None:
            # Kept with its mask, so that the id stays that mask's own.
            known = self._text[id(text_mask)] = (text_mask, tuple(text_mask.sum(dim=1, dtype=torch.int).tolist()))
        return known[1]

    def _read_mask(self, mask: torch.Tensor, key: torch.Tensor, layout: TokenLayout | None) -> ReducedMask:
        """Reduce a mask the first time that it is seen in a run.

        A model that makes its mask anew at every forward pass, from the text mask, has the same one wherever the layout
        is the same; any other mask is known by its identity.
        """
        derived = layout is not None and layout.text_lengths is not None
        seen_as = (tuple(mask.shape), tuple(key.shape[:2]), layout) if derived else id(mask)
        known = self._masks.get(seen_as)
        if known is None:
            joint = layout is not None and layout.text_before + layout.text_after > 0
            padding = self.order.padding if self.order is not None and joint else 0
            reduced = reduce_mask(mask, key.shape[0], key.shape[1] - padding)
            known = self._masks[seen_as] = (mask, _behind_padding(reduced, padding))
        return known[1]

    def _forget(self) -> None:
        self._masks, self._text = {}, {}


def _behind_padding(mask: ReducedMask, padding: int) -> ReducedMask:
    """The mask of a model whose video tokens have got padding that the model does not know of."""
    if not padding or mask.kind is MaskKind.NONE:
        return mask
    if mask.key_lengths is None:
        raise BackendMismatchError(
            f"the model passes an {mask.kind.value} mask of shape {tuple(mask.mask.shape)}, which cannot be brought "
            "into the token order that the attention backend asks for; choose another backend"
        )
    return replace(mask, key_lengths=tuple(length + padding for length in mask.key_lengths))
