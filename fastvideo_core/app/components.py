"""The parts of a pipeline that have weights, each loaded by its own class, which says what the checkpoint lacked.

diffusers and transformers fill what is missing with random numbers and only warn of it; a pipeline does not even tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from fastvideo_core.app.component_files import variant_of
from fastvideo_core.app.loading_bar import loading_bar
from fastvideo_core.app.quantization import Quantization, clear_empty_rows
from fastvideo_core.discovery.importing import uncollected
from fastvideo_core.discovery.printable import explain
from fastvideo_core.engine.quantized import rounding_of
from fastvideo_core.errors import InputError, ModelError

_LIBRARIES = ("diffusers", "transformers")
_MOST_NAMED = 5


def load_components(
    folder: Path,
    index: Mapping[str, Any],
    dtypes: Mapping[str, torch.dtype],
    quantization: Quantization | None = None,
) -> dict[str, Any]:
    """Load the models of a pipeline.

    Args:
        folder: the pipeline's, in diffusers format.
        index: the content of its model_index.json.
        dtypes: per component; "default" for the others.
        quantization: what their weights are rounded to, if any.

    Returns:
        The models by name; tokenizers, schedulers and the like are not among them.

    Raises:
        InputError: weights are to be rounded, of a component that has none that could be.
        ModelError: a component's weights are garbled, lack tensors, or have some of another shape.
        OSError, ValueError: a file is not there, or cannot be read.
    """
    kinds = {name: kind for name, entry in index.items() if (folder / name).is_dir() and (kind := _model_class(entry))}
    loaded = {}
    with loading_bar(len(kinds)) as begin:
        for name, kind in kinds.items():
            begin(name)
            loaded[name] = _load(name, kind, folder, dtypes.get(name, dtypes["default"]), quantization)
    return loaded


def _model_class(entry: Any) -> Any:
    """The class that an entry of the index names, if it is a model's and of a library that is known to be safe."""
    if not isinstance(entry, list | tuple) or len(entry) != 2 or entry[0] not in _LIBRARIES:
        return None
    with uncollected():
        from diffusers import ModelMixin
        from transformers import PreTrainedModel

        kind = getattr(import_module(entry[0]), str(entry[1]), None)
    return kind if isinstance(kind, type) and issubclass(kind, ModelMixin | PreTrainedModel) else None


def _load(name: str, kind: Any, folder: Path, dtype: torch.dtype, quantization: Quantization | None) -> Any:
    from diffusers import ModelMixin

    of_diffusers = issubclass(kind, ModelMixin)
    rounded = quantization.config_for(name, of_diffusers, dtype) if quantization else None

    try:
        model, report = kind.from_pretrained(
            folder / name,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported, all of them
            variant=variant_of(folder / name, str(dtype).removeprefix("torch.")),
            **{"torch_dtype" if of_diffusers else "dtype": dtype},
            **({"quantization_config": rounded} if rounded is not None else {}),
        )
    except SafetensorError as error:
        raise ModelError(
            f"the weights of {name} in {str(folder / name)!r} ({_weights(folder / name)}) cannot be read: {error}; "
            "get the model again"
        ) from error
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError) as error:
        config = str(folder / name / "config.json")
        raise ModelError(
            f"no {kind.__name__} can be made as {config!r} says ({explain(error)}); get the model again, or correct it"
        ) from error
    if rounded is not None:
        clear_empty_rows(model)
        if quantization and quantization.is_for(name) and not rounding_of(model):
            raise InputError(
                f"quantization is for {name}, but {type(rounded).__name__} rounds no weight of {kind.__name__}; leave "
                f"{name} out"
            )
    missing = _really_missing(model, report["missing_keys"])
    shapes = [
        f"{tensor} is {_shape(found)} instead of {_shape(own)}" for tensor, found, own in report["mismatched_keys"]
    ]
    problems = [
        *([f"lack {_some(missing, 'tensor')}"] if missing else []),
        *([f"have {_some(sorted(shapes), 'tensor')} of another shape"] if shapes else []),
    ]
    if problems:
        raise ModelError(
            f"the weights of {name} in {str(folder)!r} {' and '.join(problems)}, as {kind.__name__} needs them; get "
            f"the model again, or correct its {name}/config.json"
        )
    return model


def _weights(part: Path) -> str:
    return ", ".join(sorted(file.name for file in part.glob("*.safetensors")))


def _really_missing(model: torch.nn.Module, names: Sequence[str]) -> list[str]:
    """Those that are not tied to a tensor that was there."""
    state = model.state_dict()
    there = {_place(tensor) for name, tensor in state.items() if name not in names}
    return sorted(name for name in names if name in state and (_place(state[name]) or -1) not in there)


def _place(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_meta else tensor.data_ptr()


def _shape(size: Sequence[int]) -> str:
    return "x".join(map(str, size)) or "a single number"


def _some(names: Sequence[str], what: str) -> str:
    more = ", …" if len(names) > _MOST_NAMED else ""
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''} ({', '.join(names[:_MOST_NAMED])}{more})"
