"""How the calls of one role reach its backend in a run: masks in their simplest form, checks, tallies, the fallback."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import torch

from fastvideo_core.contract.attention import (
    AttentionCall,
    AttentionFunction,
    KernelUsed,
    MaskKind,
    Need,
    TokenLayout,
)
from fastvideo_core.contract.receipt import RoleReceipt
from fastvideo_core.discovery.printable import explain
from fastvideo_core.engine.attention.clock import KernelClock
from fastvideo_core.engine.attention.guard import guard_of
from fastvideo_core.engine.attention.masks import MaskReader, ReducedMask
from fastvideo_core.engine.attention.resolve import Resolution, mismatch
from fastvideo_core.engine.attention.tally import kernels_served
from fastvideo_core.engine.plugin_calls import details_of
from fastvideo_core.errors import (
    BackendError,
    BackendMismatchError,
    BackendOutputError,
    BackendUnavailableError,
    FastVideoError,
)

ALL_HEADS = slice(None)


@dataclass(frozen=True)
class LoadedBackend:
    """What serves a role: the backend that was chosen, its function, and the fallback's, if one was named."""

    resolution: Resolution
    attend: AttentionFunction
    fallback: LoadedBackend | None = None

    @classmethod
    def load(cls, resolution: Resolution) -> LoadedBackend:
        """Load the kernel; that of the fallback in its place if it does not load.

        Raises:
            BackendUnavailableError: it does not load, and there is no fallback.
        """
        name, fallback = resolution.backend.name, resolution.fallback
        try:
            attend = resolution.backend.load()
            if not callable(attend):
                raise TypeError(f"load returned {attend!r}, which is no function")
        except (FastVideoError, KeyboardInterrupt):
            raise
        except BaseException as error:
            problem = f"{name} said that its kernel can be used, but loading it raised {explain(error)}"
            if fallback is not None:
                return cls.load(fallback.as_fallback(problem))
            raise BackendUnavailableError(
                f"{problem}; reinstall the kernel, or report it to the plugin's author"
            ) from error
        return cls(resolution, attend, cls.load(fallback) if fallback else None)


