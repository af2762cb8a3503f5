"""`fv doctor`: what is here, what would run, and what to do about what is wrong."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TypeAlias

import click

from fastvideo_core.cli.output import discovered, own_output, say
from fastvideo_core.contract.attention import AttentionBackend, Probe
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.contract.settings import as_text
from fastvideo_core.discovery.environment import VARIABLES, normalize_plugin_name, read_settings
from fastvideo_core.discovery.plugins import Plugin, Plugins, own_version
from fastvideo_core.discovery.printable import explain
from fastvideo_core.engine.attention.answers import ask, capabilities_of, probe_of
from fastvideo_core.engine.attention.choice import file_of_environment, requested_backend
from fastvideo_core.engine.caching.choice import defaults_of
from fastvideo_core.errors import FastVideoError, InputError, PluginError

_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "pluggy", "av")

_Probed: TypeAlias = tuple[AttentionBackend, Plugin, Probe]


@click.command("doctor")
def doctor_command() -> None:
    """Show versions, devices, settings and what each backend says of its kernel; with status 1 if something is broken.

    A backend whose kernel is merely not there is no fault.
    """
    found = discovered()
    say(f"fastvideo-core {own_version()}, Python {sys.version.split()[0]}")
    with own_output():
        probes = [(backend, plugin, _probed(backend)) for plugin in found.loaded for backend in plugin.backends]
        lines = [*_versions(), *_devices(), *_settings(found), *_backends(found, probes), *_policies(found)]
        problems = list(_problems(found, probes))
    for line in lines:
        say(line)
    say("\nproblems" if problems else "\nno problems")
    for problem in problems:
        say(f"  {problem}")
    sys.exit(1 if problems else 0)


def _probed(backend: AttentionBackend) -> Probe:
    """What a backend says of its kernel, with the settings that the environment gives it."""
    file = file_of_environment() if backend.name == requested_backend(None)[0] else None
    try:
        ask("take_settings", lambda: backend.take_settings(None, file), type(None))
        ask("list of settings", lambda: list(_settings_of(backend)), list)
        capabilities_of(backend)
    except InputError as error:
        return Probe(False, reason=str(error), remedy="Correct it, or unset it", broken=True)
    except PluginError as error:
        return Probe(False, reason=str(error), remedy="Report it to the plugin's author", broken=True)
    return probe_of(backend)


def _versions() -> Iterator[str]:
    yield "\nlibraries"
    for name in _LIBRARIES:
        try:
            yield f"  {name} {version(name)}"
        except PackageNotFoundError:
            yield f"  {name} is missing: pip install {name}"


def _devices() -> Iterator[str]:
    yield "\ndevices"
    try:
        import torch
    except Exception as error:  # a torch that does not load is what the doctor is asked about
        yield f"  torch does not import: {explain(error)}"
        return
    yield f"  cpu, {torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        yield f"  cuda:{index}, {properties.name}, sm{properties.major}{properties.minor}, {memory:.0f} GiB"


def _settings(found: Plugins) -> Iterator[str]:
    import os

    yield "\nenvironment"
    for name in VARIABLES:
        yield f"  {name}={os.environ[name]}" if name in os.environ else f"  {name} is not set"
    variables = {
        *VARIABLES,
        *(variable for plugin in found.loaded for backend in plugin.backends for variable in _variables(backend)),
    }
    for name in sorted(name for name in os.environ if name.startswith("FASTVIDEO_") and name not in variables):
        close = difflib.get_close_matches(name, variables, n=1)
        yield f"  {name} is read by nothing that is installed" + (f"; did you mean {close[0]}?" if close else "")
    known = {normalize_plugin_name(name) for plugin in found.all for name in (plugin.name, plugin.distribution)} | {"*"}
    for name in sorted(read_settings().disabled_plugins - known):
        yield f"  FASTVIDEO_DISABLE_PLUGINS names {name}, which is not installed"


def _backends(found: Plugins, probes: list[_Probed]) -> Iterator[str]:
    yield "\nattention backends"
    for backend, plugin, probe in probes:
        if probe.available:
            kind = "lossless" if backend.capabilities.lossless else "not lossless: only when named"
            yield f"  {backend.name} ({plugin.label}): {probe.kernel} {probe.version}, {kind}"
        else:
            yield f"  {backend.name} ({plugin.label}) cannot run here: {probe.reason}. {probe.remedy}"
        with suppress(PluginError):  # reported as a problem
            yield from ask("list of settings", lambda: list(_settings_of(backend)), list)  # noqa: B023  # asked at once
    for plugin in found.all:
        if plugin.status == "disabled":
            yield f"  {plugin.label} is switched off by FASTVIDEO_DISABLE_PLUGINS"


def _variables(backend: AttentionBackend) -> list[str]:
    try:
        return ask("list of settings", lambda: [one.variable for one in backend.declared_settings()], list)
    except PluginError:  # reported as a problem
        return []


def _settings_of(backend: AttentionBackend) -> Iterator[str]:
    """Each setting with its value here, where that comes from, and what it does."""
    try:
        values = backend.settings_used()
    except InputError:  # reported as a problem
        return
    for one in backend.declared_settings():
        origin = backend.origin_of(one.name) if backend.was_given(one.name) else f"default; {one.variable}"
        yield f"      {one.name} = {as_text(values[one.name])} ({origin}): {one.help}"


def _policies(found: Plugins) -> Iterator[str]:
    yield "\ncaching policies"
    for plugin in found.loaded:
        for policy in plugin.policies:
            yield f"  {policy.name} ({plugin.label})"
            try:
                yield from _settings_of_policy(policy)
            except PluginError as error:
                yield f"      is broken: {error}"
    if not found.policy_names():
        yield "  none is installed"


def _settings_of_policy(policy: type[CachePolicy]) -> list[str]:
    def lines() -> Iterator[str]:
        for name, default in defaults_of(policy).items():
            main = f"; {policy.name}@VALUE" if name == policy.main_setting else ""
            yield f"      {name} = {as_text(default)} (default{main})"

    return ask("list of settings", lambda: list(lines()), list)


def _problems(found: Plugins, probes: list[_Probed]) -> Iterator[str]:
    from fastvideo_core.engine.attention.resolve import find_backend
    from fastvideo_core.engine.caching.choice import choose_policy

    for plugin in found.broken:
        yield f"{plugin.label} is broken: {plugin.cause}; upgrade it, uninstall it, or set FASTVIDEO_DISABLE_PLUGINS"
    for backend, plugin, probe in probes:
        if probe.broken:
            yield f"{backend.name} ({plugin.label}): {probe.reason}. {probe.remedy}"
    for plugin in found.loaded:
        for policy in plugin.policies:
            if problem := _problem(partial(_settings_of_policy, policy)):
                yield f"{policy.name} ({plugin.label}): {problem}. Report it to the plugin's author"
    requested, origin = requested_backend(None)
    questions: list[Callable[[], object]] = [_check_diffusers]
    questions += [partial(found.backend, name) for name in found.backend_names()]
    questions += [partial(found.policy, name) for name in found.policy_names()]
    questions += [partial(found.preset, name) for name in found.preset_names()]
    questions.append(partial(choose_policy, found, None))
    if fallback := read_settings().attention_fallback:
        questions.append(partial(find_backend, found, fallback, "FASTVIDEO_ATTENTION_FALLBACK"))
    if requested:
        questions.append(partial(find_backend, found, requested, origin))
    yield from filter(None, map(_problem, questions))


def _check_diffusers() -> None:
    from fastvideo_core.engine.diffusers_bridge import check

    check()


def _problem(question: Callable[[], object]) -> str | None:
    try:
        question()
    except FastVideoError as error:
        return str(error)
    except Exception as error:  # such as a diffusers that does not import
        return explain(error)
    return None
