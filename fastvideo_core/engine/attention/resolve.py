"""Decide, once and before anything runs, which backend serves which role."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Self

from fastvideo_core.contract.attention import AttentionBackend, Capabilities, Need, Probe, Role
from fastvideo_core.discovery.plugins import Plugin, Plugins
from fastvideo_core.discovery.unknown_name import listed, unknown_name
from fastvideo_core.engine.attention.answers import ask, capabilities_of, priority_of, probe_of, tell_device
from fastvideo_core.errors import (
    BackendError,
    BackendMismatchError,
    BackendUnavailableError,
    PluginError,
    UnknownBackendError,
)

FIRST_PARTY = {
    "TORCH_SDPA": "fastvideo-core",
    "FLASH_ATTN": "fv-flash",
    "SLIDING_TILE_ATTN": "fv-sta",
    "SAGE_ATTN": "fv-sage",
    **dict.fromkeys(("DIFFUSERS_NATIVE", "DIFFUSERS_NATIVE_CUDNN", "DIFFUSERS_FLASH_3_HUB"), "fv-diffusers"),
}
"""Backends of this project and the package that brings each."""


@dataclass(frozen=True)
class Resolution:
    """The backend that serves one role, and why; `fallback` serves what it turns out not to take, if one was named."""

    role: Role
    backend: AttentionBackend
    plugin: Plugin
    probe: Probe
    reason: str
    fallback: Resolution | None = None

    def as_fallback(self, problem: str) -> Self:
        """This one, chosen as the fallback because of a problem."""
        return replace(self, reason=f"FASTVIDEO_ATTENTION_FALLBACK, because {problem}", fallback=None)


def _by_environment(backend: AttentionBackend) -> None:
    backend.take_settings(None)


def resolve(
    plugins: Plugins,
    requested: str | None,
    origin: str,
    needs: Iterable[Need],
    fallback: str | None = None,
    prepare: Callable[[AttentionBackend], None] = _by_environment,
) -> dict[Role, Resolution]:
    """Choose a backend for each need.

    Args:
        requested: a normalised backend name, or None for the automatic choice.
        origin: where the name came from, for messages and the receipt.
        fallback: the name of a backend to use where the requested one cannot run or does not fit; None: that is an
            error. A name that no plugin provides is an error all the same.
        prepare: gives the requested backend its settings, before it is asked anything.

    Raises:
        InputError: a setting of the requested backend, or of the fallback, that it does not have or take.
        UnknownBackendError: no plugin provides the requested backend.
        BackendUnavailableError: its kernel cannot be used on this machine.
        BackendMismatchError: it does not serve the model's head size, dtype or device, or none of its roles.
        DuplicateProviderError: two plugins provide it.
    """
    needs = list(needs)
    if requested is None:
        return {need.role: _automatic(plugins, need, "automatic") for need in needs}
    if fallback is None or fallback == requested:
        return _requested(plugins, requested, origin, needs, prepare)
    spare = _requested(plugins, fallback, "FASTVIDEO_ATTENTION_FALLBACK", needs)
    try:
        chosen = _requested(plugins, requested, origin, needs, prepare)
    except UnknownBackendError:
        raise
    except BackendError as error:
        return {role: resolution.as_fallback(str(error)) for role, resolution in spare.items()}
    return {
        role: replace(resolution, fallback=spare[role]) if resolution.backend.name == requested else resolution
        for role, resolution in chosen.items()
    }


def _requested(
    plugins: Plugins,
    requested: str,
    origin: str,
    needs: list[Need],
    prepare: Callable[[AttentionBackend], None] = _by_environment,
) -> dict[Role, Resolution]:
    """The backend of that name for the roles that it serves, the automatic one for the others."""
    backend, plugin = find_backend(plugins, requested, origin)
    try:
        tell_device(backend, needs[0].device)
        ask("take_settings", lambda: prepare(backend), type(None))
        probe, roles = probe_of(backend), capabilities_of(backend).roles
    except PluginError as error:
        raise BackendUnavailableError(
            f"{requested} (from {origin}, provided by {plugin.label}) is broken: {error}. Report it to its author"
        ) from error
    if not probe.available:
        raise BackendUnavailableError(
            f"{requested} (from {origin}, provided by {plugin.label}) cannot run here: {probe.reason}. {probe.remedy}"
        )
    served = [need for need in needs if need.role in roles]
    if not served:
        raise BackendMismatchError(
            f"{requested} serves {_names(roles)} attention, this model has "
            f"{_names(need.role for need in needs)}; choose another backend: {listed(plugins.backend_names())}"
        )
    if mismatches := [reason for need in served if (reason := mismatch(backend, need))]:
        raise BackendMismatchError(f"{requested} (from {origin}) does not fit: {mismatches[0]}")
    return {
        need.role: Resolution(need.role, backend, plugin, probe, f"requested by {origin}")
        if need in served
        else _automatic(plugins, need, f"{requested} does not serve {need.role.value}")
        for need in needs
    }


def find_backend(plugins: Plugins, name: str, origin: str) -> tuple[AttentionBackend, Plugin]:
    """The installed backend of that name, or an error that says what is installed and what to do."""
    try:
        return plugins.backend(name)
    except KeyError:
        message, cause = unknown_name(plugins, "attention backend", name, origin, plugins.backend_names(), FIRST_PARTY)
        raise UnknownBackendError(message) from cause


def mismatch(backend: AttentionBackend, need: Need) -> str | None:
    """Why the backend's declared capabilities do not cover the need, or None."""
    can = backend.capabilities
    if can.head_dims is not None and need.head_dim not in can.head_dims:
        return f"the model's head size is {need.head_dim}, it takes {_numbers(can.head_dims)}"
    if can.dtypes is not None and need.dtype not in can.dtypes:
        return f"the model is {need.dtype}, it takes {', '.join(sorted(can.dtypes))}; load the model with dtype=…"
    if can.devices is not None and need.device.partition(":")[0] not in can.devices:
        return f"the model is on {need.device!r}, it runs on {', '.join(sorted(can.devices))}"
    return None


