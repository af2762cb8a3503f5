"""Generate the videos of a bench and measure each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from fastvideo_core.app.bench.setup import NO_CACHE, Combination, Loaded, Sample, Setup
from fastvideo_core.app.bench.store import Measurement, Profile, Store
from fastvideo_core.app.generator import VideoGenerator
from fastvideo_core.app.output import to_bytes
from fastvideo_core.app.result import VideoResult
from fastvideo_core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


WARM_UP_STEPS = 2
PROFILED_STEPS = 4

Progress = Callable[[int, int, Combination, Sample], None]
"""Called before each video with its number, how many there are, and what it is of."""


def run(setup: Setup, store: Store, progress: Progress) -> None:
    """Measure what the store does not have yet.

    In one process the model is loaded once, and backends and policies take turns within each sample; several processes
    are started for each backend, and policies take turns. Every second sample goes through them backwards.
    """
    total = len(setup.combinations) * len(setup.samples)
    done = 0
    for served, combinations in setup.of_generator():
        missing = {sample: [c for c in combinations if store.find(c, sample) is None] for sample in setup.samples}
        done += len(combinations) * len(setup.samples) - sum(map(len, missing.values()))
        needed = {one.loaded for them in missing.values() for one in them}
        here = [one for one in served if one in needed or not store.profile(one)]
        if not here:
            continue
        with VideoGenerator.from_pretrained(setup.info.name, **setup.loading_of(here[0])) as generator:
            turns = Turns(generator, setup, here[0])
            for loaded in here:
                turns.to(loaded)
                _warm_up(generator, setup)
                store.add_profile(loaded, _profiled(generator, setup))
            for number, (sample, them) in enumerate(missing.items()):
                held: list[tuple[Measurement, NDArray[np.uint8]]] = []
                plain_is_there = setup.plain not in them
                for combination in in_turns(them, setup.plain, number):
                    progress(done + 1, total, combination, sample)
                    turns.to(combination.loaded)
                    held.append(_measure(generator, setup, store, combination, sample))
                    done += 1
                    if combination == setup.plain:
                        store.keep_plain_frames(sample, held[-1][1])
                        plain_is_there = True
                    if plain_is_there:
                        _keep(setup, store, sample, held)


class Turns:
    """Which backend is on the model."""

    def __init__(self, generator: VideoGenerator, setup: Setup, loaded: Loaded) -> None:
        self._generator, self._setup, self._now = generator, setup, loaded

    def to(self, loaded: Loaded) -> None:
        """Put another one on it, if it is another."""
        if loaded != self._now:
            self._generator.use_attention(loaded.attention, self._setup.settings_of(loaded.attention))
            self._now = loaded


def in_turns(combinations: list[Combination], plain: Combination, number: int) -> list[Combination]:
    """The order in which a sample's are measured: the plain one neither first nor last, where there are three."""
    others = [one for one in combinations if one != plain]
    middle = (len(others) + 1) // 2
    order = [*others[:middle], *([plain] if plain in combinations else []), *others[middle:]]
    return order[::-1] if number % 2 else order


def _keep(setup: Setup, store: Store, sample: Sample, held: list[tuple[Measurement, NDArray[np.uint8]]]) -> None:
    """Note what has waited for the plain video, with its distance from that."""
    for measurement, frames in held:
        is_plain = measurement.key == (setup.plain, sample.prompt, sample.seed)
        psnr, ssim = (None, None) if is_plain else _against_plain(store, sample, frames)
        store.add(replace(measurement, psnr=psnr, ssim=ssim))
    held.clear()


def _warm_up(generator: VideoGenerator, setup: Setup) -> None:
    """What is compiled, tuned or allocated at the first run is not measured."""
    generator.generate_video(setup.samples[0].prompt, **_short(generator, setup, WARM_UP_STEPS))


def _short(generator: VideoGenerator, setup: Setup, steps: int) -> dict[str, Any]:
    return {**setup.sampling, "num_inference_steps": steps, "save_video": False, "cache": NO_CACHE}


