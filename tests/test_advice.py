"""The last line of `fv doctor`: what to install here, and what it gains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastvideo_core import Probe
from fastvideo_core.cli import fv
from fastvideo_core.cli.advice import advice

ROOT = Path(__file__).parents[1]
FLASH_4 = Probe(True, kernel="flash_attn.cute.flash_attn_func", version="4.0.0")
FLASH_2 = Probe(True, kernel="flash_attn.flash_attn_func", version="2.8.3")


def test_the_doctor_ends_with_it() -> None:
    last = CliRunner().invoke(fv, ["doctor"]).output.strip().splitlines()[-1]
    assert last.startswith("advice: on ")
    assert "fastest exactly" in last


@pytest.mark.parametrize(
    ("probes", "said"),
    [
        ({}, "FLASH_ATTN (pip install --pre fv-flash flash-attn-4: 1.11 times"),
        ({"FLASH_ATTN": FLASH_4}, "FLASH_ATTN (is here: 1.11 times"),
        ({"FLASH_ATTN": FLASH_2}, "FLASH_ATTN (pip install --pre fv-flash flash-attn-4: 1.11 times"),
        ({"FLASH_ATTN": Probe(False, kernel="flash_attn.cute.flash_attn_func")}, "FLASH_ATTN (pip install"),
        ({"SLIDING_TILE_ATTN": FLASH_4}, "SLIDING_TILE_ATTN (is here: 6.48 times"),
        ({"SLIDING_TILE_ATTN": Probe(True, kernel="torch.nn.attention.flex")}, "SLIDING_TILE_ATTN (pip install --pre"),
    ],
)
def test_what_is_here_needs_no_installing(probes: dict[str, Probe], said: str) -> None:
    assert said in advice("NVIDIA H100", 9, probes)


@pytest.mark.parametrize(
    ("generation", "exact", "fastest"),
    [
        (8, "FLASH_ATTN (pip install fv-flash flash-attn --no-build-isolation: not measured by us", "SAGE_ATTN (pip"),
        (9, "FLASH_ATTN", "SLIDING_TILE_ATTN"),
        (12, "FLASH_ATTN (pip install --pre fv-flash flash-attn-4: not measured by us", "SAGE_ATTN (pip"),
        (None, "TORCH_SDPA (torch's own attention", "SLIDING_TILE_ATTN (pip install fv-sta: 2.57"),
    ],
)
def test_each_machine_has_its_own(generation: int | None, exact: str, fastest: str) -> None:
    line = advice("it", generation, {})
    assert line.startswith(f"on it: fastest exactly {exact}")
    assert f"fastest at all, and not exact, {fastest}" in line


def test_a_gpu_that_no_kernel_is_made_for() -> None:
    assert advice("Tesla T4", 7, {}) == (
        "on Tesla T4: no kernel of these packages is made for compute capability 7.x; TORCH_SDPA runs"
    )


def test_its_ratios_stand_in_the_documents() -> None:
    """1.115 and 6.484 in docs/backends.md; 52.6 and 20.5 ms in benchmarks/README.md."""
    backends = (ROOT / "docs" / "backends.md").read_text("utf-8")
    assert re.search(r"\| FLASH_ATTN, all steps \| 46\.269 \(.*\) \| 1\.115 \(", backends)
    assert re.search(r"\| STA \| 4\.239 \(.*\) \| 6\.484 \(", backends)
    benchmarks = " ".join((ROOT / "benchmarks" / "README.md").read_text("utf-8").split())
    assert "full attention 52.6 ms; `flex` with windows (1,3,1), density 0.125, 20.5 ms" in benchmarks
    assert f"{52.6 / 20.5:.2f} times" in advice("a CPU", None, {})
