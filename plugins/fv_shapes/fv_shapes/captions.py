"""Write captions for scenes in varied wording, and read the attributes back out of a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random

from fv_shapes.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, Scene

_SHAPE_WORDS = {
    "circle": ("circle", "circle", "disc", "ball"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "cross": ("cross", "cross", "plus sign"),
}
_COLOUR_WORDS = {
    **{name: (name,) for name in COLOURS},
    "purple": ("purple", "purple", "violet"),
    "cyan": ("cyan", "cyan", "turquoise"),
}
_BACKGROUND_WORDS = {**{name: (name,) for name in BACKGROUNDS}, "gray": ("gray", "grey")}
_SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
_VERBS = (("moving", "moves"), ("moving", "moves"), ("sliding", "slides"), ("drifting", "drifts"), ("going", "goes"))
_STILL = (
    ("standing still", "stands still"),
    ("staying in place", "stays in place"),
    ("not moving", "does not move"),
    ("resting", "rests"),
)
_STRAIGHT = ("{d}", "{d}", "to the {d}", "towards the {d}")
_VERTICAL = {"up": ("up", "upwards", "to the top"), "down": ("down", "downwards", "to the bottom")}
_DIAGONAL = (
    "{v} and to the {h}",
    "{v} and {h}",
    "diagonally {v} and {h}",
    "{v}-{h}",
    "to the {corner} {h}",
    "towards the {corner} {h}",
)
_CORNERS = {"up": ("upper", "top"), "down": ("lower", "bottom")}
_SENTENCES = (
    "{a} {thing} {doing} on {ab} {background} background",
    "{a} {thing} {doing} on {ab} {background} background",
    "{a} {thing} {does} on {ab} {background} background",
    "{a} {thing} {doing}, {background} background",
    "{a} {thing} {doing} across {ab} {background} canvas",
    "on {ab} {background} background, {a} {thing} {does}",
    "{ab} {background} background with {a} {thing} {doing}",
    "a video of {a} {thing} that {does} on {background}",
)


def caption(scene: Scene, rng: Random) -> str:
    """Describe a scene, choosing the wording at random."""
    doing, does = _motion(scene.direction, rng)
    words = (_SIZE_WORDS.get(scene.size, ("",)), _COLOUR_WORDS[scene.colour], _SHAPE_WORDS[scene.shape])
    thing = " ".join(rng.choice(choices) for choices in words).strip()
    background = rng.choice(_BACKGROUND_WORDS[scene.background])
    text = rng.choice(_SENTENCES).format(
        a=_article(thing), thing=thing, doing=doing, does=does, ab=_article(background), background=background
    )
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return text + "." * (rng.random() < 0.3)


def parse(prompt: str) -> Scene:
    """Read the attributes that a prompt names.

    Raises:
        ValueError: the prompt does not name a shape, a colour, a motion and a background of the vocabulary.
    """
    words = re.findall(r"[a-z]+", prompt.lower())
    background = _background(words)
    colour = next((name for word in words if (name := _find(word, _COLOUR_WORDS))), None)
    shape = next((name for word in words if (name := _find(word, _SHAPE_WORDS))), None)
    direction = _direction(words)
    found = {"shape": shape, "colour": colour, "direction": direction, "background": background}
    missing = [name for name, value in found.items() if value is None]
    if missing:
        raise ValueError(
            f"the prompt {prompt!r} names no {' and no '.join(missing)}; shapes: {', '.join(SHAPES)}; "
            f"colours: {', '.join(COLOURS)}; directions: {', '.join(DIRECTIONS)}; "
            f"backgrounds: {', '.join(BACKGROUNDS)}"
        )
    size = next((name for word in words if (name := _find(word, _SIZE_WORDS))), "medium")
    return Scene(str(shape), str(colour), str(direction), str(background), size)


def vocabulary() -> list[str]:
    """Every word that `caption` can write, sorted: what the tokenizer knows."""
    templates = [*_SENTENCES, *_STRAIGHT, *_DIAGONAL, *SHAPES, "left right plus sign"]
    templates += [text for pair in (*_VERBS, *_STILL) for text in pair]
    for table in (_SHAPE_WORDS, _COLOUR_WORDS, _BACKGROUND_WORDS, _SIZE_WORDS, _VERTICAL, _CORNERS):
        templates += [text for texts in table.values() for text in texts]
    text = re.sub(r"\{\w+\}", " ", " ".join([*templates, "a an"]).lower())
    return sorted(set(re.findall(r"[a-z]+", text)))


def _motion(direction: str, rng: Random) -> tuple[str, str]:
    if direction == "still":
        return rng.choice(_STILL)
    doing, does = rng.choice(_VERBS)
    where = _where(direction, rng)
    return f"{doing} {where}", f"{does} {where}"


def _where(direction: str, rng: Random) -> str:
    if direction in ("left", "right"):
        return rng.choice(_STRAIGHT).format(d=direction)
    if direction in _VERTICAL:
        return rng.choice(_VERTICAL[direction])
    vertical, horizontal = direction.split("-")
    return rng.choice(_DIAGONAL).format(v=vertical, h=horizontal, corner=rng.choice(_CORNERS[vertical]))


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _find(word: str, table: Mapping[str, tuple[str, ...]]) -> str | None:
    return next((name for name, texts in table.items() if word in {text.split()[0] for text in texts}), None)


def _background(words: list[str]) -> str | None:
    return next((name for word in words if (name := _find(word, _BACKGROUND_WORDS))), None)


def _direction(words: list[str]) -> str | None:
    vertical = next(
        (
            name
            for name in _VERTICAL
            for word in words
            if word in {*_CORNERS[name], *(text.split()[-1] for text in _VERTICAL[name])}
        ),
        None,
    )
    horizontal = next((word for word in words if word in ("left", "right")), None)
    if vertical or horizontal:
        return "-".join(part for part in (vertical, horizontal) if part)
    return "still" if {"still", "place", "not", "resting", "rests"} & set(words) else None
