"""Load a pipeline and put it where it runs; check what was asked for before that."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from fastvideo_core.app.component_files import check_files, explain_failure
from fastvideo_core.app.components import load_components
from fastvideo_core.app.loading_bar import without_their_bars
from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.app.quantization import Quantization
from fastvideo_core.discovery.home import expanded
from fastvideo_core.discovery.importing import uncollected
from fastvideo_core.engine.diffusers_bridge import blocks_can_be_compiled
from fastvideo_core.engine.families import transformers_of
from fastvideo_core.errors import FastVideoError, InputError, ModelNotFoundError
from fastvideo_core.kernels import cpp_compiler


def check_device(device: str | torch.device | None) -> str:
    if device is not None and not isinstance(device, str | torch.device):
        raise InputError(f"device {device!r} is none; give a name such as 'cuda', or a torch.device")
    chosen = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        kind = torch.device(chosen).type
    except RuntimeError as error:
        raise InputError(f"device {chosen!r} is none that torch knows: {str(error).splitlines()[0]}") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {chosen!r} was asked for, but torch {torch.__version__} sees no CUDA device here")
    if kind == "cuda" and (torch.device(chosen).index or 0) >= (count := torch.cuda.device_count()):
        raise InputError(f"device {chosen!r} was asked for, but torch sees cuda:0 to cuda:{count - 1} alone")
    if kind not in ("cpu", "cuda") and not _is_there(kind):
        raise InputError(f"device {chosen!r} was asked for, which torch {torch.__version__} cannot compute on here")
    return chosen


def _is_there(kind: str) -> bool:
    module = getattr(torch.backends, kind, None) or getattr(torch, kind, None)
    return kind != "meta" and bool(getattr(module, "is_available", lambda: False)())


def check_dtype(dtype: torch.dtype | str | None, device: str) -> torch.dtype:
    if dtype is None:
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if chosen not in (torch.float32, torch.bfloat16, torch.float16):
        raise InputError(f"dtype {dtype!r} is none of float32, bfloat16, float16")
    return chosen


def check_offload(offload: list[str], pin_cpu_memory: bool, device: str) -> list[str]:
    """What is to be offloaded: nothing, with a notice, where the device is the CPU."""
    if not device.startswith("cuda"):
        if offload or pin_cpu_memory:
            parts = f"offloading {' and '.join(offload)}" if offload else "pin_cpu_memory"
            warnings.warn(f"{parts} does nothing: the device is {device!r}, whose memory it is", stacklevel=3)
        return []
    if pin_cpu_memory and not offload:
        raise InputError("pin_cpu_memory does nothing without dit_, vae_ or text_encoder_cpu_offload=True")
    return offload


def check_compile(info: ModelInfo, device: str, dit_cpu_offload: bool, layerwise: bool = False) -> None:
    """Raise InputError where the blocks cannot be compiled."""
    if not device.startswith("cuda") and cpp_compiler() is None:
        raise InputError(
            f"compile was asked for on {device!r}, for which torch needs a C++ compiler, and there is none: "
            "install g++, or name one in CXX"
        )
    if not blocks_can_be_compiled(info.family.transformer):
        raise InputError(
            f"compile was asked for, but diffusers does not say which blocks a {info.family.transformer} repeats, so "
            f"{info.name} runs eager only"
        )
    if dit_cpu_offload:
        raise InputError("compile and dit_cpu_offload exclude each other: offloading hooks are not traceable")
    if layerwise:
        raise InputError(
            "compile and quantization 'fp8-layerwise' exclude each other: the hooks that cast weights are not "
            "traceable; torchao-fp8 can be compiled"
        )


def load_pipeline(info: ModelInfo, dtype: torch.dtype, quantization: Quantization | None = None) -> Any:
    """Load a pipeline in that dtype, its autoencoder in float32; weights that are to be rounded are.

    Raises:
        ModelNotFoundError: a file is not there, or cannot be read; with its name.
        ModelError: tensors are missing or have another shape.
    """
    with uncollected():
        import diffusers

        # Its own class, since DiffusionPipeline itself loads optional components a second time.
        kind = getattr(diffusers, info.pipeline, diffusers.DiffusionPipeline)
    folder = _local_folder(info)
    try:
        index = kind.load_config(folder)
        check_files(folder, index)
        models = load_components(folder, index, {"default": dtype, "vae": torch.float32}, quantization)
        with without_their_bars():
            pipe = kind.from_pretrained(folder, use_safetensors=True, **models)
    except (FastVideoError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # libraries garble in their own ways what they did not expect in a file
        raise ModelNotFoundError(
            f"the model {info.name} cannot be loaded: {explain_failure(folder, error)}; get the model again"
        ) from error
    if quantization:
        quantization.cast(pipe, dtype)
    pipe.register_to_config(_name_or_path=info.location)  # by which caching policies know the model
    return pipe


def _local_folder(info: ModelInfo) -> Path:
    """Where the model lies; one of the hub is fetched first, whole, so that all parts are of one version."""
    from diffusers import DiffusionPipeline

    folder = expanded(info.location)
    if folder.is_dir():
        return folder
    try:
        return Path(DiffusionPipeline.download(info.location, use_safetensors=True))
    except Exception as error:  # the hub's client raises errors of its own, of the HTTP library and OSError
        raise ModelNotFoundError(f"the model {info.name} cannot be fetched from the hub: {error}") from error


def compile_blocks(pipe: Any, info: ModelInfo) -> None:
    for _, transformer in transformers_of(pipe, info.family):
        transformer.compile_repeated_blocks(fullgraph=True)


def shard_blocks(pipe: Any, info: ModelInfo, device: str) -> None:
    """Have each process hold a part of each block's weights, which are gathered as the block runs."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    for _, transformer in transformers_of(pipe, info.family):
        transformer.requires_grad_(requires_grad=False)  # weights of several dtypes are fine where none is trained
        for name in info.family.stack.lists:
            for block in transformer.get_submodule(name):
                fully_shard(block, mesh=mesh, reshard_after_forward=True)


def place_pipeline(pipe: Any, device: str, offload: list[str], pin_cpu_memory: bool) -> None:
    """Move what stays on the device there, and set up offloading for the rest."""
    from diffusers.hooks import apply_group_offloading

    for name, component in pipe.components.items():
        if not isinstance(component, torch.nn.Module):
            continue
        if not name.startswith(tuple(offload)):
            _move(component, device)
            continue
        apply_group_offloading(
            component,
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=pin_cpu_memory,
        )


def _move(component: Any, device: str) -> None:
    """To the device; what bitsandbytes has packed lies there already, and may not be moved."""
    if getattr(component, "quantization_method", None) is None or component.device != torch.device(device):
        component.to(device)


def has_hooks(pipe: Any) -> bool:
    """Whether diffusers' hooks are on it, as of offloading: module and hook refer to one another in circles."""
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    return any("_diffusers_hook" in vars(module) for part in parts for module in part.modules())
