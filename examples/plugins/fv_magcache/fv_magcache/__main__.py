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
class _Magnitudes(CachePolicy):
    """Computes every step and keeps the mean magnitude of its residual."""

    name = "MAGNITUDES"
    seen: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def start(self, branch: Branch) -> list[float]:
        return []

    def decide(self, step: Step, state: list[float]) -> Action:
        return Action.COMPUTE

    def observe(self, step: Step, state: list[float], residual: Any) -> None:
        state.append(residual.float().norm(dim=-1).mean().item())
        if len(state) > 1:
            self.seen[step.index].append(state[-1] / state[-2])


@click.command()
@click.option("--model", required=True)
@click.option("--prompt", "prompts", multiple=True, required=True, help="May be given several times.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("magcache.json"), show_default=True)
def main(model: str, prompts: tuple[str, ...], output: Path) -> None:
    """Write the mean ratio of each step over prompts and guidance branches."""
    magnitudes = _Magnitudes()
    with VideoGenerator.from_pretrained(model) as generator:
        for prompt in prompts:
            generator.generate_video(prompt, cache=magnitudes, save_video=False)
    ratios = [1.0] + [sum(seen) / len(seen) for _, seen in sorted(magnitudes.seen.items())]
    output.write_text(json.dumps({"model": model, "prompts": len(prompts), "ratios": ratios}, indent=1) + "\n", "utf-8")
    click.echo(f"{output}: {len(ratios)} ratios from {len(prompts)} prompts, {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
