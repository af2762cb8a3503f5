"""A receipt: what ran for one video."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

RECEIPT_VERSION = 1


@dataclass(frozen=True)
class KernelReceipt:
    """A kernel that served calls: its import path, its version, and how many calls it served."""

    kernel: str
    version: str
    calls: int


@dataclass
class RoleReceipt:
    """Which backend served one role of attention, and why.

    Attributes:
        backend: its name; `kernel` and `version` are what served most of its calls.
        distribution: the package that brought it, with its version.
        reason: why it was chosen.
        calls: how often the model called it.
        kernels: every kernel that served, most calls first, as counted while it ran.
        settings: every setting that it has, with the value that was given or its default.
        origins: for each setting that was given, by what: such as "FASTVIDEO_SAGE_ATTN_CROSS".
        details: what the backend itself tells of the run, such as its sparsity.
        fallback: what served the calls that it turned out not to take, if FASTVIDEO_ATTENTION_FALLBACK allowed that.
    """

    backend: str
    kernel: str
    version: str
    distribution: str
    reason: str
    calls: int
    kernels: list[KernelReceipt] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    fallback: RoleReceipt | None = None


@dataclass
class CacheReceipt:
    """What a caching policy did.

    Attributes:
        policy: its name; `distribution` the package that brought it, with its version.
        reason: what asked for it.
        settings: what it ran with.
        origins: for each setting that was given, by what.
        details: what the policy itself tells, such as the signal that it looks at.
        schedule: for each guidance branch a letter a step: C computed, R the residual reused, F forecast. A model of
            two experts has entries for each.
    """

    policy: str
    distribution: str
    reason: str
    settings: dict[str, Any]
    schedule: dict[str, str]
    origins: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class RankReceipt:
    """What one of several processes ran.

    Attributes:
        rank: its number; `device` where it computed.
        calls: of attention, per role; with guidance 2, of its own branch after the first step.
        kernels: per role, how many of them each kernel served; a process that had no heads to serve has none.
        bytes_sent: of tensors, to all others together.
        communication_seconds: what that took; None where nobody measured, as `attention_timed` does.
        peak_memory_bytes: as in the receipt.
    """

    rank: int
    device: str
    calls: dict[str, int]
    kernels: dict[str, dict[str, int]]
    bytes_sent: int
    communication_seconds: float | None = None
    peak_memory_bytes: int | None = None


@dataclass
class ParallelReceipt:
    """How several processes made one video.

    Attributes:
        processes: how many there were, which is `sequence` times `guidance`.
        sequence: into how many parts the video's tokens were cut.
        guidance: 2 where half of the processes computed each guidance branch, else 1.
        ranks: what each ran.
    """

    processes: int
    sequence: int
    guidance: int
    ranks: list[RankReceipt]


@dataclass
class Receipt:
    """What ran for one video. What a pipeline of one's own does not tell (prompt, seed, …) is None under `attach`.

    Attributes:
        requested_backend: the name that was asked for; None for the automatic choice.
        attention: per role, what served it.
        compiled: whether the transformer, or any of its blocks, ran compiled.
        quantization: by component, what its weights were rounded to; empty where they were plain numbers.
        vae_tiling: whether the video was decoded in tiles; None under `attach`.
        token_grid: video tokens along time, height and width.
        steps_computed: forward passes per guidance branch in which the blocks ran; `steps_skipped` the others.
        interrupted: whether the pipeline left its loop before all steps were done, as its `interrupt` makes it.
        cache: what the caching policy did; None if there was none.
        parallel: how several processes shared the work; None if one did it. `attention` is then the first one's.
        guidance_scale_2: that of the second expert, where the model has one and it was given.
        flow_shift: of the scheduler that ran, where that has a fixed one.
        max_sequence_length: tokens that prompts were padded to, where that was given; else the pipeline's default.
        input_image: the image that the video was made from.
        input_video: the video that it was made from.
        seconds: load, text, denoise, decode and encode, as far as known.
        peak_memory_bytes: of the CUDA device since the generation began, else of the process since it started.
        versions: of Python, torch, diffusers, the core and the plugins that served.
    """

    requested_backend: str | None
    attention: dict[str, RoleReceipt]
    num_inference_steps: int
    steps_computed: dict[str, int]
    token_grid: tuple[int, int, int] | None
    device: str
    dtype: str
    pipeline: str
    steps_skipped: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False
    cache: CacheReceipt | None = None
    parallel: ParallelReceipt | None = None
    compiled: bool = False
    quantization: dict[str, str] = field(default_factory=dict)
    vae_tiling: bool | None = None
    model: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    fps: int | None = None
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    flow_shift: float | None = None
    max_sequence_length: int | None = None
    input_image: str | None = None
    input_video: str | None = None
    seed: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    receipt_version: int = RECEIPT_VERSION

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as written to the JSON file."""
        return {name: plain(value) for name, value in asdict(self).items()}

    def to_json(self) -> str:
        """The receipt as indented JSON."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"

    __str__ = to_json


def plain(value: Any) -> Any:
    """The value with anything that JSON does not know as text: a path in a policy's settings, NaN, an infinity."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    known = value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    return value if known else str(value)