def _automatic(plugins: Plugins, need: Need, why: str) -> Resolution:
    """The highest ranked lossless backend that is available and fits; TORCH_SDPA always does."""
    ranked = []
    for name in plugins.backend_names():
        for rank, backend, plugin in _candidates(plugins, name, need):
            probe = probe_of(backend)
            if probe.available:
                ranked.append((rank, name, Resolution(need.role, backend, plugin, probe, _reason(why, name))))
    return max(ranked, key=lambda entry: entry[:2])[2]


def _reason(why: str, name: str) -> str:
    return f"automatic: {name} is the fastest lossless backend that fits" if why == "automatic" else f"{why}: automatic"


def _candidates(plugins: Plugins, name: str, need: Need) -> list[tuple[int, AttentionBackend, Plugin]]:
    """The backend of that name, with its rank, if it has one, is lossless and fits.

    The rank comes first: one that has none, as lossy backends do, is asked nothing that would import its kernel. So two
    of one name matter only where one could be chosen. One that is broken is left out.
    """
    named = [(backend, plugin) for plugin in plugins.loaded for backend in plugin.backends if backend.name == name]
    ranked = [(rank, backend) for backend, plugin in named if (rank := _rank(backend, plugin, need)) > 0]
    if not ranked:
        return []
    backend, plugin = plugins.backend(name)
    fits = need.role in capabilities_of(backend).roles and mismatch(backend, need) is None
    return [(ranked[0][0], backend, plugin)] if fits else []


def _rank(backend: AttentionBackend, plugin: Plugin, need: Need) -> int:
    """Its rank if it is lossless, 0 otherwise.

    Nothing is asked of one that leaves the rank as it is inherited, nor of one whose class says that it is out of the
    question: what a lossy backend imports when it is asked is not the business of a user who did not name it.
    """
    if type(backend).automatic_priority is AttentionBackend.automatic_priority or _is_out(backend, need):
        return 0
    try:
        tell_device(backend, need.device)
        rank = priority_of(backend, need)
        return rank if rank > 0 and capabilities_of(backend).lossless else 0
    except PluginError as error:
        _leave_out(backend.name, plugin, str(error))
        return 0


def _is_out(backend: AttentionBackend, need: Need) -> bool:
    """Whether capabilities that stand in the class, or in the object, say that it is lossy or of other roles."""
    stated = inspect.getattr_static(backend, "capabilities", None)
    if not isinstance(stated, Capabilities):  # a property, which would run
        return False
    lossy, roles = stated.lossless is False, stated.roles
    return lossy or (isinstance(roles, frozenset) and need.role not in roles)


def _leave_out(name: str, plugin: Plugin, problem: str) -> None:
    warnings.warn(f"{name} ({plugin.label}) is left out of the automatic choice: {problem}", stacklevel=2)


def _names(roles: Iterable[Role]) -> str:
    return " and ".join(sorted({role.value for role in roles}))


def _numbers(values: frozenset[int]) -> str:
    ordered = sorted(values)
    if len(ordered) > 6:
        return f"{ordered[0]} to {ordered[-1]} ({len(ordered)} sizes)"
    return ", ".join(map(str, ordered))
