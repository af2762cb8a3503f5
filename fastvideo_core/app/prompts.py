"""What a prompt may be."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastvideo_core.contract.settings import Config, named_values
from fastvideo_core.errors import InputError


def check_prompts(prompts: object) -> list[str]:
    """The prompts of a single one or of a list.

    Raises:
        InputError: it is neither, there is none, or one is not text or empty.
    """
    if isinstance(prompts, str):
        return [check_prompt(prompts)]
    if not isinstance(prompts, list | tuple):
        raise InputError(f"a prompt must be text, or a list of texts, not {prompts!r}")
    if not prompts:
        raise InputError("the list of prompts is empty")
    return [check_prompt(prompt) for prompt in prompts]


def is_writable(text: str) -> bool:
    """Whether the text can be written as UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def check_prompt(prompt: object) -> str:
    """The prompt, if it is text that is not empty.

    Raises:
        InputError: it is not.
    """
    if not isinstance(prompt, str):
        raise InputError(f"a prompt must be text, not {prompt!r}")
    if not is_writable(prompt):
        raise InputError(f"the prompt {prompt!r} holds half a character (a lone surrogate), which no file can hold")
    if not prompt.strip():
        raise InputError(f"the prompt {prompt!r} is empty; say what the video should show")
    return prompt


def check_lengths(pipe: Any, longest: int | None = None, **texts: Sequence[str]) -> None:
    """Refuse texts of which the pipeline would cut off the end, as diffusers' do without an error.

    Args:
        longest: tokens that are read of each; None for the pipeline's default.
        texts: by what they are, such as prompt=["a cat"].

    Raises:
        InputError: with the number of tokens, and the end that would not be read.
    """
    limit = inspect.signature(type(pipe).__call__).parameters.get("max_sequence_length")
    tokenizer = getattr(pipe, "tokenizer", None)
    if limit is None or tokenizer is None:
        return
    most = limit.default if longest is None else longest
    if not isinstance(most, int):
        return
    for what, several in texts.items():
        for text in several:
            tokens = tokenizer(text, truncation=False, verbose=False).input_ids
            if len(tokens) > most:
                unread = tokenizer.decode(tokens[most - 1 :], skip_special_tokens=True)
                longer = "" if longest is None else ", or give a larger max_sequence_length"
                raise InputError(
                    f"the {what} {_shortened(text)!r} is {len(tokens)} tokens long, {type(pipe).__name__} reads "
                    f"{most}: it would not see its end, {_shortened(unread)!r}; shorten it{longer}"
                )


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def check_settings_are_text(parameter: str, settings: Config) -> None:
    """Refuse a setting that no receipt could hold, such as a path that is not UTF-8.

    Raises:
        InputError: with what gave it.
    """
    for _, given in named_values(settings, parameter):
        if isinstance(given.value, str | Path) and not is_writable(str(given.value)):
            raise InputError(
                f"{given.origin} is {given.shown}, which is no text: it holds bytes that are not UTF-8; rename the file"
            )
