"""Options and output that several commands share, those of plugins too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from fastvideo_core.cli.output import say
from fastvideo_core.contract.reading import GivenValue
from fastvideo_core.discovery.environment import normalize_backend_name
from fastvideo_core.engine.asked import asked_backend, asked_policy
from fastvideo_core.errors import InputError

_SAMPLING = (
    click.option("--height", type=int, help="Pixels."),
    click.option("--width", type=int, help="Pixels."),
    click.option("--frames", "num_frames", type=int, help="Number of frames."),
    click.option("--steps", "num_inference_steps", type=int, help="Denoising steps."),
    click.option("--guidance", "guidance_scale", type=float, help="Guidance scale; 1 or less: none."),
    click.option("--guidance-2", "guidance_scale_2", type=float, help="That of Wan 2.2's second expert."),
    click.option("--flow-shift", type=float, help="Of the noise schedule. Default: the preset's for the size."),
    click.option("--max-sequence-length", type=int, help="Tokens that prompts are padded to. Default: the model's."),
)
_MEMORY = (
    click.option(
        "--quantization", metavar="NAME", help="Round weights: fp8-layerwise, torchao-fp8, torchao-int8, bnb-nf4…"
    ),
    click.option(
        "--vae-tiling/--no-vae-tiling", default=None, help="Decode in tiles. Default: where it would not fit."
    ),
    click.option("--dit-cpu-offload", is_flag=True, help="Keep the transformer's weights in the computer's memory."),
    click.option("--text-encoder-cpu-offload", is_flag=True, help="Likewise the text encoder's."),
    click.option("--vae-cpu-offload", is_flag=True, help="Likewise the autoencoder's."),
)


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for size, steps and guidance, named as the fields of `SamplingParam`; None if not given."""
    return _with(_SAMPLING, command)


def memory_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for how weights are kept, named as the keywords of `VideoGenerator.from_pretrained`."""
    return _with(_MEMORY, command)


def _with(options: Sequence[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


def settings_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --set, which `split_settings` reads."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME.KEY=VALUE",
        help="A setting of the attention backend or the caching policy; may be repeated. `fv doctor` lists them.",
    )(command)


def settings_for_backend(given: Sequence[str], attention_backend: str | None) -> dict[str, Any]:
    """The settings given with --set for the attention backend that is asked for, by an option or the environment.

    Raises:
        InputError: as `split_settings`.
    """
    return split_settings(given, asked_backend(attention_backend).name)[0]


def settings_for_asked(
    given: Sequence[str], attention_backend: str | None, cache: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings given with --set: those for the attention backend and those for the caching policy.

    Args:
        attention_backend, cache: as options give them; None: what the environment asks for.

    Raises:
        InputError: as `split_settings`; or an option or a variable is no name with settings.
    """
    backend, policy = split_settings(given, asked_backend(attention_backend).name, asked_policy(cache).name)
    return backend, policy


def split_settings(given: Sequence[str], *asked: str | None) -> list[dict[str, Any]]:
    """The settings given with --set, for each of the names that were asked for, as `attention_config=` takes them.

    Raises:
        InputError: one is not NAME.KEY=VALUE, is for something that was not asked for, or is given twice.
    """
    found: list[dict[str, Any]] = [{} for _ in asked]
    for text in given:
        name, _, key = (part.strip() for part in text.partition("=")[0].rpartition("."))
        if "=" not in text or not name or not key:
            raise InputError(f"--set {text!r} is not NAME.KEY=VALUE, such as SLIDING_TILE_ATTN.window=3,3,3")
        name = normalize_backend_name(name) or ""
        if name not in asked:
            names = " and ".join(dict.fromkeys(one for one in asked if one)) or "nothing"
            raise InputError(
                f"--set {text!r} is for {name}, but {names} was asked for: name it with --attention-backend or "
                "--cache, or in the environment"
            )
        settings = found[asked.index(name)]
        if key in settings:
            raise InputError(f"--set gives {name}.{key} twice: {settings[key].shown} and {text!r}")
        settings[key] = GivenValue(text.partition("=")[2].strip(), f"--set {name}.{key}")
    return found


def only_given(options: dict[str, Any]) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in options.items() if value is not None}


def prompt_progress(total: int) -> Callable[[int, str], None]:
    """What prints the number and the text of each prompt to the error stream."""
    return lambda number, prompt: say(f"[{number + 1}/{total}] {prompt}", err=True)
