"""How the calls of one role reach its backend: masks in their simplest form, counters, and the fallback."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeAlias

import torch

from fastvideo_core.contract.attention import AttentionCall, AttentionFunction, MaskKind, TokenLayout
from fastvideo_core.contract.receipt import RoleReceipt
from fastvideo_core.engine.attention.clock import KernelClock
from fastvideo_core.engine.attention.masks import ReducedMask
from fastvideo_core.engine.attention.resolve import Resolution
from fastvideo_core.errors import BackendMismatchError, BackendUnavailableError, FastVideoError

MaskReader: TypeAlias = Callable[[torch.Tensor, torch.Tensor, "TokenLayout | None"], ReducedMask]


class Route:
    """Carries the calls of one role to its backend; all that a call needs is bound here."""

    def __init__(self, resolution: Resolution, calls_per_layer: int | None, read_mask: MaskReader) -> None:
        self.resolution, self._attend = _load(resolution)
        self.state = AttentionCall(resolution.role)
        """What the backend is told, the same object at every call."""
        self.calls = 0
        """Calls in the run that is under way or the last one, those that the fallback served included."""
        self.mismatch = ""
        """Why the fallback served calls of that run, if it did."""
        fallback = self.resolution.fallback
        self.fallback = Route(fallback, calls_per_layer, read_mask) if fallback else None
        self._grouped_heads = self.resolution.backend.capabilities.grouped_heads
        self._masks = self.resolution.backend.capabilities.masks
        self._calls_per_layer = calls_per_layer
        self._calls_in_forward = 0
        self._layouts: tuple[TokenLayout, ...] = ()
        self._read_mask = read_mask

    def time(self, clock: KernelClock, undo: ExitStack) -> None:
        """Have the clock time the kernel, until `undo` is closed."""
        undo.callback(setattr, self, "_attend", self._attend)
        self._attend = clock.around(self._attend)
        if self.fallback:
            self.fallback.time(clock, undo)

    def start_run(self, num_steps: int) -> None:
        self.calls, self.mismatch = 0, ""
        self.state.num_steps, self.state.mask, self.state.key_lengths = num_steps, None, None
        if self.fallback:
            self.fallback.start_run(num_steps)

    def start_forward(self, step: int, branch: str, layout: TokenLayout) -> None:
        self._calls_in_forward = 0
        self.state.step, self.state.branch, self.state.layout = step, branch, layout
        if self._calls_per_layer is None:
            self._layouts = _by_entry(layout)
        if self.fallback:
            self.fallback.start_forward(step, branch, layout)

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None = None,
        scale: float | None = None,
    ) -> torch.Tensor:
        """Attention of (batch, tokens, heads, head_dim) tensors with a mask as diffusers passes it."""
        number = self._calls_in_forward
        self._calls_in_forward += 1
        if self._calls_per_layer is None:
            layer, entry = divmod(number, len(self._layouts))
            self.state.layout = self._layouts[entry]
        else:
            layer = number // self._calls_per_layer
        return self._serve(query, key, value, mask, scale, layer)

    def receipt(self, reason: str | None = None) -> RoleReceipt:
        """What served the role in the latest run; the reason is the resolution's, if none is given."""
        resolution, fallback = self.resolution, self.fallback
        served = None
        if fallback is not None and fallback.calls:
            served = fallback.receipt(fallback.resolution.as_fallback(self.mismatch).reason)
        return RoleReceipt(
            backend=resolution.backend.name,
            kernel=resolution.probe.kernel,
            version=resolution.probe.version,
            distribution=resolution.plugin.label,
            reason=reason or resolution.reason,
            calls=self.calls - (served.calls if served else 0),
            settings=resolution.backend.settings_used(),
            details=resolution.backend.run_details(),
            fallback=served,
        )

    def _serve(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float | None,
        layer: int,
    ) -> torch.Tensor:
        state = self.state
        state.layer, state.scale = layer, scale
        self.calls += 1
        reduced = None if mask is None else self._read_mask(mask, key, state.layout)
        if mismatch := self._mismatch(query, key, reduced):
            return self._fall_back(mismatch)._serve(query, key, value, mask, scale, layer)
        try:
            if reduced is None:
                return self._attend(query, key, value, state)
            return self._masked(query, key, value, reduced)
        except Exception as error:
            error.add_note(
                f"in {self.resolution.backend.name}: {state.role.value} attention, layer {layer}, step {state.step}, "
                f"branch {state.branch!r}, query {tuple(query.shape)}, key {tuple(key.shape)}, {query.dtype}"
            )
            raise

    def _mismatch(self, query: torch.Tensor, key: torch.Tensor, mask: ReducedMask | None) -> str | None:
        """Why the backend cannot take this call, or None."""
        if query.shape[2] != key.shape[2] and not self._grouped_heads:
            heads = f"{query.shape[2]} heads of queries and {key.shape[2]} of keys"
            return f"the model has {heads}, it takes equal numbers only"
        if mask is not None and mask.kind is MaskKind.ARBITRARY and MaskKind.ARBITRARY not in self._masks:
            takes = ", ".join(sorted({*(kind.value for kind in self._masks), MaskKind.KEY_LENGTH.value}))
            return f"the model passes an ARBITRARY mask of shape {tuple(mask.mask.shape)}, it takes {takes}"
        return None

    def _fall_back(self, mismatch: str) -> Route:
        where = f"{self.resolution.backend.name} cannot serve {self.state.role.value} attention: {mismatch}"
        layout = self.state.layout
        if self.fallback is None or (layout is not None and layout.ordered):
            raise BackendMismatchError(
                f"{where}; choose another backend, or set FASTVIDEO_ATTENTION_FALLBACK=TORCH_SDPA to let that serve it"
            )
        self.mismatch = where
        return self.fallback

    def _masked(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: ReducedMask) -> torch.Tensor:
        """Attention with the mask in the simplest form that the backend takes; a slice of keys where it is one."""
        state = self.state
        if mask.kind is MaskKind.NONE:
            return self._attend(query, key, value, state)
        if mask.common_length is not None:
            return self._attend(query, key[:, : mask.common_length], value[:, : mask.common_length], state)
        if mask.key_lengths is not None and MaskKind.KEY_LENGTH in self._masks:
            state.key_lengths = mask.key_lengths
        elif MaskKind.ARBITRARY in self._masks:
            state.mask = mask.mask
        elif mask.key_lengths is not None:
            return self._one_by_one(query, key, value, mask.key_lengths)
        try:
            return self._attend(query, key, value, state)
        finally:
            state.mask = state.key_lengths = None

    def _one_by_one(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...]
    ) -> torch.Tensor:
        """Each batch entry with the keys that it sees: no mask is left, so any kernel will do."""
        state, layout = self.state, self.state.layout
        parts = []
        try:
            for i, length in enumerate(lengths):
                if layout is not None and layout.text_lengths is not None:
                    state.layout = replace(layout, text_lengths=layout.text_lengths[i : i + 1])
                one = slice(i, i + 1)
                parts.append(self._attend(query[one], key[one, :length], value[one, :length], state))
        finally:
            state.layout = layout
        return torch.cat(parts)


def _by_entry(layout: TokenLayout) -> tuple[TokenLayout, ...]:
    """The layout of each batch entry, for a model that calls attention for one after the other, without padding."""
    real = layout.text_lengths or (layout.text_after,)
    return tuple(replace(layout, text_after=tokens, text_lengths=None) for tokens in real)


def _load(resolution: Resolution) -> tuple[Resolution, AttentionFunction]:
    """The function to call, and the resolution that it belongs to: the fallback's if the kernel does not load."""
    name = resolution.backend.name
    try:
        return resolution, resolution.backend.load()
    except FastVideoError:
        raise
    except Exception as error:
        problem = f"{name} said that its kernel can be used, but loading it raised {type(error).__name__}: {error}"
        if resolution.fallback is not None:
            return _load(resolution.fallback.as_fallback(problem))
        raise BackendUnavailableError(
            f"{problem}; reinstall the kernel, or report it to the plugin's author"
        ) from error
