"""Which weights of a pipeline are kept in fewer bits, read off the weights themselves: whoever quantized them."""

from __future__ import annotations

from typing import Any

import torch

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def quantized(pipe: Any) -> dict[str, str]:
    """By component, what its weights are rounded to; those that are plain numbers are left out."""
    found = {}
    for name, component in getattr(pipe, "components", {}).items():
        if isinstance(component, torch.nn.Module):
            kinds = sorted({kind for one in component.parameters() if (kind := _kind(one))})
            if kinds:
                found[name] = ", ".join(kinds)
    return found


def _kind(parameter: torch.nn.Parameter) -> str:
    kind, data = type(parameter), type(parameter.data)
    if kind.__name__ == "Params4bit":
        return f"bitsandbytes {getattr(parameter, 'quant_type', '4 bit')}"
    if kind.__name__ == "Int8Params":
        return "bitsandbytes int8"
    if kind.__name__ == "GGUFParameter":
        return f"GGUF {getattr(getattr(parameter, 'quant_type', None), 'name', '')}".strip()
    for one in (kind, data):
        if one.__module__.startswith("torchao."):
            return f"torchao {one.__name__}"
    return "FP8, cast layer by layer" if parameter.dtype in _FP8 else ""
