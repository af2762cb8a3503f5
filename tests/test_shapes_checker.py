"""fv-shapes' checker: right on rendered videos, wrong on broken ones, with measures of what was rendered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import pytest
from fv_shapes.captions import caption
from fv_shapes.colours import difference, lab
from fv_shapes.plugin import fastvideo_model_presets
from fv_shapes.render import render, shape_radius
from fv_shapes.scenes import SHAPES, SPEED, MovingShape, Scene, random_pair, random_scene
from fv_shapes.score import ATTRIBUTES, judge, read, score
from numpy.typing import NDArray

from fastvideo_core.app.output import encoded

Video = NDArray[np.uint8]

CIRCLE = MovingShape("circle", "red", "right")
ONE = Scene((CIRCLE,), "white")
PROMPT = "a red circle moving right on a white background"
TWO = Scene(
    (
        MovingShape("circle", "red", "right", offset=(0.0, -0.25), scale=0.7, speed=0.7),
        MovingShape("square", "blue", "left", offset=(0.0, 0.25), scale=0.7, speed=0.7),
    ),
    "white",
)
PROMPT_OF_TWO = "a red circle moving right and a blue square moving left on a white background"


def video(scene: Scene = ONE, **changes: Any) -> Video:
    """17 frames of 128x128; changes are to the first shape."""
    return render(replace(scene, shapes=(replace(scene.shapes[0], **changes), *scene.shapes[1:])), 17)


def degraded(frames: Video, rng: np.random.Generator, folder: Path) -> Video:
    """Blurred by a third of a pixel to two thirds, with noise of 6 in 255, and through the project's H.264."""
    share = rng.uniform(0.05, 0.22)
    pixels = frames.astype(np.float64)
    for axis in (1, 2):
        pixels = (1 - 2 * share) * pixels + share * (np.roll(pixels, 1, axis) + np.roll(pixels, -1, axis))
    pixels = pixels + 6 * rng.standard_normal(pixels.shape)
    with encoded(folder, (pixels / 255).astype(np.float32), 16) as path, av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def wrong(frames: NDArray[Any], prompt: str = PROMPT) -> set[str]:
    found = score(frames, prompt)
    assert found is not None
    assert tuple(found) == ATTRIBUTES
    return {name for name, right in found.items() if not right}


@pytest.mark.parametrize("make", [random_scene, random_pair])
def test_it_reads_scenes_through_blur_noise_and_compression(make: Callable[[Random], Scene], tmp_path: Path) -> None:
    rng, noise = Random(11), np.random.default_rng(11)
    for number in range(10):
        scene = make(rng)
        size = (17, 128, 128) if number else (33, 160, 128)
        text = caption(scene, rng)
        judged = judge(degraded(render(scene, *size), noise, tmp_path), text)
        assert all(judged.right.values()), (text, judged.reading)
        assert min(one.outline for one in judged.measures) > 0.9, text


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red square moving right on a white background", {"shape"}),
        ("a pink circle moving right on a white background", {"colour"}),
        ("a red circle moving up and right on a white background", {"direction"}),
        ("a red circle standing still on a white background", {"direction"}),
        ("a red circle moving right on a gray background", {"background"}),
        ("a red circle moving right", set()),
        (PROMPT_OF_TWO, {"shape", "colour", "direction"}),
    ],
)
def test_it_notices_each_wrong_attribute(prompt: str, expected: set[str]) -> None:
    assert wrong(video(), prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (PROMPT_OF_TWO, set()),
        ("on a white background, a blue box drifts left and a red ball drifts right", set()),
        ("a red square moving right and a blue circle moving left on a white background", {"shape"}),
        ("a red circle moving right and a green square moving left on a white background", {"colour"}),
        ("a red circle moving left and a blue square moving right on a white background", {"direction"}),
        ("a red circle moving right and a blue square resting on a black background", {"direction", "background"}),
        (PROMPT, {"shape"}),
    ],
)
def test_it_knows_which_of_two_shapes_is_which(prompt: str, expected: set[str]) -> None:
    assert wrong(video(TWO), prompt) == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_it_measures_a_perfect_rendering(shape: str) -> None:
    scene = Scene((MovingShape(shape, "cyan", "down-left", "small", speed=1.1, offset=(0.03, -0.02)),), "brown")
    (measures,) = judge(render(scene, 17), f"a cyan {shape} moving down-left").measures
    (figure,) = read(render(scene, 17)).figures
    assert measures.outline > 0.998
    assert measures.worst_outline > 0.98
    assert measures.softness == pytest.approx(1, abs=0.1)
    assert measures.colour_distance == pytest.approx(0, abs=0.1)
    assert measures.along == pytest.approx(1.1 * SPEED, rel=0.01)
    assert measures.across == pytest.approx(0, abs=1e-4)
    assert figure.radius == pytest.approx(0.72 * shape_radius(128) / 128, rel=0.01)
    assert figure.speed == pytest.approx(1.1 * SPEED, rel=0.01)
    assert (figure.shape, figure.outline) == (shape, measures.outline)


