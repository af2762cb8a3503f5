"""A policy's schedule for a model before anything is generated, from the few weights that it depends on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from typing import Any, BinaryIO

import torch

from fastvideo_core.app.model_info import ModelInfo, open_model_file, read_model
from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.contract.caching import Action, Branch, CachePolicy
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.engine.caching.choice import prepare_policy
from fastvideo_core.engine.caching.run_caching import experts_timesteps
from fastvideo_core.engine.caching.signals import time_changes
from fastvideo_core.errors import ModelNotFoundError, PolicyMismatchError

_WEIGHTS = "diffusion_pytorch_model.safetensors"


def preview_plan(
    model_path: str, policy: CachePolicy, num_steps: int | None = None
) -> list[tuple[Branch, list[Action]]]:
    """What a policy would do with a model, for each expert; the branches of guidance are all alike.

    Of the checkpoint only the weights that embed the timestep are read, and none if the policy needs no signal.

    Args:
        model_path: a preset's name, a local folder or a hub id.
        num_steps: default: those of the model's preset.

    Raises:
        ModelError: the model cannot be read.
        CacheError: the policy does not serve the model, or decides only while it runs.
    """
    info = read_model(load_plugins(), model_path)
    model = info.cached_model
    prepared = prepare_policy(policy, model)
    params = SamplingParam.from_preset(info.preset)
    if num_steps is not None:
        params.num_inference_steps = num_steps
    params.check_steps()
    timesteps = _timesteps(info, params.num_inference_steps)
    plans = []
    for expert, steps in enumerate(timesteps):
        changes = None
        modules = info.family.time_signals.get(prepared.signal)
        if steps and modules:
            transformer = _with_weights_of(info, "transformer" if expert == 0 else f"transformer_{expert + 1}", modules)
            changes = time_changes(transformer, modules, torch.tensor(steps, dtype=torch.float32))
        branch = Branch(model, "", expert, len(steps), steps, changes)
        plan = prepared.plan(branch)
        if plan is None:
            raise PolicyMismatchError(
                f"{prepared.name} decides for {info.name} by {prepared.signal.value}, which is known only while "
                "it runs, so there is no plan to show"
            )
        plans.append((branch, list(plan)))
    return plans


def _timesteps(info: ModelInfo, num_steps: int) -> list[tuple[float, ...]]:
    """The timesteps of each expert, from the scheduler's configuration."""
    import diffusers

    config = _json(info, "scheduler/scheduler_config.json")
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    scheduler.set_timesteps(num_steps)
    index = _json(info, "model_index.json")
    experts = 2 if (index.get("transformer_2") or [None])[0] else 1
    return experts_timesteps(
        tuple(map(float, scheduler.timesteps.tolist())),
        experts,
        index.get("boundary_ratio"),
        int(scheduler.config.num_train_timesteps),
    )


def _with_weights_of(info: ModelInfo, component: str, modules: Sequence[str]) -> Any:
    """A transformer without weights, but for those of some of its submodules."""
    import diffusers
    from accelerate import init_empty_weights

    kind = getattr(diffusers, info.family.transformer)
    with init_empty_weights():
        transformer = kind.from_config(_json(info, f"{component}/config.json"))
    wanted = {name for name in transformer.state_dict() if name.startswith(tuple(f"{one}." for one in modules))}
    found: dict[str, torch.Tensor] = {}
    for file, names in _files_of(info, component, wanted).items():
        with closing(open_model_file(info.location, f"{component}/{file}")) as opened:
            found |= read_tensors(opened, names)
    transformer.load_state_dict(found, strict=False, assign=True)
    return transformer


def _files_of(info: ModelInfo, component: str, wanted: set[str]) -> dict[str, set[str]]:
    """Which file of the component has which of the tensors."""
    try:
        index = _json(info, f"{component}/{_WEIGHTS}.index.json")["weight_map"]
    except ModelNotFoundError:
        return {_WEIGHTS: wanted}
    files: dict[str, set[str]] = {}
    for name in wanted:
        files.setdefault(index[name], set()).add(name)
    return files


def _json(info: ModelInfo, file: str) -> dict[str, Any]:
    with closing(open_model_file(info.location, file)) as opened:
        content: dict[str, Any] = json.load(opened)
        return content


_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_tensors(file: BinaryIO, names: Sequence[str] | set[str]) -> dict[str, torch.Tensor]:
    """Some tensors of a safetensors file; nothing else of it is read but its header.

    Raises:
        ModelNotFoundError: it has no such tensor, or is no safetensors file.
    """
    try:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        tensors = {}
        for name in sorted(names):
            entry = header[name]
            begin, end = entry["data_offsets"]
            file.seek(8 + length + begin)
            data = bytearray(file.read(end - begin))
            tensors[name] = torch.frombuffer(data, dtype=_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        return tensors
    except (KeyError, ValueError, OverflowError, MemoryError) as error:
        raise ModelNotFoundError(f"the weights of the transformer lack or garble {error}") from error
