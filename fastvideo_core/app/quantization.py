"""Weights in fewer bits, as diffusers has it: short names for what is ready, or its PipelineQuantizationConfig.

None is exact: weights are rounded, and the frames are others. Receipts name what each part runs with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.contract.reading import shown
from fastvideo_core.discovery.printable import explain
from fastvideo_core.engine.machine import versions_of
from fastvideo_core.errors import InputError

FP8_LAYERWISE = "fp8-layerwise"
_COMPONENTS = ("transformer", "text_encoder")
"""Beginnings of the names of components that short names quantize."""


@dataclass(frozen=True)
class _Ready:
    """What a short name stands for.

    Attributes:
        package: what it needs installed.
        make: from the library of a component, "diffusers" or "transformers", and the dtype to compute in.
    """

    package: str
    make: Callable[[Any, torch.dtype], Any]
    only_cuda: bool = False


def _torchao(name: str) -> Callable[[Any, torch.dtype], Any]:
    def make(library: Any, dtype: torch.dtype) -> Any:
        import torchao.quantization

        # torchao would set options of inductor for the whole process, with which it tunes for minutes.
        return library.TorchAoConfig(getattr(torchao.quantization, name)(set_inductor_config=False))

    return make


def _bitsandbytes(**options: Any) -> Callable[[Any, torch.dtype], Any]:
    def make(library: Any, dtype: torch.dtype) -> Any:
        more = {"bnb_4bit_compute_dtype": dtype} if "load_in_4bit" in options else {}
        return library.BitsAndBytesConfig(**options, **more)

    return make


_READY = {
    "torchao-fp8": _Ready("torchao", _torchao("Float8WeightOnlyConfig")),
    "torchao-int8": _Ready("torchao", _torchao("Int8WeightOnlyConfig")),
    "bnb-nf4": _Ready("bitsandbytes", _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"), only_cuda=True),
    "bnb-int8": _Ready("bitsandbytes", _bitsandbytes(load_in_8bit=True), only_cuda=True),
}

NAMES = (FP8_LAYERWISE, *_READY)


@dataclass(frozen=True)
class Quantization:
    """What weights are to be rounded to, checked against a model.

    Attributes:
        asked: the short name, or diffusers' PipelineQuantizationConfig.
    """

    asked: Any

    @property
    def layerwise(self) -> bool:
        return isinstance(self.asked, str) and self.asked == FP8_LAYERWISE

    def is_for(self, component: str) -> bool:
        """Whether diffusers' configuration names that component."""
        return not isinstance(self.asked, str) and component in _named(self.asked)

    def config_for(self, component: str, of_diffusers: bool, dtype: torch.dtype) -> Any:
        """The configuration that a component's `from_pretrained` takes; None for those that stay as they are."""
        import diffusers
        import transformers

        if not isinstance(self.asked, str):
            return self.asked._resolve_quant_config(is_diffusers=of_diffusers, module_name=component)
        if self.layerwise or not component.startswith(_COMPONENTS):
            return None
        return _READY[self.asked].make(diffusers if of_diffusers else transformers, dtype)

    def cast(self, pipe: Any, dtype: torch.dtype) -> None:
        """Keep the weights of the transformers in FP8 between the layers' own runs, if that was asked for."""
        if self.layerwise:
            for name, component in pipe.components.items():
                if name.startswith("transformer") and component is not None:
                    component.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)


