"""Find the family of a pipeline by its transformer: what the pipeline itself is called does not matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.discovery.plugins import Plugins
from fastvideo_core.errors import UnsupportedModelError

COMPILED_HINT = "; compile it in place: pipe.transformer.compile(), or its compile_repeated_blocks()"


def family_of(plugins: Plugins, transformer_classes: Sequence[str], what: str) -> ModelFamily:
    """The installed family of a transformer.

    Args:
        transformer_classes: names of its class and of the bases of that, nearest first.
        what: whose transformer it is, for messages.

    Raises:
        UnsupportedModelError: no plugin knows it.
        DuplicateProviderError: more than one does.
    """
    if (family := _known(plugins, transformer_classes)) is not None:
        return family
    hint = COMPILED_HINT if "OptimizedModule" in transformer_classes else ""
    raise UnsupportedModelError(
        f"{what} has {_described(transformer_classes)}{hint}; installed plugins know {_transformers(plugins)}; a "
        "plugin can bring another family: fv plugins new NAME --family"
    )


def family_of_pipeline(plugins: Plugins, pipe: Any) -> ModelFamily:
    """The family of a pipeline's transformers; raises as `family_of`, also where it has none."""
    what = f"this {type(pipe).__name__}"
    modules = _modules(pipe)
    for _, component in modules:
        if (family := _known(plugins, _classes(component))) is not None:
            return family
    named = [component for name, component in modules if name.startswith("transformer")]
    if named:
        return family_of(plugins, _classes(named[0]), what)
    have = ", ".join(f"{name}: {type(component).__name__}" for name, component in modules) or "no models"
    raise UnsupportedModelError(
        f"{what} has no transformer; it has {have}; installed plugins know {_transformers(plugins)}"
    )


def transformers_of(pipe: Any, family: ModelFamily) -> Iterator[tuple[str, Any]]:
    """The pipeline's transformers with their names in it: two in Wan 2.2, one elsewhere.

    Raises:
        UnsupportedModelError: there is none, or one of another class.
    """
    found = False
    for name, component in _modules(pipe):
        if family.transformer in _classes(component):
            found = True
            yield name, component
        elif name.startswith("transformer"):
            raise UnsupportedModelError(
                f"the component {name} is a {type(component).__name__}, {family.name} pipelines have a "
                f"{family.transformer} there{COMPILED_HINT if hasattr(component, '_orig_mod') else ''}"
            )
    if not found:
        raise UnsupportedModelError(f"this {type(pipe).__name__} has no {family.transformer}")


def _described(transformer_classes: Sequence[str]) -> str:
    return f"a {transformer_classes[0]} for a transformer" if transformer_classes else "no transformer"


def _transformers(plugins: Plugins) -> str:
    return ", ".join(family.transformer for family in plugins.families())


def _known(plugins: Plugins, classes: Sequence[str]) -> ModelFamily | None:
    for name in classes:
        try:
            return plugins.family(name)[0]
        except KeyError:
            continue
    return None


def _modules(pipe: Any) -> list[tuple[str, Any]]:
    import torch

    components = getattr(pipe, "components", {})
    return [(name, part) for name, part in components.items() if isinstance(part, torch.nn.Module)]


def _classes(module: Any) -> list[str]:
    return [kind.__name__ for kind in type(module).__mro__]
