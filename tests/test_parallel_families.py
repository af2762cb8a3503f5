"""More families by sequence: hints, adapters, a second stream, several modulations, each equal to one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.together import together
from tests.support.together_more import difference, more_cases
from tests.test_parallel import ROUNDING, receipts_differ

ROUNDS = ("LTX-2", "in halves")
"""Where matrix products of other shapes round otherwise: LTX-2's differ by nothing in float64, or with more tokens."""


@pytest.mark.slow
def test_they_make_the_video_that_one_makes(tmp_path: Path) -> None:
    problems = {}
    with together(2, tmp_path) as processes:
        for name, case in more_cases(2).items():
            results = processes.run(difference, 2, name)
            if errors := [result for result in results if isinstance(result, BaseException)]:
                problems[name] = f"{errors[0]!r} {getattr(errors[0], '__notes__', '')}"
                continue
            worst, number, alone, found = results[0]
            if worst > (ROUNDING if any(one in name for one in ROUNDS) else 0.0):
                problems[name] = f"the latents differ by {worst} of the largest"
            elif any(one[1] != number for one in results):
                problems[name] = "the processes have different latents"
            elif problem := receipts_differ(alone, [one[3] for one in results]):
                problems[name] = problem
            assert found.parallel.sequence == case.parallel["sequence"]
    assert problems == {}
