"""What runs at each call of attention: a plain function per role, and the counters that say where a run stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from fastvideo_core.attention.backend import (
    AttentionBackend,
    AttentionCall,
    AttentionFunction,
    MaskKind,
    Role,
    TokenLayout,
)
from fastvideo_core.attention.masks import ReducedMask, reduce_mask
from fastvideo_core.attention.resolve import Resolution
from fastvideo_core.errors import BackendMismatchError, BackendUnavailableError

RoutedFunction = Callable[..., torch.Tensor]


class Router:
    """Carries the calls of one pipeline to its backends."""

    def __init__(self, resolutions: dict[Role, Resolution]) -> None:
        self.resolutions = resolutions
        self.calls = Counter(dict.fromkeys(resolutions, 0))
        """Calls of attention per role, in the run that is under way or the last one."""
        self.steps: Counter[str] = Counter()
        """Forward passes per guidance branch, likewise."""
        self.states = {role: AttentionCall(role) for role in resolutions}
        """What the backends are told, one object per role."""
        self._masks: dict[int, tuple[torch.Tensor, ReducedMask]] = {}
        loaded = {r.backend.name: _load(r.backend) for r in {id(r.backend): r for r in resolutions.values()}.values()}
        self.functions = {role: self._route(role, loaded[r.backend.name]) for role, r in resolutions.items()}

    @property
    def layout(self) -> TokenLayout | None:
        """How the tokens of the latest forward pass are arranged."""
        return next(iter(self.states.values())).layout

    def start_run(self, num_steps: int) -> None:
        """Forget the last run; called when a denoising loop starts."""
        self.calls = Counter(dict.fromkeys(self.resolutions, 0))
        self.steps = Counter()
        self._masks = {}
        for state in self.states.values():
            state.num_steps, state.mask, state.key_lengths = num_steps, None, None

    def end_run(self) -> None:
        """Let go of the masks of the run."""
        self._masks = {}

    def start_forward(self, branch: str, layout: TokenLayout) -> None:
        """Called before each forward pass of a transformer."""
        step = self.steps[branch]
        self.steps[branch] += 1
        for state in self.states.values():
            state.layer, state.step, state.branch, state.layout = -1, step, branch, layout

    def _route(self, role: Role, attend: AttentionFunction) -> RoutedFunction:
        """The function that diffusers calls for a role; all that it needs is bound here."""
        router, state = self, self.states[role]
        resolution = self.resolutions[role]

        def route(
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            attn_mask: torch.Tensor | None = None,
            dropout_p: float = 0.0,
            is_causal: bool = False,
            scale: float | None = None,
            enable_gqa: bool = False,
            _parallel_config: Any = None,
        ) -> torch.Tensor:
            if dropout_p or is_causal or _parallel_config is not None:
                raise BackendMismatchError(
                    f"{resolution.backend.name} was called with dropout_p={dropout_p}, is_causal={is_causal}, "
                    f"parallel_config={_parallel_config}; fastvideo-core serves full attention at inference, on one "
                    "device"
                )
            state.layer += 1
            state.scale = scale
            router.calls[role] += 1
            if attn_mask is None:
                return attend(query, key, value, state)
            key, value = router._apply_mask(state, resolution, attn_mask, key, value)
            try:
                return attend(query, key, value, state)
            finally:
                state.mask = state.key_lengths = None

        return route

    def _apply_mask(
        self,
        state: AttentionCall,
        resolution: Resolution,
        mask: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the mask into the call in a form that the backend takes; a slice of keys and values where it is one."""
        reduced = self._reduced(mask, key)
        if reduced.kind is MaskKind.NONE:
            return key, value
        if reduced.common_length is not None:
            return key[:, : reduced.common_length], value[:, : reduced.common_length]
        kinds = resolution.backend.capabilities.masks
        if reduced.kind in kinds and reduced.kind is MaskKind.KEY_LENGTH:
            state.key_lengths = reduced.key_lengths
        elif MaskKind.ARBITRARY in kinds:
            state.mask = reduced.mask
        else:
            raise BackendMismatchError(
                f"the model passes a {reduced.kind.value} mask of shape {tuple(mask.shape)} to {state.role.value} "
                f"attention, {resolution.backend.name} takes {', '.join(sorted(kind.value for kind in kinds))}; "
                "generate one prompt at a time or choose another backend"
            )
        return key, value

    def _reduced(self, mask: torch.Tensor, key: torch.Tensor) -> ReducedMask:
        """Read a mask the first time that it is seen in a run; kept with it, so that its id stays its own."""
        known = self._masks.get(id(mask))
        if known is None:
            known = self._masks[id(mask)] = (mask, reduce_mask(mask, key.shape[0], key.shape[1]))
        return known[1]


def _load(backend: AttentionBackend) -> AttentionFunction:
    try:
        return backend.load()
    except Exception as error:
        raise BackendUnavailableError(
            f"{backend.name} said that its kernel can be used, but loading it raised {type(error).__name__}: {error}; "
            "reinstall the kernel, or report it to the plugin's author"
        ) from error
