"""From the fields of a request to a job, or to an error that names the field."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastvideo_core.errors import FastVideoError, InputError
from fv_serve.job import Asked
from fv_serve.problems import ApiError, bad_value
from fv_serve.served import SAMPLING, Served

_NUMBERS = {"guidance_scale", "guidance_scale_2", "flow_shift"}
_KNOWN = ("prompt", "model", "seconds", "size", "input_reference", "cache", "attention_backend", *SAMPLING)
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")
_CHOICE = re.compile(r"[A-Za-z0-9_-]+(@[A-Za-z0-9_.,+=:-]+)?")
_VALUE = re.compile(r"[-+0-9.,eE]+|[A-Za-z_]+")
_LONGEST_CHOICE = 300


@dataclass(frozen=True)
class Fields:
    """The fields of a request.

    Attributes:
        values: by name; texts alone where they come from a form.
        image: the bytes of `input_reference`, if it is given.
        from_form: whether numbers are written as text.
    """

    values: Mapping[str, Any]
    image: bytes | None
    from_form: bool


def checked(fields: Fields, served: Served) -> Asked:
    """What is asked for.

    Raises:
        ApiError: status 400, with the first field that is wrong.
    """
    values = {name: value for name, value in fields.values.items() if value is not None}
    for name in values:
        if name not in _KNOWN:
            close = difflib.get_close_matches(str(name), _KNOWN, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_KNOWN)}"
            raise bad_value(_shortened(name), f"unknown field {_shortened(name)!r}; {hint}", "unknown_parameter")
    prompt = _text(values, "prompt", served)
    if not prompt.strip():
        raise bad_value("prompt", "prompt is missing or empty; say what the video should show", "missing")
    _check_model(values.get("model"), served)
    sampling = {name: _converted(name, values[name], fields.from_form) for name in SAMPLING if name in values}
    if "negative_prompt" in values:
        sampling["negative_prompt"] = _text(values, "negative_prompt", served)
    if "size" in values:
        sampling.update(_size(values, sampling))
    if "seconds" in values:
        sampling["num_frames"] = _frames(values["seconds"], sampling, served)
    _check_sampling(sampling, fields.image is not None, served)
    chosen = {
        "cache": _choice(values, "cache", served, none=True),
        "attention_backend": _choice(values, "attention_backend", served, none=False),
    }
    for name, choice in chosen.items():
        if choice is None:
            continue
        try:
            served.check_choices(**{name: choice})
        except FastVideoError as error:
            raise bad_value(name, str(error)) from error
    return Asked(prompt, sampling, **chosen)


def _check_model(model: object, served: Served) -> None:
    if model not in (None, served.model):
        message = f"the model {_shortened(model)!r} is not served here; {served.model!r} is"
        raise bad_value("model", message, "model_not_found")


def _text(values: Mapping[str, Any], name: str, served: Served) -> str:
    text, longest = values.get(name, ""), served.limits.prompt_letters
    if not isinstance(text, str):
        raise bad_value(name, f"{name} must be text, not {_shortened(text)!r}")
    if len(text) > longest:
        raise bad_value(name, f"{name} has {len(text)} letters, the most are {longest}")
    if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in text):
        raise bad_value(
            name, f"{name} holds half a character (a lone surrogate) or a zero byte, which no file can hold"
        )
    return text


def _converted(name: str, value: Any, from_form: bool) -> Any:
    if name == "negative_prompt" or not (from_form and isinstance(value, str)):
        return value
    try:
        return float(value) if name in _NUMBERS else int(value)
    except ValueError:
        kind = "a number" if name in _NUMBERS else "a whole number"
        raise bad_value(name, f"{name} must be {kind}, not {_shortened(value)!r}") from None


def _size(values: Mapping[str, Any], sampling: Mapping[str, Any]) -> dict[str, int]:
    size = values["size"]
    for name in ("width", "height"):
        if name in sampling:
            raise bad_value(
                "size", f"size {_shortened(size)!r} and {name} {sampling[name]!r} are both given; leave one out"
            )
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if not found:
        raise bad_value("size", f"size must be WIDTHxHEIGHT in pixels, such as 832x480, not {_shortened(size)!r}")
    return {"width": int(found[1]), "height": int(found[2])}


def _frames(seconds: Any, sampling: Mapping[str, Any], served: Served) -> int:
    """The number of frames that the model can do which is nearest to so many seconds."""
    if "num_frames" in sampling:
        raise bad_value("seconds", f"seconds {_shortened(seconds)!r} and num_frames are both given; leave one out")
    try:
        length = (
            float(seconds) if isinstance(seconds, str | int | float) and not isinstance(seconds, bool) else math.nan
        )
    except (ValueError, OverflowError):
        length = math.nan
    fps = sampling.get("fps", served.defaults.fps)
    if not (0 < length <= 3600 and isinstance(fps, int)):
        raise bad_value("seconds", f"seconds must be a number above 0, at most 3600, not {_shortened(seconds)!r}")
    stride: int = served.info.geometry.frames_per_token
    return max(0, round((length * min(fps, 1000) - 1) / stride)) * stride + 1


def _check_sampling(sampling: dict[str, Any], image: bool, served: Served) -> None:
    # any file that is there stands for the image, which is written when the job is accepted
    asked = served.defaults.with_overrides(**sampling, image_path=__file__ if image else None)
    try:
        asked.check(served.info)
    except InputError as error:
        raise _with_field(str(error), sampling) from error
    if (tokens := asked.max_sequence_length or 0) > served.limits.text_tokens:
        message = f"max_sequence_length is {tokens}; this server does up to {served.limits.text_tokens}"
        raise bad_value("max_sequence_length", message, "too_large")
    work = asked.height * asked.width * asked.num_frames * asked.num_inference_steps
    if work > served.limits.work:
        given = [name for name in ("num_frames", "num_inference_steps", "height", "width") if name in sampling]
        raise bad_value(
            given[0] if given else "size",
            f"height x width x num_frames x num_inference_steps is {work:,}; this server does up to "
            f"{served.limits.work:,}",
            "too_large",
        )


def _with_field(message: str, sampling: Mapping[str, Any]) -> ApiError:
    """The core's messages begin with the parameter that is wrong; where one does not, it is looked for."""
    first = message.split(" ", 1)[0]
    if first == "image_path" or "image_path" in message:
        message = message.replace("image_path", "input_reference")
        return bad_value("input_reference", message)
    named = [name for name in sampling if name in message]
    return bad_value(first if first in SAMPLING else next(iter(named), "prompt"), message)


