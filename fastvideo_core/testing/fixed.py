"""What the suites share: tests that stay as they are, waits for the device refused, graphs counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

_READS = ("item", "tolist", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__")


class Suite:
    """Base of the suites. Whoever subclasses a suite may add tests; replacing one of the suite's is a TypeError."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        suite = next((base for base in cls.__mro__[1:] if Suite in base.__bases__), None)
        if suite is None:
            return
        own = vars(suite)
        changed = [
            name for name in own if name.startswith(("test_", "pytest_")) and getattr(cls, name) is not own[name]
        ]
        if changed:
            raise TypeError(
                f"{cls.__name__} replaces {', '.join(changed)} of {suite.__name__}; its tests cannot be overridden: "
                "add tests of other names, or declare less in what is tested"
            )


@contextmanager
def no_waiting(device: str) -> Iterator[None]:
    """Refuse what waits for the GPU; on a CPU, where nothing waits, what would on a GPU."""
    if device != "cuda":
        with pytest.MonkeyPatch.context() as patched:
            for name in _READS:
                patched.setattr(torch.Tensor, name, _refuse(name))
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _refuse(name: str) -> Any:
    def refuse(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"Tensor.{name} reads a tensor's value: on a GPU each call would wait for the device")

    return refuse


def counting(graphs: list[Any], backend: str = "eager") -> Callable[[torch.fx.GraphModule, list[torch.Tensor]], Any]:
    """A backend for torch.compile that puts each graph into the list and runs it as it is.

    Args:
        backend: what runs it: "eager" as Dynamo has traced it, "aot_eager" after AOTAutograd has traced it as well,
            through the operators' fake tensors.
    """

    def count(graph: torch.fx.GraphModule, example: list[torch.Tensor]) -> Any:
        from torch._dynamo.backends.registry import lookup_backend

        graphs.append(graph)
        return lookup_backend(backend)(graph, example)

    return count
