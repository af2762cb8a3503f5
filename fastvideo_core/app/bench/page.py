"""One HTML page that needs nothing else: the videos of a prompt side by side, in step, with their figures."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from fastvideo_core.app.bench.report import columns_and_cells
from fastvideo_core.app.bench.setup import Sample, Setup
from fastvideo_core.app.bench.store import Measurement, Store
from fastvideo_core.app.bench.summary import Row
from fastvideo_core.app.files import written_whole


def write_page(setup: Setup, store: Store, rows: Sequence[Row], plot: Path, path: Path, most: int) -> None:
    """Write the page.

    Args:
        most: of how many prompts and seeds the videos are put into it.
    """
    template = files("fastvideo_core.app.bench").joinpath("page.html").read_text("utf-8")
    shown = [sample for sample in setup.samples if store.find(setup.plain, sample)][:most]
    content = {
        "MODEL": escape(setup.info.name),
        "SUMMARY": _summary(setup, shown),
        "TABLE": _table(rows),
        "PLOT": _embedded(plot, "image/png"),
        "SAMPLES": "\n".join(part for sample in shown for part in _sample(setup, store, sample)),
    }
    for name, value in content.items():
        template = template.replace(f"<!--{name}-->", value)
    with written_whole(path, overwrite=True) as file:
        file.write_text(template, "utf-8")


def _summary(setup: Setup, shown: Sequence[Sample]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in setup.sampling.items())
    return escape(
        f"{len(setup.samples)} videos for each row, paired with those of {setup.plain.title} by prompt and seed; "
        f"medians, least and greatest in brackets. {len(shown)} of them are below. {settings}"
    )


def _table(rows: Sequence[Row]) -> str:
    columns, *cells = columns_and_cells(rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _sample(setup: Setup, store: Store, sample: Sample) -> Iterator[str]:
    yield f'<section><h2>{escape(sample.prompt)} <small>seed {sample.seed}</small></h2><div class="row">'
    for combination in setup.combinations:
        found = store.find(combination, sample)
        if found is not None:
            source = _embedded(store.videos / found.video, "video/mp4")
            yield (
                f'<figure><video src="{source}" muted loop playsinline preload="auto"></video>'
                f"<figcaption><b>{escape(combination.title)}</b><br>{escape(_figures(found))}</figcaption></figure>"
            )
    yield "</div></section>"


def _figures(found: Measurement) -> str:
    parts = [f"{found.seconds:.2f} s"]
    if found.steps_skipped:
        parts.append(f"{found.steps_skipped} of {found.steps_skipped + found.steps_computed} steps skipped")
    if found.ssim is not None:
        parts.append("equal to plain" if found.psnr is None else f"PSNR {found.psnr:.1f} dB, SSIM {found.ssim:.3f}")
    if found.right is not None:
        wrong = [name for name, right in found.right.items() if not right]
        parts.append(f"wrong: {', '.join(wrong)}" if wrong else "all right")
    if found.unscored is not None:
        parts.append(f"unscored: {found.unscored}")
    return ", ".join(parts)


def _embedded(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
