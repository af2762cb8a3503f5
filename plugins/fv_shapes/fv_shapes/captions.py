"""Write captions for scenes in varied wording, and read the attributes back out of a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random

from fv_shapes.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, MovingShape, Scene

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
    "{doing} on {ab} {background} background",
    "{doing} on {ab} {background} background",
    "{does} on {ab} {background} background",
    "{doing}, {background} background",
    "{doing} across {ab} {background} canvas",
    "on {ab} {background} background, {does}",
    "{ab} {background} background with {doing}",
    "a video of {that_does} on {background}",
    "{doing}",
)
_BETWEEN_SHAPES = ("and", "while", "with", ",")


def caption(scene: Scene, rng: Random) -> str:
    """Describe a scene in words chosen at random; two shapes are joined by "and", some captions name no background."""
    clauses = [_clauses(shape, rng) for shape in scene.shapes]
    doing, does, that_does = (" and ".join(one) for one in zip(*clauses, strict=True))
    background = rng.choice(_BACKGROUND_WORDS[scene.background]) if scene.background else ""
    text = rng.choice(_SENTENCES if background else _SENTENCES[-1:]).format(
        doing=doing, does=does, that_does=that_does, ab=background and _article(background), background=background
    )
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return text + "." * (rng.random() < 0.3)


def parse(prompt: str) -> Scene:
    """Read the attributes that a prompt names.

    Raises:
        ValueError: the prompt does not name one shape, or two of different colours, each with a colour and a motion,
            all of the vocabulary. A background that is not named is None.
    """
    words = re.findall(r"[a-z]+|,", prompt.lower())
    found = [_attributes(part) for part in _parts(words, prompt)]
    missing = [name for name in ("shape", "colour", "direction") if any(one[name] is None for one in found)]
    if missing:
        raise ValueError(
            f"the prompt {prompt!r} names no {' and no '.join(missing)}; shapes: {', '.join(SHAPES)}; "
            f"colours: {', '.join(COLOURS)}; directions: {', '.join(DIRECTIONS)}"
        )
    shapes = tuple(
        MovingShape(str(one["shape"]), str(one["colour"]), str(one["direction"]), str(one["size"])) for one in found
    )
    if len({shape.colour for shape in shapes}) < len(shapes):
        raise ValueError(f"the prompt {prompt!r} names two {shapes[0].colour} shapes; two must differ in colour")
    return Scene(shapes, _first(words, _BACKGROUND_WORDS))


def vocabulary() -> list[str]:
    """Every word that `caption` can write, sorted: what the tokenizer knows."""
    templates = [*_SENTENCES, *_STRAIGHT, *_DIAGONAL, *SHAPES, "left right plus sign that and"]
    templates += [text for pair in (*_VERBS, *_STILL) for text in pair]
    for table in (_SHAPE_WORDS, _COLOUR_WORDS, _BACKGROUND_WORDS, _SIZE_WORDS, _VERTICAL, _CORNERS):
        templates += [text for texts in table.values() for text in texts]
    text = re.sub(r"\{\w+\}", " ", " ".join([*templates, "a an"]).lower())
    return sorted(set(re.findall(r"[a-z]+", text)))


def _clauses(shape: MovingShape, rng: Random) -> tuple[str, str, str]:
    """The shape with its motion: "a red circle moving left", "… moves left", "… that moves left"."""
    doing, does = _motion(shape.direction, rng)
    words = (_SIZE_WORDS.get(shape.size, ("",)), _COLOUR_WORDS[shape.colour], _SHAPE_WORDS[shape.shape])
    thing = " ".join(rng.choice(choices) for choices in words).strip()
    thing = f"{_article(thing)} {thing}"
    return f"{thing} {doing}", f"{thing} {does}", f"{thing} that {does}"


def _parts(words: list[str], prompt: str) -> list[list[str]]:
    """The words for each shape: split at the last word that joins, before the second shape is named."""
    named = [index for index, word in enumerate(words) if _find(word, _SHAPE_WORDS)]
    if len(named) < 2:
        return [words]
    joints = [index for index in range(named[0], named[1]) if words[index] in _BETWEEN_SHAPES]
    if len(named) > 2 or not joints:
        raise ValueError(
            f"the prompt {prompt!r} names {len(named)} shapes; one can be read, or two joined by "
            f"{', '.join(map(repr, _BETWEEN_SHAPES))}"
        )
    return [words[: joints[-1]], words[joints[-1] :]]


def _attributes(words: list[str]) -> dict[str, str | None]:
    return {
        "shape": _first(words, _SHAPE_WORDS),
        "colour": _first(words, _COLOUR_WORDS),
        "direction": _direction(words),
        "size": _first(words, _SIZE_WORDS) or "medium",
    }


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


def _first(words: list[str], table: Mapping[str, tuple[str, ...]]) -> str | None:
    return next((name for word in words if (name := _find(word, table))), None)


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
