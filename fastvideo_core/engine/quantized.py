"""Which weights of a pipeline are kept in fewer bits, read off the weights themselves: whoever quantized them."""

from __future__ import annotations

from typing import Any

import torch

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_READ_OFF = ("torchao", "bitsandbytes", "gguf")
"""Methods whose weights are known by their classes."""


def quantized(pipe: Any) -> dict[str, str]:
    """By component, what its weights are rounded to; those that are plain numbers are left out."""
    components = getattr(pipe, "components", {}).items()
    modules = {name: component for name, component in components if isinstance(component, torch.nn.Module)}
    return {name: rounding for name, component in modules.items() if (rounding := rounding_of(component))}


def rounding_of(component: torch.nn.Module) -> str:
    """What a component's weights are rounded to; empty if they are plain numbers.

    Of a method whose weights we do not know, that is the name under which diffusers or transformers applied it.
    """
    kinds = sorted({kind for one in component.parameters() if (kind := _kind(one))})
    if kinds:
        return ", ".join(kinds)
    method = getattr(component, "quantization_method", "")
    name = str(getattr(method, "value", method))
    return "" if name.startswith(_READ_OFF) else name


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
