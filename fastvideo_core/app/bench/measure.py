"""Generate the videos of a bench and measure each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from fastvideo_core.app.bench.setup import NO_CACHE, Combination, Sample, Setup
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

    Each backend is constructed anew for each number of processes; its policies alternate per sample.
    """
    total = len(setup.combinations) * len(setup.samples)
    done = 0
    for loaded, combinations in setup.of_generator():
        missing = [(s, c) for s in setup.samples for c in combinations if store.find(c, s) is None]
        done += len(combinations) * len(setup.samples) - len(missing)
        if not missing and store.profile(loaded):
            continue
        with VideoGenerator.from_pretrained(setup.info.name, **setup.loading_of(loaded)) as generator:
            _warm_up(generator, setup)
            store.add_profile(loaded, _profiled(generator, setup))
            for sample, combination in missing:
                progress(done + 1, total, combination, sample)
                store.add(_measure(generator, setup, store, combination, sample))
                done += 1


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
) -> Measurement:
    result = generator.generate_video(
        sample.prompt,
        cache=combination.cache,
        cache_config=setup.settings_of(combination.cache),
        seed=sample.seed,
        output_path=store.videos / f"{combination.file_name}-{sample.number}-{sample.seed}.mp4",
        **setup.sampling,
    )
    assert result.video_path is not None
    frames = to_bytes(result.frames)
    psnr, ssim = _against_plain(setup, store, combination, sample, frames)
    receipt = result.receipt
    right, unscored = _scored(setup, result)
    ranks = receipt.parallel.ranks if receipt.parallel else []
    peaks = [receipt.peak_memory_bytes, *(one.peak_memory_bytes for one in ranks)]
    return Measurement(
        attention=combination.attention,
        cache=combination.cache,
        number=sample.number,
        prompt=sample.prompt,
        seed=sample.seed,
        seconds=receipt.seconds["denoise"],
        steps_computed=sum(receipt.steps_computed.values()),
        steps_skipped=sum(receipt.steps_skipped.values()),
        peak_memory_bytes=max((peak for peak in peaks if peak is not None), default=None),
        psnr=psnr,
        ssim=ssim,
        right=right,
        video=result.video_path.name,
        schedule=receipt.cache.schedule if receipt.cache else None,
        unscored=unscored,
        processes=combination.processes,
        bytes_sent=max((one.bytes_sent for one in ranks), default=None),
    )


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


def _against_plain(
    setup: Setup, store: Store, combination: Combination, sample: Sample, frames: NDArray[np.uint8]
) -> tuple[float | None, float | None]:
    if combination == setup.plain:
        store.keep_plain_frames(sample, frames)
        return None, None
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
