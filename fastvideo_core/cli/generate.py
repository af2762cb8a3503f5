"""`fv generate`: a prompt in, an MP4 out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from fastvideo_core.cli.options import memory_options, only_given, sampling_options, settings_for_asked, settings_option
from fastvideo_core.cli.output import discovered, own_output, say
from fastvideo_core.errors import InputError

if TYPE_CHECKING:
    from fastvideo_core.app.result import VideoResult

DEFAULT_MODEL = "shapes"


@click.command("generate")
@click.argument("prompt", required=False)
@click.option(
    "--prompts",
    "prompt_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Prompts, one a line; or .jsonl: prompt, and id, cache, any sampling parameter.",
)
@click.option("--shard", metavar="I/N", help="With --prompts: part I of N, such as 1/4.")
@click.option("--retry-failed", is_flag=True, help="With --prompts: try those again that failed in an earlier run.")
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="Preset, local folder or hub id.")
@click.option("--attention-backend", metavar="NAME", help="NAME or NAME@VALUE. Default: automatic.")
@click.option("--attention-config", metavar="FILE", help="For the backend. Default: FASTVIDEO_ATTENTION_CONFIG.")
@click.option("--cache", metavar="POLICY", help="Such as TEACACHE@0.08. Default: FASTVIDEO_CACHE_POLICY, else none.")
@settings_option
@click.option("--negative-prompt", help="What the guidance leads away from.")
@click.option("--image", "image_path", metavar="PATH", help="What an image-to-video model starts from.")
@click.option("--video", "video_path", metavar="PATH", help="What a video-to-video or control model starts from.")
@sampling_options
@click.option("--fps", type=int, help="Frames per second of the file.")
@click.option("--seed", type=int, help="Same seed, same video.")
@click.option("--output", "output_path", metavar="PATH", help="A folder, or a file ending in .mp4. Default: outputs/")
@click.option("--device", help="Default: cuda where there is one, else cpu.")
@click.option("--dtype", help="float32, bfloat16 or float16. Default: bfloat16 on CUDA, else float32.")
@click.option("--compile", is_flag=True, help="Compile the transformer's blocks: slower to start, faster a step.")
@click.option("--num-gpus", default=1, show_default=True, help="GPUs that make each video together.")
@click.option(
    "--num-processes", default=1, show_default=True, help="Likewise on the CPU, with --device cpu: to try it."
)
@click.option("--shard-weights", is_flag=True, help="Have each process hold a part of the transformer's weights.")
@memory_options
@click.option("--pin-cpu-memory", is_flag=True, help="Pin offloaded weights, and copy them while the GPU computes.")
@click.option("--sheet", is_flag=True, default=None, help="Also write a PNG contact sheet.")
@click.option("--json", "as_json", is_flag=True, help="Print the receipt as JSON instead of a summary.")
def generate_command(
    prompt: str | None,
    prompt_file: Path | None,
    shard: str | None,
    retry_failed: bool,
    model: str,
    attention_backend: str | None,
    attention_config: str | None,
    cache: str | None,
    settings: tuple[str, ...],
    device: str | None,
    dtype: str | None,
    compile: bool,  # noqa: A002  # the option's name
    num_gpus: int,
    num_processes: int,
    shard_weights: bool,
    quantization: str | None,
    vae_tiling: bool | None,
    dit_cpu_offload: bool,
    text_encoder_cpu_offload: bool,
    vae_cpu_offload: bool,
    pin_cpu_memory: bool,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Generate a video of PROMPT and write it with its receipt. What is not given comes from the model's preset.

    With --prompts instead: a video for each, named by its id, one after the other. What is whole in the folder is not
    made again; a prompt that fails does not end the run. The folder's results.jsonl has a line for each.
    """
    from torch import device as device_of

    from fastvideo_core.app.loading import check_device, check_dtype
    from fastvideo_core.app.make import prepare_target
    from fastvideo_core.app.memory import check_memory
    from fastvideo_core.app.model_info import read_model
    from fastvideo_core.app.processes import check_processes
    from fastvideo_core.app.prompts import check_prompt, check_settings_are_text
    from fastvideo_core.app.sampling import SamplingParam
    from fastvideo_core.cli.batch import Batch
    from fastvideo_core.contract.reading import GivenValue
    from fastvideo_core.contract.settings import MAIN_SETTING
    from fastvideo_core.engine.attention.choice import choose_attention
    from fastvideo_core.engine.caching.choice import check_policy
    from fastvideo_core.engine.plugin_calls import check_grid

    if (prompt is None) == (prompt_file is None):
        raise InputError("give either a PROMPT or --prompts FILE")
    batch = Batch.read(prompt_file, shard, retry_failed)
    alone = "" if prompt is None else check_prompt(prompt)
    plugins = discovered()
    info = read_model(plugins, model)
    given = only_given(overrides)
    params = SamplingParam.from_preset(info.preset).with_overrides(**given)
    if not batch:
        params.check(info)
    for_backend, cache_config = settings_for_asked(settings, attention_backend, cache)
    if attention_config:
        for_backend[MAIN_SETTING] = GivenValue(attention_config, "--attention-config")
    check_policy(plugins, cache, info.cached_model, cache_config)
    chosen_device = check_device(device)
    check_processes(num_gpus, num_processes, chosen_device)
    chosen_dtype = check_dtype(dtype, chosen_device)
    asked = batch.checked(params, cache, cache_config, info, plugins) if batch else [params]
    for one in asked:
        check_memory(one, info, chosen_device, chosen_dtype)
    check_settings_are_text("attention_config", for_backend)
    needs = info.family.needs(info.transformer, chosen_dtype, device_of(chosen_device))
    serving = choose_attention(plugins, attention_backend, needs, for_backend)[1].values()
    for one in asked:
        check_grid([served.backend for served in serving], one.grid(info))
    if batch:
        batch.prepare(params)
    else:
        prepare_target(params)

    from fastvideo_core.app.generator import VideoGenerator

    output = sys.stdout
    with (
        own_output(),
        VideoGenerator.from_pretrained(
            model,
            attention_backend=attention_backend,
            attention_config=for_backend,
            device=device,
            dtype=dtype,
            compile=compile,
            num_gpus=num_gpus,
            num_processes=num_processes,
            shard_weights=shard_weights,
            quantization=quantization,
            vae_tiling=vae_tiling,
            dit_cpu_offload=dit_cpu_offload,
            text_encoder_cpu_offload=text_encoder_cpu_offload,
            vae_cpu_offload=vae_cpu_offload,
            pin_cpu_memory=pin_cpu_memory,
        ) as generator,
    ):
        show = partial(_show, as_json=as_json, indent=None if batch else 2)
        if batch:
            batch.run(
                lambda rows: generator.generate_videos(rows, params, cache=cache, cache_config=cache_config),
                partial(_printed, output, show),
            )
        else:
            _printed(output, show, generator.generate_video(alone, params, cache=cache, cache_config=cache_config))