def _profiled(generator: VideoGenerator, setup: Setup) -> Profile:
    """Where denoising spends its time, in a run of its own of a few steps: to measure it slows it down."""
    with generator.attention_timed() as spent:
        receipt = generator.generate_video(setup.samples[0].prompt, **_short(generator, setup, PROFILED_STEPS)).receipt
        share = spent() / receipt.seconds["denoise"]
    ranks = receipt.parallel.ranks if receipt.parallel else []
    seconds = max((one.communication_seconds or 0.0 for one in ranks), default=None)
    return Profile(share, None if seconds is None else seconds / PROFILED_STEPS)


def _measure(
    generator: VideoGenerator, setup: Setup, store: Store, combination: Combination, sample: Sample
) -> tuple[Measurement, NDArray[np.uint8]]:
    """A video, not yet compared to the plain one, and its frames."""
    result = generator.generate_video(
        sample.prompt,
        cache=combination.cache,
        cache_config=setup.settings_of(combination.cache),
        seed=sample.seed,
        output_path=store.videos / f"{combination.file_name}-{sample.number}-{sample.seed}.mp4",
        **setup.sampling,
    )
    assert result.video_path is not None
    receipt = result.receipt
    right, unscored = _scored(setup, result)
    ranks = receipt.parallel.ranks if receipt.parallel else []
    peaks = [receipt.peak_memory_bytes, *(one.peak_memory_bytes for one in ranks)]
    measurement = Measurement(
        attention=combination.attention,
        cache=combination.cache,
        number=sample.number,
        prompt=sample.prompt,
        seed=sample.seed,
        seconds=receipt.seconds["denoise"],
        steps_computed=sum(receipt.steps_computed.values()),
        steps_skipped=sum(receipt.steps_skipped.values()),
        peak_memory_bytes=max((peak for peak in peaks if peak is not None), default=None),
        psnr=None,
        ssim=None,
        right=right,
        video=result.video_path.name,
        schedule=receipt.cache.schedule if receipt.cache else None,
        unscored=unscored,
        processes=combination.processes,
        bytes_sent=max((one.bytes_sent for one in ranks), default=None),
    )
    return measurement, to_bytes(result.frames)


def _scored(setup: Setup, result: VideoResult) -> tuple[dict[str, bool] | None, str | None]:
    """What the preset's checker says of the video, or why it says nothing: it is a plugin's, and may fail."""
    score = setup.info.preset.score if setup.info.preset else None
    if score is None:
        return None, None
    try:
        found = score(result.frames, result.prompt)
        if isinstance(found, str):
            return None, found
        if not found:
            return None, "the model's checker judged nothing"
        return {str(name): bool(right) for name, right in found.items()}, None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def _against_plain(store: Store, sample: Sample, frames: NDArray[np.uint8]) -> tuple[float | None, float | None]:
    plain = store.plain_frames(sample)
    if plain is None:
        raise InputError(
            f"{str(store.folder)!r} has measured the plain video of {sample.prompt!r} and lost its frames; remove the "
            "folder, or choose another --output"
        )
    return similarity(frames, plain)


def similarity(frames: NDArray[np.uint8], plain: NDArray[np.uint8]) -> tuple[float | None, float]:
    """PSNR in dB (None where both are equal) and SSIM (Wang et al. 2004), by torchmetrics, over all frames.

    They are taken frame by frame: SSIM needs many times the memory of what it is given at once.

    Args:
        frames, plain: (num_frames, height, width, 3).
    """
    from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

    psnr, ssim = PeakSignalNoiseRatio(data_range=1.0), StructuralSimilarityIndexMeasure(data_range=1.0)
    equal = True
    for pair in zip(frames, plain, strict=True):
        made, expected = (torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255 for frame in pair)
        psnr.update(made, expected)
        ssim.update(made, expected)
        equal = equal and torch.equal(made, expected)
    return None if equal else float(psnr.compute()), float(torch.as_tensor(ssim.compute()))