def _choice(values: Mapping[str, Any], name: str, served: Served, none: bool) -> str | None:
    """NAME@VALUE:SETTING=VALUE of what can be chosen, with numbers and words alone: a value may name no file here."""
    choices = served.choices.attention_backends if name == "attention_backend" else served.choices.cache_policies
    given = values.get(name)
    if given is None or given == "":
        return None
    if not isinstance(given, str) or len(given) > _LONGEST_CHOICE or not _CHOICE.fullmatch(given):
        such = f", such as {choices[0]}" if choices else ""
        raise bad_value(name, f"{name} must be NAME or NAME@VALUE{such}, not {_shortened(given)!r}")
    chosen, _, settings = given.partition("@")
    chosen = chosen.upper().replace("-", "_")
    if none and chosen == "NONE" and not settings:
        return "none"
    if chosen not in choices:
        there = ", ".join([*(["none"] if none else []), *choices])
        raise bad_value(name, f"{name} {_shortened(given)!r} is not among those that can be chosen here: {there}")
    for part in settings.split(":") if settings else []:
        key, equals, value = part.partition("=")
        if (key if equals else "") in served.choices.file_settings.get(chosen, ()):
            raise bad_value(name, f"{name} {given!r}: {part!r} may name a file, which a request cannot do")
        if not _VALUE.fullmatch(value if equals else key):
            raise bad_value(
                name, f"{name} {given!r}: a value is a number, several with commas, or a word, not {part!r}"
            )
    return f"{chosen}@{settings}" if settings else chosen


def _shortened(value: object) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:  # a number of more digits than Python writes
        text = "a number of very many digits"
    return text if len(text) <= 100 else f"{text[:99]}…"
