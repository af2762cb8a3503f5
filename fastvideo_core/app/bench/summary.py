"""What a bench came to: a row for each combination, paired per prompt and seed with the plain one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeAlias

from fastvideo_core.app.bench.setup import Combination, Setup
from fastvideo_core.app.bench.store import Measurement, Profile, Store


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None of no values."""
        return cls(median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Row:
    """One combination.

    Attributes:
        seconds: of denoising.
        speed_up: the plain video's seconds over this one's, per prompt and seed.
        skipped: the share of steps that were skipped.
        attention_share: the share of denoising that is attention, measured without caching.
        peak_memory_bytes: the greatest; on a CPU of the process since it started.
        psnr, ssim: against the plain video; PSNR of those that differ, `equal` counts the others.
        accuracy: the share of videos that show all that their prompt says, of those that could be checked.
        unscored: how many could not: the checker cannot judge the prompt, or it failed.
        to_one_process: seconds of one process over those of `processes`, with the same backend and policy, per prompt
            and seed; None where one process has not been measured.
        communication_seconds: a step, measured without caching; None where there is one process.
        bytes_sent: for a video, by that process that sent most.
    """

    attention: str
    cache: str
    title: str
    videos: int
    seconds: Spread
    speed_up: Spread
    skipped: float
    attention_share: float | None
    peak_memory_bytes: int | None
    psnr: Spread | None
    equal: int
    ssim: Spread | None
    accuracy: float | None
    unscored: int
    processes: int = 1
    to_one_process: Spread | None = None
    communication_seconds: float | None = None
    bytes_sent: int | None = None


def summarise(setup: Setup, store: Store) -> list[Row]:
    """A row for each combination that has been measured, the plain one first."""
    rows = []
    for combination in setup.combinations:
        pairs = _pairs(setup, store, combination, setup.plain)
        by_one = _pairs(setup, store, combination, replace(combination, processes=1))
        if pairs:
            rows.append(_row(combination, pairs, by_one, store.profile(combination.loaded)))
    return rows


Pairs: TypeAlias = "list[tuple[Measurement, Measurement]]"


def _pairs(setup: Setup, store: Store, combination: Combination, other: Combination) -> Pairs:
    """The videos that both have made."""
    return [
        (found, against)
        for sample in setup.samples
        if (found := store.find(combination, sample)) and (against := store.find(other, sample))
    ]


def _row(combination: Combination, pairs: Pairs, by_one: Pairs, profile: Profile | None) -> Row:
    found = [measurement for measurement, _ in pairs]
    seconds = Spread.of([one.seconds for one in found])
    speed_up = Spread.of([plain.seconds / one.seconds for one, plain in pairs])
    assert seconds is not None
    assert speed_up is not None
    peaks = [one.peak_memory_bytes for one in found if one.peak_memory_bytes is not None]
    right = [all(one.right.values()) for one in found if one.right is not None]
    compared = [one for one in found if one.ssim is not None]
    steps = sum(one.steps_computed + one.steps_skipped for one in found)
    return Row(
        attention=combination.attention,
        cache=combination.cache,
        title=combination.title,
        videos=len(found),
        seconds=seconds,
        speed_up=speed_up,
        skipped=sum(one.steps_skipped for one in found) / steps,
        attention_share=profile.attention_share if profile else None,
        peak_memory_bytes=max(peaks, default=None),
        psnr=Spread.of([one.psnr for one in compared if one.psnr is not None]),
        equal=sum(one.psnr is None for one in compared),
        ssim=Spread.of([one.ssim for one in compared if one.ssim is not None]),
        accuracy=sum(right) / len(right) if right else None,
        unscored=sum(one.unscored is not None for one in found),
        processes=combination.processes,
        to_one_process=Spread.of([one.seconds / several.seconds for several, one in by_one]),
        communication_seconds=profile.communication_seconds if profile else None,
        bytes_sent=max((one.bytes_sent for one in found if one.bytes_sent is not None), default=None),
    )