def clear_empty_rows(component: torch.nn.Module) -> None:
    """Make rows of weights that were all 0 before they were rounded to FP8 by torchao 0 again.

    Their scale is 0, by which torchao 0.18 divides them: they are NaN, and so is whatever they multiply.
    """
    for parameter in component.parameters():
        rounded: Any = parameter.data
        if type(rounded).__name__ == "Float8Tensor" and bool((empty := rounded.scale == 0).any()):
            for axis, size in enumerate(rounded.qdata.shape):
                empty = empty.repeat_interleave(size // empty.shape[axis], axis)
            rounded.qdata.view(torch.uint8).masked_fill_(empty, 0)


def check_quantization(asked: Any, info: ModelInfo, device: str, offload: list[str]) -> Quantization | None:
    """What was asked for, before anything is loaded.

    Args:
        offload: beginnings of the names of components whose weights are offloaded.

    Raises:
        InputError: the name is unknown, a package is missing, it cannot run here, or names no part of the model.
    """
    if asked is None:
        return None
    if isinstance(asked, str):
        asked = _normalised(asked)
        _check_name(asked, device, offload)
    else:
        _check_config(asked, info, device, offload)
    return Quantization(asked)


def _normalised(asked: str) -> str:
    """The name as it stands in NAMES, if it does so in another case, or with underscores."""
    name = asked.strip().lower().replace("_", "-")
    return name if name in NAMES else asked


def check_quantization_name(asked: str | None) -> None:
    """Refuse a name that stands for nothing, on whichever machine; raises InputError."""
    if asked is not None:
        _check_known(_normalised(asked))


def _check_known(asked: str) -> None:
    if asked.lower().startswith("gguf"):
        raise InputError(
            f"quantization {asked!r}: GGUF weights come as a file of their own; load the transformer with its "
            "from_single_file(file, quantization_config=GGUFQuantizationConfig(…)), and attach() the pipeline"
        )
    if asked not in NAMES:
        raise InputError(
            f"quantization {asked!r} is none of {', '.join(NAMES)}; or give diffusers' PipelineQuantizationConfig"
        )


def _check_name(asked: str, device: str, offload: list[str]) -> None:
    _check_known(asked)
    if asked == FP8_LAYERWISE:
        return
    ready = _READY[asked]
    if find_spec(ready.package) is None:
        raise InputError(f"quantization {asked!r} needs {ready.package}: pip install {ready.package}")
    _check_package(asked, ready)
    if ready.only_cuda and not device.startswith("cuda"):
        raise InputError(
            f"quantization {asked!r} was asked for on {device!r}: diffusers quantizes with bitsandbytes on CUDA alone; "
            "torchao-int8, torchao-fp8 and fp8-layerwise run on a CPU too"
        )
    if ready.only_cuda and (both := [name for name in offload if name in _COMPONENTS]):
        raise InputError(
            f"quantization {asked!r} and offloading {' and '.join(both)} exclude each other: weights that bitsandbytes "
            "has packed stay on the GPU; torchao-int8, torchao-fp8 and fp8-layerwise can be offloaded"
        )


def _check_package(asked: str, ready: _Ready) -> None:
    """Refuse a version of the package that lacks what the name stands for."""
    import diffusers

    try:
        ready.make(diffusers, torch.float32)
    except (ImportError, AttributeError, TypeError) as error:
        here = versions_of({ready.package})[ready.package]
        raise InputError(
            f"quantization {asked!r} needs another {ready.package} than {here}, which is installed "
            f"({explain(error)}): pip install -U {ready.package}"
        ) from error


def _check_config(asked: Any, info: ModelInfo, device: str, offload: list[str]) -> None:
    from diffusers import PipelineQuantizationConfig

    if not isinstance(asked, PipelineQuantizationConfig):
        raise InputError(
            f"quantization is {shown(asked)}; it must be one of {', '.join(NAMES)}, or diffusers' "
            "PipelineQuantizationConfig"
        )
    named = _named(asked)
    if unknown := [name for name in named if name not in info.components]:
        raise InputError(f"quantization is for {', '.join(unknown)}, but {info.name} has {', '.join(info.components)}")
    for component, config in (asked.quant_mapping or {}).items():
        _check_library(component, info.components[component], config)
        _check_method(getattr(config, "quant_method", ""), [component], device, offload)
    _check_method(asked.quant_backend or "", named or list(info.components), device, offload)


def _named(asked: Any) -> list[str]:
    """The components that diffusers' configuration names; none where it is for all."""
    return list(asked.quant_mapping or asked.components_to_quantize or [])


def _check_method(method: Any, components: list[str], device: str, offload: list[str]) -> None:
    """Refuse what a short name of the same method is refused for, where it is for these components."""
    name = str(getattr(method, "value", method)).lower()
    if "gguf" in name:
        _check_name("gguf", device, offload)
    if "bitsandbytes" in name:
        _check_name("bnb-nf4", device, [part for part in offload if any(one.startswith(part) for one in components)])


def _check_library(component: str, kind: str, config: Any) -> None:
    """Refuse a configuration of diffusers for a model of transformers and the other way around, or for no model."""
    import diffusers
    import transformers

    models = {diffusers: diffusers.ModelMixin, transformers: transformers.PreTrainedModel}
    owners = [
        library.__name__
        for library, model in models.items()
        if isinstance(found := getattr(library, kind, None), type) and issubclass(found, model)
    ]
    if not owners:
        raise InputError(f"quantization is for {component}, but {kind} has no weights that could be rounded")
    owner, given = owners[0], type(config).__module__.partition(".")[0]
    if given in ("diffusers", "transformers") and given != owner:
        raise InputError(
            f"quantization has {given}' {type(config).__name__} for {component}, but {kind} is of {owner}: give "
            f"{owner}' {type(config).__name__}"
        )
