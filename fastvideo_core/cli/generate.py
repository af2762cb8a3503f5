"""`fv generate`: a prompt in, an MP4 out."""

from __future__ import annotations

from typing import Any

import click

from fastvideo_core.cli.options import only_given, sampling_options, settings_option, split_settings
from fastvideo_core.cli.output import discovered, own_output

DEFAULT_MODEL = "shapes"


@click.command("generate")
@click.argument("prompt")
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="Preset, local folder or hub id.")
@click.option("--attention-backend", metavar="NAME", help="Default: FASTVIDEO_ATTENTION_BACKEND, else automatic.")
@click.option("--attention-config", metavar="FILE", help="For the backend. Default: FASTVIDEO_ATTENTION_CONFIG.")
@click.option("--cache", metavar="POLICY", help="Such as TEACACHE@0.08. Default: FASTVIDEO_CACHE_POLICY, else none.")
@settings_option
@click.option("--negative-prompt", help="What the guidance leads away from.")
@click.option("--image", "image_path", metavar="PATH", help="What an image-to-video model starts from.")
@sampling_options
@click.option("--fps", type=int, help="Frames per second of the file.")
@click.option("--seed", type=int, help="Same seed, same video.")
@click.option("--output", "output_path", metavar="PATH", help="A folder, or a file ending in .mp4. Default: outputs/")
@click.option("--device", help="Default: cuda where there is one, else cpu.")
@click.option("--dtype", help="float32, bfloat16 or float16. Default: bfloat16 on CUDA, else float32.")
@click.option("--compile", is_flag=True, help="Compile the transformer's blocks: slower to start, faster a step.")
@click.option("--sheet", is_flag=True, default=None, help="Also write a PNG contact sheet.")
@click.option("--json", "as_json", is_flag=True, help="Print the receipt as JSON instead of a summary.")
def generate_command(
    prompt: str,
    model: str,
    attention_backend: str | None,
    attention_config: str | None,
    cache: str | None,
    settings: tuple[str, ...],
    device: str | None,
    dtype: str | None,
    compile: bool,  # noqa: A002  # the option's name
    as_json: bool,
    **overrides: Any,
) -> None:
    """Generate a video of PROMPT and write it with its receipt. What is not given comes from the model's preset."""
    from fastvideo_core.app.model_info import read_model
    from fastvideo_core.app.output import prepare_folder
    from fastvideo_core.app.sampling import SamplingParam, check_prompt
    from fastvideo_core.contract.settings import MAIN_SETTING, GivenValue
    from fastvideo_core.engine.attention.choice import requested_backend
    from fastvideo_core.engine.caching.choice import check_policy, read_value, requested_policy

    check_prompt(prompt)
    plugins = discovered()
    info = read_model(plugins, model)
    given = only_given(overrides)
    params = SamplingParam.from_preset(info.preset).with_overrides(**given)
    params.check(info)
    for_backend, for_policy = split_settings(settings, requested_backend(attention_backend)[0], requested_policy(cache))
    if attention_config:
        for_backend[MAIN_SETTING] = GivenValue(attention_config, "--attention-config")
    cache_config = {key: read_value(one.value) for key, one in for_policy.items()}
    check_policy(plugins, cache, info.cached_model, cache_config)
    prepare_folder(params.output_path)

    from fastvideo_core.app.generator import VideoGenerator

    with (
        own_output(),
        VideoGenerator.from_pretrained(
            model,
            attention_backend=attention_backend,
            attention_config=for_backend,
            device=device,
            dtype=dtype,
            compile=compile,
        ) as generator,
    ):
        result = generator.generate_video(prompt, params, cache=cache, cache_config=cache_config)
    if as_json:
        files = {"video_path": result.video_path, "receipt_path": result.receipt_path, "sheet_path": result.sheet_path}
        click.echo(_json({**{name: path and str(path) for name, path in files.items()}, **result.receipt.as_dict()}))
        return
    click.echo(f"video    {result.video_path}")
    click.echo(f"receipt  {result.receipt_path}")
    if result.sheet_path:
        click.echo(f"sheet    {result.sheet_path}")
    for role, served in result.receipt.attention.items():
        click.echo(f"{role.lower():8} {served.backend} ({served.version}), {served.calls} calls; {served.reason}")
    if used := result.receipt.cache:
        skipped, computed = (sum(n.values()) for n in (result.receipt.steps_skipped, result.receipt.steps_computed))
        click.echo(f"cache    {used.policy} ({used.distribution}), {skipped} of {skipped + computed} steps skipped")
    click.echo("seconds  " + ", ".join(f"{name} {value:.2f}" for name, value in result.receipt.seconds.items()))


def _json(content: dict[str, Any]) -> str:
    import json

    return json.dumps(content, indent=2, ensure_ascii=False)
