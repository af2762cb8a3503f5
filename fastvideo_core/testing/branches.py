"""A policy driven through its gate by tensors alone, and on a small Wan with random weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from fastvideo_core.builtin.models.wan import WAN
from fastvideo_core.contract.caching import Branch, CachedModel, CachePolicy, Signal, relative_change
from fastvideo_core.engine.attachment import Attachment, attach
from fastvideo_core.engine.caching.choice import prepare_policy
from fastvideo_core.engine.caching.gate import Gate
from fastvideo_core.engine.caching.gated_pass import GatedPass

BLOCKS = 4
MODEL = CachedModel(
    "the suite's model", "Wan", "WanPipeline", None, WAN.all_signals, frozenset(WAN.time_signals), BLOCKS
)


@dataclass(frozen=True)
class Inputs:
    """What a branch sees at each step: hidden states and signals, (steps, 1, tokens, channels)."""

    hidden: torch.Tensor
    signals: torch.Tensor

    @classmethod
    def of(cls, seed: int, num_steps: int) -> Inputs:
        """Values that change fast at first and slowly later, as in a denoising run."""
        generator = torch.Generator().manual_seed(seed)
        start, end, signal = (torch.randn(1, 1, 6, 8, generator=generator) for _ in range(3))
        time = (torch.arange(num_steps) / max(1, num_steps - 1))[:, None, None, None]
        pace = 1 - (1 - time) ** 3
        return cls(start + pace * (end - start), signal * (1 + pace) + 0.2 * torch.sin(3 * pace + signal))

    @cached_property
    def changes(self) -> tuple[float, ...]:
        """The relative change of the signal from each step to the next."""
        steps = zip(self.signals[1:], self.signals, strict=False)
        return (0.0, *(relative_change(now, before) for now, before in steps))


def guided(num_steps: int, seed: int = 0) -> dict[str, Inputs]:
    """What the two branches of guidance see."""
    return {"cond": Inputs.of(seed, num_steps), "uncond": Inputs.of(seed + 5, num_steps)}


def in_turns(first: str, second: str, num_steps: int) -> list[str]:
    """Turns of two branches, as a pipeline takes them."""
    return [first, second] * num_steps


@dataclass
class Outcome:
    """What a branch came to: a letter for each step, and what left the stack."""

    letters: str
    outputs: list[torch.Tensor]

    def same_as(self, other: Outcome) -> bool:
        """Equal in every letter and bit."""
        equal = all(torch.equal(a, b) for a, b in zip(self.outputs, other.outputs, strict=True))
        return self.letters == other.letters and equal


def _block(hidden: torch.Tensor, number: int, step: int) -> torch.Tensor:
    """Stands in for a block: a tensor function whose result depends on the step."""
    if number == 0:
        return hidden + 0.1 * torch.sin(2 * hidden + math.sqrt(step))
    return hidden + torch.cos(hidden + number) * (1 + 1 / (1 + step)) / number


def drive(
    policy: CachePolicy,
    branches: Mapping[str, Inputs],
    turns: Sequence[str] | None = None,
    ahead: bool = True,
) -> dict[str, Outcome]:
    """Take branches through a policy's gate, a run from the start to the end.

    Args:
        branches: per branch, what it sees.
        turns: whose turn it is at each forward pass; default: one branch after the other.
        ahead: whether the policy may plan.
    """
    prepared = prepare_policy(policy, MODEL)
    gate = Gate(prepared if ahead else _without_plan(prepared))
    outcomes = {branch: Outcome("", []) for branch in branches}
    for branch in turns or [branch for branch, inputs in branches.items() for _ in inputs.hidden]:
        _pass(gate, branch, branches[branch], outcomes[branch])
    for branch, letters in gate.schedules().items():
        outcomes[branch].letters = letters
    return outcomes


def _pass(gate: Gate, name: str, inputs: Inputs, outcome: Outcome) -> None:
    step = len(outcome.outputs)
    signal = gate.policy.signal
    known = signal in MODEL.known_ahead
    branch = Branch(
        MODEL,
        name,
        0,
        len(inputs.hidden),
        tuple(float(len(inputs.hidden) - number) for number in range(len(inputs.hidden))),
        inputs.changes if known else None,
    )
    reader = None if signal is Signal.NONE else lambda block, args: inputs.signals[step]
    gated = gate.gated_pass(0, name, step, lambda: branch, WAN.stack, reader)
    outcome.outputs.append(_through(gated, inputs.hidden[step], step))


def _through(gated: GatedPass, hidden: torch.Tensor, step: int) -> torch.Tensor:
    """What leaves the stack."""
    first, stop = gated.first_blocks, BLOCKS - gated.last_blocks
    hidden = gated.enter(None, (hidden,))
    for number in range(BLOCKS):
        if number == first > 0:
            hidden = gated.after_first((hidden,))
        if not gated.skips or not first <= number < stop:
            hidden = _block(hidden, number, step)
        if number == stop - 1 and not gated.skips:
            hidden = gated.leave((hidden,))
    return hidden


def _without_plan(policy: CachePolicy) -> CachePolicy:
    """The same policy, which decides at each step."""
    asked: Any = copy.copy(policy)
    asked.plan = lambda branch: None
    checked: CachePolicy = asked
    return checked


def small_pipeline(experts: int = 1, num_layers: int = BLOCKS) -> Any:
    """A WanPipeline that takes embeddings and returns latents: two heads of 16, random weights."""
    from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    torch.manual_seed(0)

    def transformer() -> Any:
        return WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=num_layers
        ).eval()

    pipe = WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=transformer(),
        transformer_2=transformer() if experts == 2 else None,
        boundary_ratio=0.8 if experts == 2 else None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(pipe: Any, num_steps: int = 12, seed: int = 1, **options: Any) -> torch.Tensor:
    """What the small pipeline makes of a seed."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(1, 4, 16, generator=generator)
    size = {"height": 32, "width": 48, "num_frames": 9, "num_inference_steps": num_steps, **options}
    made: torch.Tensor = pipe(
        prompt_embeds=text, negative_prompt_embeds=-text, generator=generator, output_type="latent", **size
    ).frames
    return made


def cached(pipe: Any, policy: CachePolicy) -> Attachment:
    """The pipeline with the policy on it, and with torch's own attention."""
    return attach(pipe, attention_backend="TORCH_SDPA", cache=policy)


def letters_of(attachment: Attachment) -> dict[str, str]:
    """The schedule of the latest run."""
    assert attachment.receipt.cache is not None
    return attachment.receipt.cache.schedule
