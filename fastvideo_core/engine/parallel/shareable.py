"""Which models several processes can share by sequence: those whose every count of tokens is known to be cut."""

from __future__ import annotations

from fastvideo_core.contract.attention import Role, TokenLayout
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.engine.parallel.degrees import Degrees
from fastvideo_core.errors import ParallelError


def check_shareable(family: ModelFamily, layout: TokenLayout | None = None) -> None:
    """Refuse a model whose tokens, or whose batch, cannot be cut within its blocks.

    Args:
        layout: how its tokens are arranged; None: before that is known.

    Raises:
        ParallelError: with what stands against it, and what can be done instead.
    """
    if problem := _problem(family) or (_problem_of(layout, family) if layout else None):
        raise ParallelError(
            f"{family.name} cannot be shared by several processes by sequence yet: {problem}; use one GPU, or where "
            "the pipeline calls the transformer once for each guidance branch two of them, with guidance alone: "
            "parallel={'guidance': 2}, or cfg_parallel=True with num_gpus=2"
        )


def check_degrees(family: ModelFamily, degrees: Degrees | None) -> None:
    """Refuse such a model before anything runs, unless guidance alone was asked for; raises as `check_shareable`.

    Args:
        degrees: what was asked for; None: as each run has it best, which may be by sequence.
    """
    if degrees is None or degrees.sequence > 1:
        check_shareable(family)


def _problem(family: ModelFamily) -> str | None:
    stack = family.stack
    problems = {
        "its blocks count the video tokens": stack.video_tokens is not None,
        "it is not declared to be (shared_by_sequence)": not family.shared_by_sequence,
    }
    return next((problem for problem, there in problems.items() if there), None)


def _problem_of(layout: TokenLayout, family: ModelFamily) -> str | None:
    if Role.SELF in family.roles and (layout.text_before or layout.text_after):
        return f"{layout.text_before + layout.text_after} tokens stand beside the video's, such as frames to start from"
    if layout.fixed and family.stack.leading is None:
        return "its blocks tell tokens by their place"
    return None