def test_shapes_that_the_border_cuts_are_measured_all_the_same() -> None:
    cut = MovingShape("triangle", "green", "right", "large", offset=(0.08, 0.08), scale=1.05, speed=1.1)
    (figure,) = read(render(Scene((cut,), "black"), 33)).figures
    assert (figure.shape, figure.direction) == ("triangle", "right")
    assert figure.outline > 0.998
    assert figure.worst_outline > 0.99
    assert figure.speed == pytest.approx(1.1 * SPEED, rel=0.01)


def best_overlap_of_circle_and_square(half: float = 1.0) -> float:
    """Over all radii of a circle with the square's middle, by counting on a grid."""
    at = np.linspace(-1.5, 1.5, 1001)
    x, y = np.meshgrid(at, at)
    square, distance = np.maximum(abs(x), abs(y)) < half, np.hypot(x, y)
    discs = [distance < radius for radius in np.linspace(0.9, 1.4, 51)]
    return max(float((square & disc).sum() / (square | disc).sum()) for disc in discs)


def test_the_outline_of_another_shape_is_the_best_overlap_with_it() -> None:
    expected = best_overlap_of_circle_and_square()
    for shown, wanted in (("circle", "square"), ("square", "circle")):
        (measures,) = judge(video(shape=shown), f"a red {wanted} moving right").measures
        assert measures.outline == pytest.approx(expected, abs=0.01)


def test_a_blur_is_soft_and_leaves_the_outline_in_place() -> None:
    frames = video().astype(np.float64)
    for _ in range(2):
        for axis in (1, 2):
            frames = (frames + np.roll(frames, 1, axis) + np.roll(frames, -1, axis)) / 3
    (figure,) = read(frames.astype(np.uint8)).figures
    assert figure.outline > 0.985
    assert figure.softness > 2


def test_colours_are_measured_in_cielab() -> None:
    assert lab((255, 0, 0)) == pytest.approx((53.24, 80.09, 67.20), abs=0.02)
    assert lab((0, 0, 255)) == pytest.approx((32.30, 79.19, -107.86), abs=0.02)
    assert difference((255, 255, 255), (0, 0, 0)) == pytest.approx(100, abs=0.01)
    frames = video()
    frames[(frames == (220, 30, 35)).all(axis=-1)] = (200, 40, 60)
    (measures,) = judge(frames, PROMPT).measures
    assert measures.colour_distance == pytest.approx(float(difference((200, 40, 60), (220, 30, 35))), abs=0.5)


def drawn(distance: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]) -> Video:
    """A red shape of any outline, moving right, by its signed distance."""
    y, x = np.mgrid[:128, :128] + 0.5
    covered = np.stack([np.clip(0.5 - distance(x - 64 - (n - 8) * 128 * SPEED, y - 64), 0, 1) for n in range(17)])
    frames: Video = np.rint(250 + covered[..., None] * (np.array([220, 30, 35]) - 250)).astype(np.uint8)
    return frames


def spliced(first: Video, second: Video) -> Video:
    return np.concatenate([first[:9], second[9:]])


def torn(frames: Video, which: slice, by: int = 12) -> Video:
    frames = frames.copy()
    frames[which, 64:] = np.roll(frames[which, 64:], by, axis=2)
    return frames


def patched(frames: Video) -> Video:
    """With a blue stripe through the shape."""
    stripe = (np.abs(np.arange(128) - 64) < 6)[:, None, None]
    return np.where(stripe & (frames[..., 1:2] < 140), (35, 75, 225), frames).astype(np.uint8)


def both(one: Video, other: Video) -> Video:
    return np.minimum(one, other)