class Route:
    """Carries the calls of one role to its backend, in one run."""

    def __init__(
        self, loaded: LoadedBackend, masks: MaskReader, num_steps: int = 0, clock: KernelClock | None = None
    ) -> None:
        self.resolution = loaded.resolution
        self.calls = 0
        """Calls so far, those that the fallback served included."""
        self.mismatch = ""
        """Why the fallback served calls, if it did."""
        self.state = AttentionCall(loaded.resolution.role, num_steps=num_steps)
        """What the backend is told, the same object at every call."""
        self.fallback = Route(loaded.fallback, masks, num_steps, clock) if loaded.fallback else None
        self._attend = clock.around(loaded.attend) if clock else loaded.attend
        self._takes = loaded.resolution.backend.capabilities.masks
        self._grouped_heads = loaded.resolution.backend.capabilities.grouped_heads
        self._masks = masks
        self._guard = guard_of(loaded.resolution.backend)
        self._kernels: Counter[KernelUsed | None] = Counter()
        self._checked = False
        self._layouts: tuple[TokenLayout, ...] = ()

    def start_pass(self, step: int, branch: str, layout: TokenLayout) -> None:
        """A forward pass is about to begin.

        Raises:
            BackendOutputError: in one before it, the backend returned NaN or infinity.
        """
        if self._guard:
            self._guard.next_pass()
        state = self.state
        state.step, state.branch, state.layout = step, branch, layout
        self._layouts = ()
        if self.fallback:
            self.fallback.start_pass(step, branch, layout)

    def finish(self) -> None:
        """The run is over, and the device is done with it; raises as `start_pass`."""
        if self._guard:
            self._guard.finish()
        if self.fallback:
            self.fallback.finish()

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None = None,
        scale: float | None = None,
        layer: int = 0,
        entry: int | None = None,
        heads: slice = ALL_HEADS,
    ) -> torch.Tensor:
        """Attention of (batch, tokens, heads, head_dim) tensors with a mask as diffusers passes it.

        Args:
            entry: the entry of the batch, where the model calls attention for one after the other.
            heads: which of the model's heads they have.
        """
        state = self.state
        state.layer, state.scale, state.heads = layer, scale, heads
        if entry is not None and state.layout is not None:
            self._layouts = self._layouts or _by_entry(state.layout)
            state.layout = self._layouts[entry]
        self.calls += 1
        reduced = None if mask is None else self._masks.read(mask, key, state.layout, state.role)
        if problem := self._problem(query, key, reduced):
            return self._fall_back(problem)(query, key, value, mask, scale, layer, entry, heads)
        if not self._checked:
            self._check_inputs(query)
        state.served = None
        try:
            if reduced is None:
                result = self._attend(query, key, value, state)
            else:
                result = self._masked(query, key, value, reduced)
        except Exception as error:
            error.add_note(f"in {self._where()}, query {tuple(query.shape)}, key {tuple(key.shape)}, {query.dtype}")
            raise
        except SystemExit as error:
            raise BackendError(f"{self._where()}: it raised {explain(error)}, which would end the program") from error
        if state.served is not None and type(state.served) is not KernelUsed:
            raise BackendError(f"{self._where()}: it set call.served to {state.served!r}, it must be a KernelUsed")
        if not self._checked:
            self._check_output(result, query, value)
            self._checked = True
        self._kernels[state.served] += 1
        if self._guard:
            self._guard.see(result, state)
        return result

    def pass_by(self) -> None:
        """A call that other processes serve, which have all of the heads."""
        self.calls += 1

    def receipt(self, reason: str | None = None) -> RoleReceipt:
        """What served the role; the reason is the resolution's, if none is given."""
        resolution, fallback, probe = self.resolution, self.fallback, self.resolution.probe
        served = None
        if fallback is not None and fallback.calls:
            served = fallback.receipt(fallback.resolution.as_fallback(self.mismatch).reason)
        kernels = kernels_served(self._kernels, KernelUsed(probe.kernel, probe.version))
        return RoleReceipt(
            backend=resolution.backend.name,
            kernel=kernels[0].kernel,
            version=kernels[0].version,
            distribution=resolution.plugin.label,
            reason=reason or resolution.reason,
            calls=self.calls - (served.calls if served else 0),
            kernels=kernels,
            settings=resolution.backend.settings_used(),
            origins=resolution.backend.origins(),
            details=details_of(resolution.backend),
            fallback=served,
        )

    def _where(self) -> str:
        state = self.state
        role = f"{state.role.value} attention, layer {state.layer}, step {state.step}, branch {state.branch!r}"
        return f"{self.resolution.backend.name}: {role}"

    def _problem(self, query: torch.Tensor, key: torch.Tensor, mask: ReducedMask | None) -> str | None:
        """Why the backend cannot take this call, or None."""
        if query.shape[2] != key.shape[2] and not self._grouped_heads:
            heads = f"{query.shape[2]} heads of queries and {key.shape[2]} of keys"
            return f"the model has {heads}, it takes equal numbers only"
        if mask is not None and mask.kind is MaskKind.ARBITRARY and MaskKind.ARBITRARY not in self._takes:
            takes = ", ".join(sorted({*(kind.value for kind in self._takes), MaskKind.KEY_LENGTH.value}))
            return f"the model passes an ARBITRARY mask of shape {tuple(mask.mask.shape)}, it takes {takes}"
        if mask is not None and mask.kind is MaskKind.ARBITRARY and self._reorders(mask.mask):
            return (
                f"the model passes a mask of shape {tuple(mask.mask.shape)} over video tokens, which it has in another "
                "order"
            )
        return None

    def _reorders(self, mask: torch.Tensor) -> bool:
        """Whether what the mask is for stands in another order than the model's, which the mask is in."""
        layout = self.state.layout
        over_queries = mask.shape[-2] > 1
        return layout is not None and layout.ordered and (over_queries or self.state.role.among_video)

    def _fall_back(self, problem: str) -> Route:
        where = f"{self.resolution.backend.name} cannot serve {self.state.role.value} attention: {problem}"
        layout = self.state.layout
        if self.fallback is None or (layout is not None and layout.ordered):
            raise BackendMismatchError(
                f"{where}; choose another backend, or set FASTVIDEO_ATTENTION_FALLBACK=TORCH_SDPA to let that serve it"
            )
        self.mismatch = where
        return self.fallback

    def _check_inputs(self, query: torch.Tensor) -> None:
        """Hold what the model really passes against what the backend declares."""
        need = Need(self.state.role, query.shape[-1], str(query.dtype).removeprefix("torch."), str(query.device))
        if problem := mismatch(self.resolution.backend, need):
            raise BackendMismatchError(f"{self._where()}: it was called with {tuple(query.shape)}, but {problem}")

    def _check_output(self, result: object, query: torch.Tensor, value: torch.Tensor) -> None:
        """Another shape would be broadcast, another dtype or device be carried on, without an error."""
        expected = _describe((*query.shape[:-1], value.shape[-1]), query.dtype, query.device)
        found = f"a {type(result).__name__}"
        if isinstance(result, torch.Tensor):
            found = _describe(tuple(result.shape), result.dtype, result.device)
        if found != expected:
            raise BackendOutputError(
                f"{self._where()}: it returned {found}, expected {expected}; report it to the author of "
                f"{self.resolution.plugin.label}"
            )

    def _masked(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: ReducedMask) -> torch.Tensor:
        """Attention with the mask in the simplest form that the backend takes; a slice of keys where it is one."""
        state = self.state
        if mask.kind is MaskKind.NONE:
            return self._attend(query, key, value, state)
        if mask.common_length is not None:
            return self._attend(query, key[:, : mask.common_length], value[:, : mask.common_length], state)
        if mask.key_lengths is not None and MaskKind.KEY_LENGTH in self._takes:
            state.key_lengths = mask.key_lengths
        elif MaskKind.ARBITRARY in self._takes:
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
    lengths = layout.text_lengths or (layout.text_after,)
    return tuple(replace(layout, text_after=tokens, text_lengths=None) for tokens in lengths)


def _describe(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> str:
    return f"{shape} in {dtype} on {device}"
