"""The contract of an attention backend. Nothing here imports torch: discovery must stay cheap."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from fastvideo_core.contract.backend_settings import BackendSettings

if TYPE_CHECKING:
    import torch


class Role(StrEnum):
    """What attends to what."""

    SELF = "SELF"
    """Video tokens to video tokens."""
    CROSS = "CROSS"
    """Video tokens to text or image tokens."""
    JOINT = "JOINT"
    """Video and text tokens in one sequence."""
    AUDIO = "AUDIO"
    """All that audio tokens take part in: among themselves, to text, and to or from the video."""

    @property
    def among_video(self) -> bool:
        """Whether video tokens attend to one another, so that a backend may ask for an order of them."""
        return self in (Role.SELF, Role.JOINT)


class MaskKind(StrEnum):
    """The simplest form that means the same as a given mask."""

    NONE = "NONE"
    """Every query sees every key."""
    KEY_LENGTH = "KEY_LENGTH"
    """Each batch entry sees its first n keys."""
    ARBITRARY = "ARBITRARY"
    """Anything else."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend serves; the core refuses anything else before it gets there.

    Attributes:
        roles: the roles it can take; others go to the automatic backend.
        lossless: exact up to rounding. A backend that is not is used only when named.
        tolerance: if it is not lossless, the largest relative error, in the Euclidean norm, that it claims for any head
            on normally distributed inputs; `AttentionBackendSuite` holds it to that.
        head_dims: head sizes; None for any.
        dtypes: names of torch dtypes, such as "bfloat16"; None for any.
        devices: torch device types, such as "cuda"; None for any.
        masks: the kinds of mask it applies itself. Key lengths that it does not take become shorter keys, one batch
            entry at a time; an arbitrary mask that it does not take is an error.
        grouped_heads: whether keys and values may have fewer heads than queries.
    """

    roles: frozenset[Role]
    lossless: bool
    tolerance: float | None = None
    head_dims: frozenset[int] | None = None
    dtypes: frozenset[str] | None = None
    devices: frozenset[str] | None = None
    masks: frozenset[MaskKind] = frozenset({MaskKind.NONE})
    grouped_heads: bool = False


@dataclass(frozen=True)
class Probe:
    """Whether a backend's kernel can be used here.

    Attributes:
        available: whether `load` would succeed.
        kernel: what would run, as an import path: "sageattention.sageattn".
        version: its version.
        reason: if it is not available, what was looked for and what was found.
        remedy: if it is not available, what to do.
        broken: if it is not available, whether something is installed that should work and does not.
    """

    available: bool
    kernel: str = ""
    version: str = ""
    reason: str = ""
    remedy: str = ""
    broken: bool = False


@dataclass(frozen=True)
class Need:
    """What a model asks of a backend in one role.

    Attributes:
        head_dim: size of each head.
        dtype: the name of a torch dtype, such as "bfloat16".
        device: a torch device with its index, such as "cuda:1"; "cpu".
    """

    role: Role
    head_dim: int
    dtype: str
    device: str


@dataclass(frozen=True)
class TokenLayout:
    """How a sequence of tokens is made up.

    Attributes:
        grid: video tokens along time, height and width; tokens run with width fastest.
        text_before: tokens in front of the video tokens: text in JOINT attention; frames that condition the video,
            or came before it, which have no place in the grid.
        text_after: such tokens behind them.
        text_lengths: how many text tokens are not padding, per batch entry, also where text is seen by cross attention
            only; None if all are.
        ordered: whether the video tokens are in the order, and with the padding, that the backend asked for.
        fixed: whether they stay as they are whatever it asks for, as where blocks tell some of them by their place.
    """

    grid: tuple[int, int, int]
    text_before: int = 0
    text_after: int = 0
    text_lengths: tuple[int, ...] | None = None
    ordered: bool = False
    fixed: bool = False


@dataclass(frozen=True)
class Run:
    """What is about to run, told to each backend and to the caching policy before the first step.

    Attributes:
        family: the model's family, such as "Wan".
        role: what the backend is to serve; for a caching policy, the video tokens' own attention.
        num_layers: attention layers of the role; `num_heads` of size `head_dim` in each.
        dtype: the name of a torch dtype, such as "bfloat16".
        device: a torch device with its index, such as "cuda:1"; "cpu".
    """

    family: str
    role: Role
    layout: TokenLayout
    num_steps: int
    num_layers: int
    num_heads: int
    head_dim: int
    dtype: str
    device: str


@dataclass(frozen=True)
class TokenOrder:
    """Another order of the video tokens, with padding, in which a backend wants them.

    Attributes:
        gather: for each place in the new order, the video token that goes there, (places,), int64; places of padding
            name any token.
        scatter: for each video token its place, (video tokens,), int64.
    """

    gather: torch.Tensor
    scatter: torch.Tensor

    @property
    def padding(self) -> int:
        """How many places are padding."""
        return len(self.gather) - len(self.scatter)


@dataclass(frozen=True)
class KernelUsed:
    """A kernel as the receipt names it: its import path, such as "flash_attn.cute.flash_attn_func", and its version."""

    kernel: str
    version: str


@dataclass(slots=True)
class AttentionCall:
    """Where in a generation a call of attention stands, and what goes with its tensors.

    One object per role is reused for all calls: read it during the call, do not keep it.

    Attributes:
        role: what attends to what.
        layer: index of the call's layer among those of its role, from 0.
        step: denoising step, from 0.
        num_steps: denoising steps of this generation.
        branch: "cond", "uncond" or whatever the pipeline calls it; where it does not say, "" for the first call of a
            step, "call 2" for the next.
        layout: how the video tokens are arranged.
        scale: factor on the scores; None for 1/sqrt(head_dim).
        key_lengths: with MaskKind.KEY_LENGTH, how many keys each batch entry sees.
        mask: with MaskKind.ARBITRARY, the mask as scaled_dot_product_attention takes it.
        heads: which of the model's heads the tensors have, all of them unless several processes share them; as an index
            into a table per head.
        served: what a backend of several kernels may set, during the call, to the one that it used. The receipt counts
            calls by it; where it stays None, they count for the kernel that the probe named.
    """

    role: Role
    layer: int = -1
    step: int = 0
    num_steps: int = 0
    branch: str = ""
    layout: TokenLayout | None = None
    scale: float | None = None
    key_lengths: tuple[int, ...] | None = None
    mask: torch.Tensor | None = None
    heads: slice = field(default_factory=lambda: slice(None))
    served: KernelUsed | None = None


AttentionFunction: TypeAlias = "Callable[[torch.Tensor, torch.Tensor, torch.Tensor, AttentionCall], torch.Tensor]"
"""query, key, value and result are (batch, tokens, heads, head_dim); inputs may be views and must not be changed."""


class AttentionBackend(BackendSettings, ABC):
    """One attention kernel, or a family of kernels under one name."""

    name: ClassVar[str]
    """Upper case, as in FASTVIDEO_ATTENTION_BACKEND."""

    device: str = "cuda"
    """Where it is to run, such as "cuda:1" or "cpu": set by the core before anything else is asked of it."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it serves: a class attribute, or a property where that depends on the kernel that is there."""

    @abstractmethod
    def probe(self) -> Probe:
        """Say whether the kernel can be used here. Must not raise; may import torch."""

    @abstractmethod
    def load(self) -> AttentionFunction:
        """Import the kernel and return the function to call. Runs once a role, when a backend is attached."""

    def automatic_priority(self, need: Need) -> int:
        """Rank for use when nothing was asked for: the highest positive one wins; TORCH_SDPA has 1.

        Return more than 1 only where the backend is lossless and faster than torch's own attention. Default: 0, never.
        """
        return 0

    def token_order(self, layout: TokenLayout, device: torch.device) -> TokenOrder | None:
        """The order in which it wants the video tokens, brought about once per forward pass. Default: as they are."""
        return None

    def check_grid(self, grid: tuple[int, int, int]) -> None:  # optional
        """Refuse a video by its tokens along time, height and width, before a model is loaded; raise an InputError.

        `start_run` sees them again: where a pipeline is attached they are not known beforehand.
        """

    def start_run(self, run: Run) -> None:  # optional
        """Called before the first step, once a role; raise a BackendError or InputError if it cannot be served."""

    def end_run(self, error: BaseException | None) -> None:  # optional
        """Called once when a run is over that `start_run` has let in, the device being done with it.

        What may not be looked at during the run, because reading it would wait for the device, is looked at here.

        Args:
            error: what ended the run; None if it ended well. Raise a BackendError to fail such a run.
        """

    def run_details(self) -> dict[str, Any]:
        """What the receipt should tell of the run that has ended, as plain values. Default: nothing."""
        return {}