BROKEN: dict[str, tuple[Callable[[], Video], set[str]]] = {
    "two copies": (lambda: both(video(offset=(0, -0.27), scale=0.7), video(offset=(0, 0.27), scale=0.7)), {"shape"}),
    "a second shape": (lambda: video(TWO), {"shape"}),
    "specks": (lambda: both(video(), video(offset=(0, -0.4), scale=0.35)), {"shape"}),
    "torn": (lambda: torn(video(), slice(None)), {"shape"}),
    "torn in four frames": (lambda: torn(video(), slice(6, 10)), {"shape"}),
    "gone for three frames": (
        lambda: np.concatenate([video()[:5], np.full_like(video()[:3], 250), video()[8:]]),
        {"shape"},
    ),
    "another shape halfway": (lambda: spliced(video(), video(shape="square")), {"shape"}),
    "between circle and square": (
        lambda: drawn(lambda x, y: (abs(x) ** 3.2 + abs(y) ** 3.2) ** (1 / 3.2) - 21),
        {"shape"},
    ),
    "an ellipse": (lambda: drawn(lambda x, y: np.hypot(1.3 * x, y) - 21), {"shape"}),
    "a ring": (lambda: drawn(lambda x, y: abs(np.hypot(x, y) - 17) - 5), {"shape"}),
    "a diamond": (lambda: drawn(lambda x, y: (abs(x) + abs(y) - 26) / 1.41), {"shape"}),
    "a star": (lambda: drawn(lambda x, y: np.hypot(x, y) - 21 - 4 * np.sin(5 * np.arctan2(y, x))), {"shape"}),
    "another direction halfway": (lambda: spliced(video(), video(direction="down-right")), {"direction"}),
    "there and back": (lambda: spliced(video(), video()[::-1]), {"direction"}),
    "a jump": (lambda: np.concatenate([video()[8:], video()[:8]]), {"direction"}),
    "a zigzag": (
        lambda: np.concatenate([np.roll(video()[n : n + 1], n % 2 * 10, 1) for n in range(17)]),
        {"direction"},
    ),
    "it stops halfway": (lambda: np.concatenate([video()[:6], np.repeat(video()[5:6], 11, axis=0)]), {"direction"}),
    "another colour halfway": (lambda: spliced(video(), video(colour="orange")), {"colour"}),
    "a flicker": (lambda: np.where(np.arange(17)[:, None, None, None] % 2, video(), video(colour="blue")), {"colour"}),
    "half of it blue": (
        lambda: np.where(
            (np.arange(128) < 64)[:, None, None] & (video()[..., 1:2] < 140), (35, 75, 225), video()
        ).astype(np.uint8),
        {"shape"},
    ),
    "a blue patch in seven frames": (lambda: np.concatenate([patched(video()[:7]), video()[7:]]), {"shape"}),
    "another background halfway": (lambda: spliced(video(), video(replace(ONE, background="gray"))), {"background"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_it_does_not_pass_a_broken_video(name: str) -> None:
    make, expected = BROKEN[name]
    assert wrong(make()) >= expected


def test_a_broken_pair_is_not_passed() -> None:
    alone = render(replace(TWO, shapes=TWO.shapes[:1]), 17)
    third = replace(TWO, shapes=(*TWO.shapes, MovingShape("cross", "green", "still", scale=0.5)))
    assert wrong(spliced(video(TWO), alone), PROMPT_OF_TWO) >= {"shape"}
    assert wrong(render(third, 17), PROMPT_OF_TWO) == {"shape"}
    assert wrong(np.where(np.arange(128)[:, None] < 64, torn(video(TWO), slice(None)), 0), PROMPT_OF_TWO) >= {"shape"}


def test_two_shapes_that_are_near_each_other_are_measured_apart() -> None:
    near = [replace(one, offset=(0.0, side * 0.13), scale=0.6) for one, side in zip(TWO.shapes, (-1, 1), strict=True)]
    standing = tuple(replace(one, direction="still") for one in near)
    assert [figure.outline > 0.995 for figure in read(render(Scene(standing, "white"), 17)).figures] == [True, True]


def test_what_belongs_to_nothing_counts_to_the_union() -> None:
    speck = both(video(), video(offset=(0, -0.4), scale=0.35))
    (measures,) = judge(speck, PROMPT).measures
    assert measures.outline == pytest.approx(1 / (1 + 0.35**2), abs=0.04)


def test_a_single_torn_frame_shows_in_the_outline() -> None:
    whole, one_torn = (judge(frames, PROMPT).measures[0] for frames in (video(), torn(video(), slice(8, 9))))
    assert one_torn.worst_outline < 0.75 < 0.98 < whole.worst_outline
    assert one_torn.outline == pytest.approx(whole.outline - (whole.outline - one_torn.worst_outline) / 17, abs=0.005)


def test_it_sees_nothing_in_noise_and_in_nothing() -> None:
    empty = np.full((9, 64, 64, 3), 250, np.uint8)
    assert (read(empty).figures, read(empty).background) == ((), "white")
    noise = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
    assert read(noise).figures == ()
    assert wrong(empty) == {"shape", "colour", "direction"}
    assert judge(empty, PROMPT).measures[0].outline == 0.0
    assert wrong(np.full((9, 64, 64, 3), np.nan, np.float32)) == set(ATTRIBUTES)


def test_frames_of_another_form_are_refused() -> None:
    for shape in ((64, 64, 3), (9, 64, 64, 4), (0, 64, 64, 3)):
        with pytest.raises(ValueError, match=r"frames must be \(num_frames, height, width, 3\), not \("):
            read(np.zeros(shape, np.uint8))


def test_floats_and_bytes_read_alike() -> None:
    frames = video(replace(ONE, background="brown"), colour="cyan")
    assert read(frames) == read((frames / 255).astype(np.float32))


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_short_videos_are_read(frames: int) -> None:
    found = read(video()[:frames])
    assert [figure.shape for figure in found.figures] in ([], ["circle"])


def test_a_prompt_that_cannot_be_read_is_not_judged() -> None:
    judged = judge(video(), "a red cat")
    assert score(video(), "a red cat") is None
    assert (judged.right, judged.measures) == ({}, ())
    assert judged.reading == read(video())
    assert judged.not_judged is not None
    assert judged.not_judged.startswith("the prompt 'a red cat' names no shape and no direction; shapes: circle, ")
    (preset,) = fastvideo_model_presets()
    assert preset.score is not None
    assert preset.score(video(), "a red cat") == judged.not_judged
    assert preset.score(video(), PROMPT) == dict.fromkeys(ATTRIBUTES, True)
