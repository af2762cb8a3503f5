"""Which kernels served the calls of a role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fastvideo_core.contract.attention import KernelUsed
from fastvideo_core.contract.receipt import KernelReceipt


def kernels_served(calls: Mapping[KernelUsed | None, int], probed: KernelUsed) -> list[KernelReceipt]:
    """The kernels that served, most calls first; the one that the probe named, if there were no calls.

    Args:
        calls: how many each served; None for calls of which the backend named none.
    """
    tallies: Counter[KernelUsed] = Counter()
    for used, number in calls.items():
        tallies[used or probed] += number
    tallies = tallies or Counter({probed: 0})
    return [KernelReceipt(used.kernel, used.version, number) for used, number in tallies.most_common()]
