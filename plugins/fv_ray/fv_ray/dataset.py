"""A dataset of rows to one of results: what Ray must be told beside the class."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fv_ray.cluster import passed_on
from fv_ray.placement import BESIDE, bundles_for
from fv_ray.predictor import VideoPredictor

if TYPE_CHECKING:
    from ray.data import Dataset

RETRIES = 1
"""How often a row is done again whose actor died."""


def map_videos(
    rows: Dataset,
    model: str,
    output: str,
    *,
    concurrency: int = 1,
    num_gpus: float = 1,
    num_processes: int = 1,
    num_cpus: float = 0,
    placements: list[Any] | None = None,
    **options: Any,
) -> Dataset:
    """The results of rows, made by actors of a Ray cluster, as `VideoPredictor` describes both.

    It is `map_batches` with one row a batch; actors that are replaced when they die, with their row done again; no CPU
    slot taken by actors that have a GPU, so that the tasks that read rows can run; and FASTVIDEO_ variables as here.
    A file of rows is read with as many blocks as rows to be spread over the actors: `override_num_blocks`.

    Args:
        concurrency: how many actors there are, each with the model.
        num_gpus: for each video; above 1, as many processes make it together, in a placement group on one machine.
        num_processes: likewise without GPUs, with num_gpus=0; to try it.
        num_cpus: CPU slots of each process.
        placements: takes the placement groups, which stay until Ray or the caller removes them.
        options: more of `VideoPredictor`'s arguments.
    """
    from ray.data import ActorPoolStrategy

    together = max(int(num_gpus), num_processes)
    remote: dict[str, Any] = {"max_restarts": -1, "max_task_retries": RETRIES, "num_cpus": num_cpus, **passed_on()}
    if num_gpus:
        remote["num_gpus"] = num_gpus
    if together > 1:
        counted = {"num_gpus": together} if num_gpus else {"num_processes": num_processes, "device": "cpu"}
        options = {**counted, **options, "distributed_executor_backend": "ray"}
        remote.update(num_cpus=0, num_gpus=BESIDE if num_gpus else 0)
        bundles = bundles_for(together, bool(num_gpus), num_cpus)
        remote["ray_remote_args_fn"] = _placed(bundles, [] if placements is None else placements)
    with warnings.catch_warnings():
        # Ray up to 2.63 has no other way to limit retries, or to place an actor; fv-ray asks for no later one.
        warnings.filterwarnings("ignore", "`ray_remote_args(_fn)?` is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "`ray_remote_args(_fn)?` is deprecated", FutureWarning)
        return rows.map_batches(
            VideoPredictor,
            fn_constructor_kwargs={"model": model, "output": output, **options},
            batch_size=1,
            compute=ActorPoolStrategy(size=concurrency),
            **remote,
        )


def _placed(bundles: list[dict[str, float]], made: list[Any]) -> Callable[[], dict[str, Any]]:
    """What gives each actor a placement group of its own, which the processes that it starts find."""

    def strategy() -> dict[str, Any]:
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        group = placement_group(bundles, strategy="STRICT_PACK", name=f"fastvideo-{len(made)}")
        made.append(group)
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, 0, True)}

    return strategy
