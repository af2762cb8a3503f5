"""What is known of the models that have presets, without fetching one: for `fv models`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.contract.preset import ModelPreset
from fastvideo_core.discovery.home import expanded
from fastvideo_core.discovery.plugins import Plugins
from fastvideo_core.discovery.printable import explain
from fastvideo_core.engine.caching.choice import model_of, prepare_policy
from fastvideo_core.engine.families import family_of
from fastvideo_core.errors import FastVideoError

_SHOWN = ("height", "width", "num_frames", "fps", "num_inference_steps", "guidance_scale", "guidance_scale_2")
_BYTES = {"vae": 4}
"""Of a parameter, as models are loaded on CUDA: two, and four in the autoencoder, which stays in float32."""


@dataclass(frozen=True)
class ListedModel:
    """A preset, and what is known of its model.

    Attributes:
        family: its name; None where no installed plugin knows the transformer, or nothing says which it is.
        task: such as "text to video"; None if nothing says it.
        sampling: the sampling parameters that listings show, with their defaults filled in.
        flow_shift: by size, such as "480x832".
        parameters: by component, where it is known.
        weights_bytes: of all weights, as they are loaded on CUDA; None if not all are known.
        policies: for each installed caching policy whether it serves the model, with its main setting or the reason.
    """

    name: str
    location: str
    distribution: str
    description: str
    family: str | None
    task: str | None
    sampling: dict[str, Any]
    flow_shift: dict[str, float]
    parameters: dict[str, int]
    weights_bytes: int | None
    policies: dict[str, dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def listed_models(plugins: Plugins) -> Iterator[ListedModel]:
    """Every preset of the loaded plugins, as they come."""
    for plugin in plugins.loaded:
        for preset in plugin.presets:
            yield _listed(plugins, preset, plugin.label)


def _listed(plugins: Plugins, preset: ModelPreset, distribution: str) -> ListedModel:
    folder = expanded(preset.location)
    index = _read(folder / "model_index.json")
    family = _family(plugins, preset, index)
    parameters = preset.parameters or _counted(folder, index)
    params = SamplingParam.from_preset(preset)
    return ListedModel(
        preset.name,
        preset.location,
        distribution,
        preset.description,
        family.name if family else None,
        preset.task or None,
        {name: getattr(params, name) for name in _SHOWN},
        {f"{height}x{width}": shift for (height, width), shift in preset.flow_shift.items()},
        dict(parameters),
        weights_bytes(parameters),
        _policies(plugins, preset, family, str(index.get("_class_name", ""))) if family else {},
    )


def weights_bytes(parameters: Mapping[str, int]) -> int | None:
    """How much memory weights take as they are loaded on CUDA; None where a main part is not known."""
    if not {"transformer", "text_encoder", "vae"} <= parameters.keys():
        return None
    return sum(count * _BYTES.get(name, 2) for name, count in parameters.items())


def _family(plugins: Plugins, preset: ModelPreset, index: Mapping[str, Any]) -> ModelFamily | None:
    entry = index.get("transformer")
    named = preset.transformer or (str(entry[-1]) if isinstance(entry, list) and entry else "")
    with suppress(FastVideoError):
        return family_of(plugins, [named], preset.name)
    return None


def _policies(plugins: Plugins, preset: ModelPreset, family: ModelFamily, pipeline: str) -> dict[str, dict[str, Any]]:
    model = model_of(family, preset.location, pipeline)
    found = {}
    for name in plugins.policy_names():
        try:
            prepared = prepare_policy(plugins.policy(name)[0](), model)
            main = prepared.main_setting
            settings = {main: prepared.settings_used().get(main)} if main else {}
            found[name] = {"serves": True, "settings": settings}
        except Exception as error:  # a plugin may raise anything: a listing has the reason
            reason = str(error) if isinstance(error, FastVideoError) else explain(error)
            found[name] = {"serves": False, "reason": reason}
    return found


def _counted(folder: Path, index: Mapping[str, Any]) -> dict[str, int]:
    """The numbers of parameters of a model that lies here, from the headers of its safetensors files."""
    counts = {}
    for name in index:
        files = sorted((folder / name).glob("*.safetensors"))
        if files:
            counts[name] = sum(map(_count, files))
    return counts


def _count(file: Path) -> int:
    """A safetensors file begins with the length of its header, 8 bytes, and that with the shape of each tensor."""
    with suppress(OSError, ValueError, AttributeError, TypeError, KeyError), file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(min(size, file.stat().st_size)))
        return sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
    return 0


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_text("utf-8"))
        if isinstance(content, dict):
            return content
    return {}
