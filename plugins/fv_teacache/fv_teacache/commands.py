"""`fv teacache`: show what would be skipped, and calibrate coefficients for a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastvideo_core import (
    check_output_file,
    only_given,
    prompt_progress,
    read_prompts,
    sampling_options,
    settings_for_backend,
    settings_option,
    split_settings,
    written_whole,
)
from fastvideo_core.errors import InputError, PolicyMismatchError

if TYPE_CHECKING:
    from fastvideo_core import Action, Signal


@click.group("teacache")
def teacache() -> None:
    """TeaCache: plan and calibrate."""


@teacache.command("plan")
@click.option("--model", required=True, help="Preset, local folder or hub id.")
@click.option("--steps", "num_steps", type=int, help="Denoising steps. Default: the model's preset.")
@click.option("--threshold", type=float, help="The higher, the more is skipped. Default: the model's lowest.")
@click.option("--use-ret-steps", is_flag=True, default=None, help="The other published variant for Wan 2.1.")
@click.option("--coefficients", help="A file that `calibrate` wrote, or the name of a checkpoint.")
@click.option("--max-skips", type=int, help="Steps in a row that may be skipped. Default: 10.")
@settings_option
def plan_command(model: str, num_steps: int | None, settings: tuple[str, ...], **options: Any) -> None:
    """Show which steps would be computed, and what that saves, without generating anything.

    Of the checkpoint only the weights that embed the timestep are read.
    """
    from fastvideo_core import preview_plan
    from fv_teacache.policy import TeaCache

    given, named = only_given(options), split_settings(settings, TeaCache.name)[0]
    if twice := given.keys() & named.keys():
        raise InputError(f"{min(twice)} of TEACACHE is given twice: by an option and by --set; leave one out")
    policy = TeaCache.from_settings({**given, **named})
    plans = preview_plan(model, policy, num_steps)
    for branch, plan in plans:
        name = f"expert {branch.expert + 1}: " if len(plans) > 1 else ""
        click.echo(f"{name}{_letters(plan)}")
    every = [action for _, plan in plans for action in plan]
    computed = sum(action.name == "COMPUTE" for action in every)
    click.echo(
        f"C computed, R reused: {computed} of {len(every)} steps are computed, {len(every) - computed} skipped; "
        f"denoising is expected to be {len(every) / computed:.2f} times as fast"
    )


def _letters(plan: list[Action]) -> str:
    return "".join(action.name[0] for action in plan)


@teacache.command("calibrate")
@click.option("--model", required=True, help="Preset, local folder or hub id.")
@click.option("--prompts", "prompt_file", required=True, type=click.Path(path_type=Path), help="One prompt a line.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="The file to write, such as teacache.json."
)
@click.option("--signal", help="What to look at. Default: what TeaCache looks at for the model's family.")
@click.option("--threshold", type=float, help="A default threshold to put into the file.")
@sampling_options
@click.option("--seed", type=int, default=1024, show_default=True)
@click.option("--attention-backend", metavar="NAME")
@settings_option
@click.option("--device", help="Default: cuda where there is one, else cpu.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
def calibrate_command(
    model: str,
    prompt_file: Path,
    output: Path,
    signal: str | None,
    threshold: float | None,
    attention_backend: str | None,
    settings: tuple[str, ...],
    device: str | None,
    overwrite: bool,
    **sampling: Any,
) -> None:
    """Generate a video for each prompt, fit the coefficients, and write them, with a plot beside them (.png).

    What was measured is kept beside OUTPUT until the file is written: an interrupted calibration goes on from there.
    """
    from fastvideo_core import VideoGenerator, check_sampling
    from fv_teacache.calibrate import check_amount, collect, draw, fit

    config = settings_for_backend(settings, attention_backend)
    prompts = read_prompts(prompt_file)
    if threshold is not None and not 0 <= threshold <= 100:
        raise InputError(f"--threshold is {threshold}, it must be 0 to 100")
    notes, plot = output.with_name(output.name + ".measured.jsonl"), output.with_suffix(".png")
    if output == plot:
        raise InputError(f"--output is {str(output)!r}, which is the plot's name; end it in .json")
    for file in (output, plot):
        check_output_file(file, overwrite)
    check_output_file(notes, overwrite=True)
    given = only_given(sampling)
    params, info = check_sampling(model, given)
    looked_at = _signal(signal, info.family)
    check_amount(len(set(prompts)), params.num_inference_steps)
    with VideoGenerator.from_pretrained(
        model, attention_backend=attention_backend, attention_config=config, device=device
    ) as generator:
        pairs = collect(generator, looked_at, prompts, given, notes, prompt_progress(len(prompts)))
    steps = params.num_inference_steps
    calibration = replace(fit(pairs, looked_at, model, len(set(prompts)), steps), threshold=threshold)
    with written_whole(output, overwrite) as file, written_whole(plot, overwrite) as picture:
        file.write_text(calibration.to_json(), "utf-8")
        draw(pairs, calibration, picture)
    notes.unlink()
    click.echo(f"{output}: {' '.join(f'{value:.6g}' for value in calibration.coefficients)}, highest power first")
    click.echo(
        f"R² {calibration.r_squared:.3f} over {calibration.pairs} pairs of {calibration.signal.value} from "
        f"{calibration.prompts} prompts of {steps} steps; scatter plot {plot}"
    )


def _signal(asked: str | None, family: Any) -> Signal:
    from fastvideo_core import Signal
    from fv_teacache.policy import usual_signal

    if asked is None:
        return usual_signal(family.name, use_ret_steps=False)
    known = sorted(family.all_signals - {Signal.NONE, Signal.FIRST_BLOCK_OUTPUT})
    if asked.upper() not in known:
        raise PolicyMismatchError(f"--signal is {asked!r}; {family.name} models have {', '.join(known)}")
    return Signal(asked.upper())
