"""Measure the ratios of a model: python -m fv_magcache --model shapes --prompt "…" --output magcache.json."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from fastvideo_core import Action, Branch, CachePolicy, Step, VideoGenerator


@dataclass
class _Sizes:
    """Of a branch through an expert: the magnitude of its latest residual."""

    expert: int
    latest: float = 0.0


@dataclass
class _Magnitudes(CachePolicy):
    """Computes every step and keeps the mean magnitude of its residual."""

    name = "MAGNITUDES"
    seen: dict[tuple[int, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    """By expert and step."""

    def start(self, branch: Branch) -> _Sizes:
        return _Sizes(branch.expert)

    def decide(self, step: Step, state: _Sizes) -> Action:
        return Action.COMPUTE

    def observe(self, step: Step, state: _Sizes, residual: Any) -> None:
        before, state.latest = state.latest, residual.float().norm(dim=-1).mean().item()
        if step.index:
            self.seen[state.expert, step.index].append(state.latest / before)

    def ratios(self) -> list[float] | list[list[float]]:
        """The means over prompts and branches; where there are several experts, a list for each."""
        each: dict[int, list[float]] = {}
        for (expert, _), seen in sorted(self.seen.items()):
            each.setdefault(expert, [1.0]).append(sum(seen) / len(seen))
        return each[0] if len(each) == 1 else list(each.values())


@click.command()
@click.option("--model", required=True)
@click.option("--prompt", "prompts", multiple=True, required=True, help="May be given several times.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("magcache.json"), show_default=True)
def main(model: str, prompts: tuple[str, ...], output: Path) -> None:
    """Write the mean ratio of each step over prompts and guidance branches, for each expert."""
    magnitudes = _Magnitudes()
    with VideoGenerator.from_pretrained(model) as generator:
        for prompt in prompts:
            generator.generate_video(prompt, cache=magnitudes, save_video=False)
    ratios = magnitudes.ratios()
    every = [ratio for one in ratios for ratio in (one if isinstance(one, list) else [one])]
    output.write_text(json.dumps({"model": model, "prompts": len(prompts), "ratios": ratios}, indent=1) + "\n", "utf-8")
    click.echo(f"{output}: {len(every)} ratios from {len(prompts)} prompts, {min(every):.3f} to {max(every):.3f}")


if __name__ == "__main__":
    main()
