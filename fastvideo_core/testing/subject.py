"""What a suite is run on: a backend that is installed or given as an object, and where it can run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

import pytest
import torch

from fastvideo_core.contract.attention import AttentionBackend, Need, Probe, Role, TokenLayout
from fastvideo_core.discovery.plugins import Plugin, Plugins, load_plugins
from fastvideo_core.engine.attention.answers import probe_of
from fastvideo_core.engine.attention.masks import MaskReader
from fastvideo_core.engine.attention.operator import attend
from fastvideo_core.engine.attention.resolve import Resolution, find_backend
from fastvideo_core.engine.attention.route import LoadedBackend, Route
from fastvideo_core.engine.forward_pass import ForwardPass, begin, end, under_way
from fastvideo_core.engine.layers import CallsOfRole
from fastvideo_core.testing.cases import ROUNDING, Case, make_inputs, typical_head_dim


def find(
    named: str | AttentionBackend, settings: Mapping[str, Any] | None = None
) -> tuple[AttentionBackend, Plugin, Plugins]:
    """The backend with these settings, its plugin and all plugins, whether it is installed or given as an object."""
    plugins = installed_plugins()
    if isinstance(named, str):
        found, plugin = find_backend(plugins, named, "the suite's `backend`")
        backend, plugin = copy(found), replace(plugin)  # so that nothing of one suite's is met by another
    else:
        backend, plugin = named, Plugin("suite", "the suite's `backend`", "")
    backend.take_settings(settings)
    plugin.backends = [backend]
    others = [other for other in plugins.all if backend.name not in other.provides]
    return backend, plugin, Plugins([*others, plugin])


@cache
def installed_plugins() -> Plugins:
    """What is installed, discovered once for all tests."""
    return load_plugins()


def installed(named: str | AttentionBackend) -> tuple[AttentionBackend, Plugin]:
    if not isinstance(named, str):
        pytest.skip("the backend is an object, not an installed plugin")
    return find(named)[:2]


def run_python(code: str, **variables: str) -> str:
    """What a fresh Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Discovered:
    """What a fresh Python finds of plugins: the names that they provide, and the modules that this has imported."""

    backends: frozenset[str]
    policies: frozenset[str]
    families: frozenset[str]
    modules: frozenset[str]


_DISCOVERY = """
import sys
from json import dumps
from fastvideo_core.discovery.plugins import load_plugins
plugins = load_plugins()
families = [family.transformer for family in plugins.families()]
print(dumps([list(plugins.backend_names()), list(plugins.policy_names()), families, list(sys.modules)]))
"""


@cache
def discovered() -> Discovered:
    """What is found of what is installed; asked once for all tests, as it takes a process."""
    return Discovered(*map(frozenset, json.loads(run_python(_DISCOVERY))))


@dataclass(frozen=True)
class UsableBackend:
    """A backend whose kernel can run, and where."""

    backend: AttentionBackend
    plugin: Plugin
    plugins: Plugins
    probe: Probe
    device: str

    @classmethod
    def ready(cls, named: str | AttentionBackend, settings: Mapping[str, Any] | None = None) -> UsableBackend:
        backend, plugin, plugins = find(named, settings)
        here = ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]
        takes = backend.capabilities.devices
        devices = [device for device in here if takes is None or device in takes]
        backend.device = (devices or here)[0]
        probe = probe_of(backend)
        if not probe.available:
            pytest.skip(f"{backend.name} cannot run here: {probe.reason}")
        if not devices:
            pytest.skip(f"{backend.name} runs on {', '.join(sorted(takes or ()))}; here: cpu")
        return cls(backend, plugin, plugins, probe, devices[0])

    def plain(self, role: Role) -> Case:
        """A simple case that it declares."""
        can = self.backend.capabilities
        dtypes = sorted(can.dtypes or ROUNDING)
        return Case(role, typical_head_dim(can), "bfloat16" if "bfloat16" in dtypes else dtypes[0])

    def tolerance(self, case: Case) -> float:
        claimed = self.backend.capabilities.tolerance
        return ROUNDING[case.dtype] if claimed is None else claimed

    def resolution(self, role: Role) -> Resolution:
        """As if the backend had been asked for in this role."""
        return Resolution(role, self.backend, self.plugin, self.probe, "its suite")

    @contextmanager
    def forward(self, case: Case) -> Iterator[ForwardPass]:
        """A pass of a model of one block with attention of this case's role, called up to 64 times."""
        begun = attention_pass(self, case.role, case.layout)
        with under_way(begun):
            yield begun

    def run(self, case: Case, tensors: tuple[torch.Tensor, ...] | None = None) -> torch.Tensor:
        """The backend's output for a case, with all that the core does around it."""
        inputs = make_inputs(case, self.device)
        query, key, value = tensors or (inputs.query, inputs.key, inputs.value)
        with self.forward(case) as forward, torch.no_grad():
            return forward.attend(case.role, query, key, value, inputs.mask, case.scale)


def undeclared(kernel: UsableBackend, what: str) -> Need | None:
    """A need that differs from what is declared in one point; None if all is declared there."""
    can = kernel.backend.capabilities
    plain = kernel.plain(min(can.roles))
    need = Need(plain.role, plain.head_dim, plain.dtype, kernel.device)
    if what == "role":
        others = set(Role) - can.roles
        return replace(need, role=min(others)) if others else None
    if what == "head_dim":
        return None if can.head_dims is None else replace(need, head_dim=min(set(range(1, 2048)) - can.head_dims))
    if what == "dtype":
        return None if can.dtypes is None else replace(need, dtype="float64")
    return None if can.devices is None else replace(need, device="meta")


def probe_backend(backend: str | AttentionBackend, settings: Mapping[str, Any] | None = None) -> Probe:
    """What a backend says of its kernel, with these settings.

    Raises:
        UnknownBackendError: no installed plugin provides it; InputError: a setting that it does not have or take.
    """
    return probe_of(find(backend, settings)[0])


class AttentionPass:
    """A backend in a pass of a model that has nothing but its attention, for measuring.

    A context manager: within it, calling it is attention as a model's processors call it, eager and compiled.

    Args:
        backend: its name, if its plugin is installed, or an object.
        layout: how the tokens are arranged.
    """

    def __init__(
        self,
        backend: str | AttentionBackend,
        layout: TokenLayout,
        role: Role = Role.SELF,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._role, self._pass = role, attention_pass(UsableBackend.ready(backend, settings), role, layout)

    def __enter__(self) -> Self:
        begin(self._pass)
        return self

    def __exit__(self, *error: object) -> None:
        end(self._pass)

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None = None,
        scale: float | None = None,
    ) -> torch.Tensor:
        """Attention of (batch, tokens, heads, head_dim) tensors, with a mask as diffusers passes it."""
        return attend(self._role, query, key, value, mask, scale)


def attention_pass(
    kernel: UsableBackend, role: Role, layout: TokenLayout, loaded: LoadedBackend | None = None
) -> ForwardPass:
    """A pass of one block, which calls attention up to 64 times."""
    loaded = loaded or LoadedBackend.load(kernel.resolution(role))
    calls = CallsOfRole(tuple(range(64)), ("the suite's",) * 64)
    made = ForwardPass({role: Route(loaded, MaskReader(), num_steps=1)}, ({role: calls},), 0, "cond", layout)
    made.enter_block(0)
    return made
