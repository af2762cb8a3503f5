"""Ways to keep or change a transformer's weights: offloaded, in FP8, quantized, with adapters.

Each changes a transformer in place. Those that round weights come with what makes of them plain numbers again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CPU = torch.device("cpu")


def offload_layers(transformer: Any, folder: Path) -> None:
    """What `enable_sequential_cpu_offload` does: the weights are nowhere but while their module runs."""
    from accelerate import cpu_offload

    cpu_offload(transformer, CPU, offload_buffers=True)


def offload_groups(kind: str) -> Callable[[Any, Path], None]:
    """Group offloading to files, so that weights that were not brought in are not the weights on a CPU either."""

    def offload(transformer: Any, folder: Path) -> None:
        options = {"num_blocks_per_group": 1} if kind == "block_level" else {}
        transformer.enable_group_offload(CPU, offload_type=kind, offload_to_disk_path=str(folder / "groups"), **options)

    return offload


def cast_layers(transformer: Any, folder: Path) -> None:
    transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


def quantize_torchao(transformer: Any, folder: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(transformer, Int8WeightOnlyConfig())


def quantize_bitsandbytes_int8(transformer: Any, folder: Path) -> None:
    from bitsandbytes import nn

    def int8(layer: torch.nn.Linear) -> Any:
        new: Any = nn.Linear8bitLt(
            layer.in_features, layer.out_features, layer.bias is not None, has_fp16_weights=False
        )
        new.weight = nn.Int8Params(layer.weight.data.clone(), requires_grad=False, has_fp16_weights=False)
        return new

    _replace_linear(transformer, int8)


def quantize_nf4(transformer: Any, folder: Path) -> None:
    from bitsandbytes import nn

    def nf4(layer: torch.nn.Linear) -> Any:
        new: Any = nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            compute_dtype=torch.float32,
            quant_type="nf4",
        )
        new.weight = nn.Params4bit(layer.weight.data.clone(), requires_grad=False, quant_type="nf4")
        return new

    _replace_linear(transformer, nf4)


def quantize_gguf(transformer: Any, folder: Path) -> None:
    """Q4_0 in GGUF's own layout, in the layers that diffusers puts in when it reads such a file."""
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
    from gguf import GGMLQuantizationType, quants

    kind = GGMLQuantizationType.Q4_0

    def q4(layer: torch.nn.Linear) -> Any:
        new: Any = GGUFLinear(
            layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=torch.float32
        )
        packed = torch.from_numpy(quants.quantize(layer.weight.data.numpy(), kind))
        new.weight = GGUFParameter(packed, quant_type=kind)
        return new

    _replace_linear(transformer, q4)


def _replace_linear(transformer: Any, make: Callable[[torch.nn.Linear], Any]) -> None:
    """As diffusers does; the layers that it keeps in float32 stay."""
    kept = tuple(transformer._keep_in_fp32_modules or ())
    for name, layer in list(transformer.named_modules()):
        if type(layer) is torch.nn.Linear and layer.in_features % 32 == 0 and not any(one in name for one in kept):
            new = make(layer)
            new.bias = layer.bias
            parent, _, own = name.rpartition(".")
            setattr(transformer.get_submodule(parent), own, new.to("cpu"))


def plain_weights(transformer: Any) -> dict[str, torch.Tensor]:
    """The numbers that a transformer computes with, in float32, by what each package itself makes of its weights."""
    numbers = {}
    for name, module in transformer.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            numbers[f"{name}.{own}".lstrip(".")] = _numbers_of(module, parameter)
    return numbers


def _numbers_of(module: Any, parameter: Any) -> torch.Tensor:
    result: torch.Tensor
    kind = type(parameter).__name__
    if kind == "Int8Params":
        result = parameter.CB.float() * parameter.SCB.float()[:, None] / 127
    elif kind == "Params4bit":
        from bitsandbytes.functional import dequantize_4bit

        result = dequantize_4bit(parameter.data, parameter.quant_state)
    elif kind == "GGUFParameter":
        from gguf import quants

        result = torch.from_numpy(quants.dequantize(parameter.data.numpy(), parameter.quant_type))
    elif hasattr(parameter, "dequantize") and "torchao" in type(parameter).__module__:
        result = parameter.dequantize()
    else:
        result = parameter.data
    return result.float().clone()


def add_adapter(transformer: Any, folder: Path) -> None:
    """A LoRA that changes attention and what embeds the timestep."""
    from peft import LoraConfig

    targets = r".*\.(to_q|to_v|linear_1|linear_2)|condition_embedder\.time_proj|time_embed\.linear"
    torch.manual_seed(5)
    transformer.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights=False))


def fuse_adapter(transformer: Any, folder: Path) -> None:
    add_adapter(transformer, folder)
    transformer.fuse_lora()


def remove_adapter(transformer: Any, folder: Path) -> None:
    add_adapter(transformer, folder)
    transformer.unload_lora()


def compile_blocks(transformer: Any, folder: Path) -> None:
    for block in getattr(transformer, "blocks", None) or transformer.transformer_blocks:
        block.compile(fullgraph=True, backend="eager")
