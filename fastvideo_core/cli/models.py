"""`fv models`: the models that have presets, and what is known of them before one is fetched."""

from __future__ import annotations

import json

import click

from fastvideo_core.cli.output import discovered, say

_NOTE = (
    "\nparameters are the transformer's; weights are all of the pipeline's, in bfloat16, the autoencoder's in float32"
)


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: also the policies' reasons, and every part's size.")
def models_command(as_json: bool) -> None:
    """List the models that can be named: family, task, size, parameters, memory of the weights, caching policies.

    A folder in diffusers format or any hub id can be named as well. Nothing is fetched or loaded.
    """
    from fastvideo_core.app.model_list import listed_models

    models = list(listed_models(discovered()))
    if as_json:
        say(json.dumps([model.as_dict() for model in models], indent=2, ensure_ascii=False, default=str))
        return
    rows = [("NAME", "FAMILY", "TASK", "SIZE", "FRAMES", "PARAMETERS", "WEIGHTS", "CACHING")]
    for model in models:
        sampling = model.sampling
        experts = [count for name, count in model.parameters.items() if name.startswith("transformer")]
        rows.append(
            (
                model.name,
                model.family or "-",
                model.task or "-",
                f"{sampling['height']}x{sampling['width']}",
                f"{sampling['num_frames']} at {sampling['fps']}",
                _billions(experts),
                "-" if model.weights_bytes is None else f"{model.weights_bytes / 2**30:.1f} GiB",
                " ".join(name for name, one in model.policies.items() if one["serves"]) or "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip())
    say(_NOTE)


def _billions(experts: list[int]) -> str:
    """Such as "1.4 B", or "2 x 14.3 B" of two experts."""
    if not experts:
        return "-"
    times = f"{len(experts)} x " if len(experts) > 1 else ""
    count = experts[0]
    return f"{times}{count / 1e9:.1f} B" if count >= 5e7 else f"{times}{count / 1e6:.1f} M"
