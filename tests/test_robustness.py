"""The long run, in short: benchmarks/robustness.py with small numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from robustness import endurance, threads

from fastvideo_core import VideoGenerator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def generator(wan_folder: Path) -> Iterator[VideoGenerator]:
    with VideoGenerator.from_pretrained(wan_folder, device="cpu") as shared:
        yield shared


def test_memory_stays_flat_and_receipts_agree(generator: VideoGenerator) -> None:
    line = endurance(generator, 28)
    grown = re.search(r"grows by (-?[\d.]+) KiB a generation, all receipts agree", line)
    assert grown, line
    assert float(grown[1]) < 500, "a generation's tensors alone have more"


def test_two_threads_with_a_generator_each(generator: VideoGenerator, wan_folder: Path) -> None:
    assert threads(wan_folder, generator).endswith("0 with frames that differ from a single thread's")
