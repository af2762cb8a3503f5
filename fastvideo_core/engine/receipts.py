"""The receipt of a run, from what was counted while it ran."""

from __future__ import annotations

from fastvideo_core.contract.receipt import Receipt
from fastvideo_core.discovery.plugins import CORE_DISTRIBUTION
from fastvideo_core.engine import diffusers_bridge
from fastvideo_core.engine.attached_model import AttachedModel
from fastvideo_core.engine.machine import peak_memory_bytes, versions_of
from fastvideo_core.engine.quantized import quantized
from fastvideo_core.engine.run import ActiveRun


def receipt_of(run: ActiveRun, model: AttachedModel, requested: str | None, ended: float) -> Receipt:
    """What ran.

    Args:
        requested: the backend that was asked for.
        ended: when the run ended, by `time.perf_counter`.
    """
    routes = run.routes
    skipped = run.caching.gate.skipped() if run.caching else {}
    distributions = {CORE_DISTRIBUTION} | {route.resolution.plugin.distribution for route in routes.values()}
    return Receipt(
        requested_backend=requested,
        attention={role.value: route.receipt() for role, route in routes.items()},
        num_inference_steps=run.num_steps,
        steps_computed={branch: passes - skipped.get(branch, 0) for branch, passes in run.passes.items()},
        steps_skipped=skipped,
        interrupted=run.steps_done < run.num_steps,
        cache=run.caching.receipt() if run.caching else None,
        token_grid=run.layout.grid if run.layout else None,
        device=str(model.device),
        dtype=model.dtypes[0],
        pipeline=type(model.pipe).__name__,
        compiled=any(map(diffusers_bridge.is_compiled, model.transformers)),
        quantization=quantized(model.pipe),
        seconds={"denoise": ended - run.started},
        peak_memory_bytes=peak_memory_bytes(str(model.device)),
        versions=versions_of(distributions),
    )
