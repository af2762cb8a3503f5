"""Read what a model is from its JSON files, before any of its weights are loaded."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from fastvideo_core.app.inputs import PipelineInputs
from fastvideo_core.contract.caching import CachedModel
from fastvideo_core.contract.model import Geometry, ModelFamily
from fastvideo_core.contract.preset import ModelPreset
from fastvideo_core.discovery.home import expanded
from fastvideo_core.discovery.plugins import Plugins, load_plugins
from fastvideo_core.engine.caching.choice import model_of
from fastvideo_core.engine.families import family_of
from fastvideo_core.errors import ModelNotFoundError, UnsupportedModelError


@dataclass(frozen=True)
class ModelInfo:
    """A model that can be loaded.

    Attributes:
        name: as the user gave it.
        location: a local folder or a hub id.
        preset: the preset of that name, if there is one.
        pipeline: the class name of its pipeline.
        transformer: the configuration of its transformer.
        channels: of a video token.
        components: by name, the class of each component of its pipeline.
        scheduler: the configuration of its scheduler; empty if that cannot be read.
        has_two_experts: whether a second transformer takes over at a boundary, as in Wan 2.2 A14B.
    """

    name: str
    location: str
    preset: ModelPreset | None
    family: ModelFamily
    geometry: Geometry
    pipeline: str
    transformer: Mapping[str, Any]
    channels: int
    components: Mapping[str, str]
    scheduler: Mapping[str, Any]
    has_two_experts: bool

    @cached_property
    def inputs(self) -> PipelineInputs:
        """What its pipeline takes; the first time this imports diffusers, which takes seconds.

        Raises:
            UnsupportedModelError: it needs what a generator cannot give.
        """
        return PipelineInputs.of(self.pipeline, self.family, self.name)

    def check_inputs(self) -> None:
        """Refuse a pipeline that needs what a generator cannot give; raises as `inputs` does."""
        _ = self.inputs

    @property
    def cached_model(self) -> CachedModel:
        """What a caching policy is told of it."""
        return model_of(self.family, self.location, self.pipeline)


def find_preset(plugins: Plugins, model_path: str) -> ModelPreset | None:
    """The preset of that name, if an installed plugin has one."""
    try:
        return plugins.preset(model_path)[0]
    except KeyError:
        return None


def read_model(plugins: Plugins, model_path: str | Path) -> ModelInfo:
    """Find a model by preset name, local folder or hub id.

    Raises:
        ModelNotFoundError: it is none of them, or its files cannot be read.
        UnsupportedModelError: no plugin knows its transformer.
        DuplicateProviderError: two plugins know its transformer.
    """
    name = str(model_path)
    preset = find_preset(plugins, name)
    location = preset.location if preset else name
    read_json = _reader(plugins, location)
    index = read_json("model_index.json")
    pipeline = str(index.get("_class_name"))
    family = family_of(plugins, _transformer_classes(index), f"the model {name}, a {pipeline},")
    try:
        transformer, vae = read_json("transformer/config.json"), read_json("vae/config.json")
        geometry = family.geometry(transformer, vae)
        channels = _channels(family, transformer)
        if min(*geometry.pixels_per_token, geometry.frames_per_token) < 1:
            raise ValueError(f"its sizes: a token of {geometry.pixels_per_token} pixels")
        if geometry.max_tokens is not None and geometry.max_tokens < 1:
            raise ValueError(f"the longest axis has {geometry.max_tokens} tokens")
    except KeyError as error:
        raise UnsupportedModelError(f"the configuration of {name} lacks {error}") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UnsupportedModelError(f"the configuration of {name} garbles a number: {error}") from error
    two = index.get("boundary_ratio") is not None and (index.get("transformer_2") or [None])[0] is not None
    scheduler = _scheduler(read_json)
    named = {key: str(one[-1]) for key, one in index.items() if isinstance(one, list) and one and one[-1]}
    return ModelInfo(name, location, preset, family, geometry, pipeline, transformer, channels, named, scheduler, two)


def _scheduler(read_json: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    try:
        return read_json("scheduler/scheduler_config.json")
    except ModelNotFoundError:  # loading it will say so
        return {}


def _channels(family: ModelFamily, config: Mapping[str, Any]) -> int:
    """The channels of a video token: those of all heads of the first role."""
    for key in ("attention_head_dim", "num_attention_heads"):
        value = config.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key} is {value!r}, it must be a whole number, 1 or more")
    return math.prod(family.heads(config, family.roles[0]))


def _transformer_classes(index: Mapping[str, Any]) -> list[str]:
    """The class name of a pipeline's transformer, from its model_index.json."""
    described = index.get("transformer")
    return [str(described[-1])] if isinstance(described, list) and described else []


def family_names() -> list[str]:
    """The names of the model families that installed plugins know."""
    return sorted({family.name for family in load_plugins().families()})


def open_model_file(location: str, file: str) -> BinaryIO:
    """Open a file of a model for reading; of a hub's, only the parts that are read are fetched.

    Raises:
        ModelNotFoundError: there is no such file, or it cannot be reached.
    """
    folder = expanded(location)
    try:
        if folder.is_dir():
            return (folder / file).open("rb")
        from huggingface_hub import HfFileSystem

        opened: BinaryIO = HfFileSystem().open(f"{location}/{file}", "rb", block_size=2**20)
        return opened
    except Exception as error:  # the hub's client raises errors of its own, of the HTTP library and OSError
        raise ModelNotFoundError(f"{location} has no {file} that can be read: {error}") from error


def _reader(plugins: Plugins, location: str) -> Callable[[str], dict[str, Any]]:
    if "\0" in location or not location.strip():
        raise ModelNotFoundError(f"{location!r} is no model; presets: {', '.join(plugins.preset_names())}")
    folder = expanded(location)
    try:
        is_folder, is_there = folder.is_dir(), folder.exists()
    except OSError:  # such as for a name of 5,000 letters
        is_folder = is_there = False
    if is_folder:
        return lambda file: _parse(folder / file, location)
    if is_there or location.startswith((".", "/", "~")) or location.count("/") != 1:
        raise ModelNotFoundError(_not_found(plugins, location))
    return lambda file: _parse(_download(plugins, location, file), location)


def _parse(path: Path, location: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(
            f"{location} is a folder but no model in diffusers format: it has no {path.name} at {path}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelNotFoundError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelNotFoundError(f"{path} holds no JSON object")
    return content


def _download(plugins: Plugins, repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # the hub's client raises errors of its own, of the HTTP library and OSError
        reason = str(error).strip().split("\n")[0]
        if any(preset.location == repository for plugin in plugins.loaded for preset in plugin.presets):
            problem = f"the model {repository} lies on the hub, from which {file} cannot be fetched"
        else:
            problem = _not_found(plugins, repository)
        raise ModelNotFoundError(f"{problem}; the hub said: {reason}") from error


def _not_found(plugins: Plugins, name: str) -> str:
    presets = plugins.preset_names()
    close = difflib.get_close_matches(name, presets, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    if name == "shapes" and name not in presets:
        switched_off = any((one.distribution, one.status) == ("fv-shapes", "disabled") for one in plugins.all)
        hint = "; to get the embedded model: pip install fv-shapes"
        if switched_off:
            hint = "; fv-shapes, which has it, is installed but switched off by FASTVIDEO_DISABLE_PLUGINS"
    return (
        f"there is no model {name!r}: it is no preset ({', '.join(presets)}), no local folder, and no hub id that can "
        f"be reached{hint}"
    )