def _printed(output: TextIO, show: Callable[[VideoResult], None], result: VideoResult) -> None:
    with redirect_stdout(output):
        show(result)


def _show(result: VideoResult, as_json: bool, indent: int | None) -> None:
    """Print where the files are and what ran; without an indent JSON is one line."""
    receipt = result.receipt
    if as_json:
        files = {"video_path": result.video_path, "receipt_path": result.receipt_path, "sheet_path": result.sheet_path}
        content = {**{name: path and str(path) for name, path in files.items()}, **receipt.as_dict()}
        say(json.dumps(content, indent=indent, ensure_ascii=False))
        return
    say(f"video    {result.video_path}")
    say(f"receipt  {result.receipt_path}")
    if result.sheet_path:
        say(f"sheet    {result.sheet_path}")
    for role, served in receipt.attention.items():
        say(f"{role.lower():8} {served.backend} ({served.version}), {served.calls} calls; {served.reason}")
        if served.details:
            say("         " + ", ".join(f"{name} {_short(value)}" for name, value in served.details.items()))
    if used := receipt.cache:
        skipped, computed = (sum(n.values()) for n in (receipt.steps_skipped, receipt.steps_computed))
        say(f"cache    {used.policy} ({used.distribution}), {skipped} of {skipped + computed} steps skipped")
    if shared := receipt.parallel:
        say(f"parallel {shared.processes} processes: guidance {shared.guidance} x sequence {shared.sequence}")
    for name, kind in receipt.quantization.items():
        say(f"weights  {name}: {kind}, not exact")
    say("seconds  " + ", ".join(f"{name} {value:.2f}" for name, value in receipt.seconds.items()))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, default=str)
