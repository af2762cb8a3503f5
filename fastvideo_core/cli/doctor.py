"""`fv doctor`: what is here, what would run, and what to do about what is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TypeAlias

import click

from fastvideo_core.cli.advice import advice
from fastvideo_core.cli.doctor_settings import Question, settings_of, unread_variables
from fastvideo_core.cli.options import settings_option, split_settings
from fastvideo_core.cli.output import discovered, own_output, say
from fastvideo_core.contract.attention import AttentionBackend, Probe
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.discovery.environment import SECRETS, VARIABLES, normalize_plugin_name, read_settings
from fastvideo_core.discovery.plugins import Plugin, Plugins, own_version
from fastvideo_core.discovery.printable import explain
from fastvideo_core.engine.asked import Asked
from fastvideo_core.engine.attention.answers import ask, capabilities_of, probe_of
from fastvideo_core.errors import FastVideoError, InputError, PluginError
from fastvideo_core.kernels import gpu_generation

_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "pluggy", "av")

_Probed: TypeAlias = tuple[AttentionBackend, Plugin, Probe]


@click.command("doctor")
@click.option("--attention-backend", metavar="NAME", help="As for `fv generate`. Default: the environment's.")
@click.option("--cache", metavar="POLICY", help="As for `fv generate`. Default: the environment's.")
@settings_option
def doctor_command(attention_backend: str | None, cache: str | None, settings: tuple[str, ...]) -> None:
    """Show versions, devices, settings and what each backend says of its kernel; with status 1 if something is broken.

    A backend whose kernel is merely not there is no fault.
    """
    plain = Question(attention_backend, cache)
    for_backend, for_policy = split_settings(settings, *(_name(asked) for asked in (plain.backend, plain.policy)))
    asked = Question(attention_backend, cache, for_backend, for_policy)
    found = discovered()
    say(f"fastvideo-core {own_version()}, Python {sys.version.split()[0]}")
    with own_output():
        probes = [(backend, plugin, _probed(backend, asked)) for plugin in found.loaded for backend in plugin.backends]
        of_processes: list[str] = []
        lines = [
            *_versions(),
            *_devices(),
            *_processes(of_processes),
            *_settings(found),
            *_backends(found, probes),
            *_policies(found, asked),
        ]
        problems = [*of_processes, *_problems(found, probes, asked)]
    for line in lines:
        say(line)
    say("\nproblems" if problems else "\nno problems")
    for problem in problems:
        say(f"  {problem}")
    if told := _advice(probes):
        say(f"\nadvice: {told}")
    sys.exit(1 if problems else 0)


def _advice(probes: list[_Probed]) -> str | None:
    """What to install here; None where torch does not say what is here."""
    try:
        import torch

        generation = gpu_generation()
        machine = "a CPU" if generation is None else torch.cuda.get_device_name()
        if torch.version.hip:
            return f"torch {torch.__version__} is built for AMD GPUs: fv-diffusers has DIFFUSERS_AITER_FA2_HUB"
    except Exception:  # said above
        return None
    return advice(machine, generation, {backend.name: probe for backend, _, probe in probes})


def _name(asked: Callable[[], Asked]) -> str | None:
    """The name that was asked for; what is wrong with it is shown as a problem."""
    try:
        return asked().name
    except InputError:
        return None


def _probed(backend: AttentionBackend, asked: Question) -> Probe:
    """What a backend says of its kernel, with the settings that it is given."""
    try:
        ask("take_settings", lambda: asked.prepare(backend), type(None))
        ask("list of settings", lambda: list(settings_of(backend)), list)
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
    if torch.cuda.device_count() > 1:
        yield from _links(torch.cuda.device_count(), torch.cuda.can_device_access_peer)


def _links(count: int, reaches: Callable[[int, int], bool]) -> Iterator[str]:
    """Which GPUs reach one another's memory, as far as torch tells."""
    apart = [f"{a} and {b}" for a in range(count) for b in range(a + 1, count) if not reaches(a, b)]
    without = f", but for {', '.join(apart)}, which talk through the computer's memory" if apart else ""
    yield f"  all {count} GPUs reach one another's memory{without}"


def _processes(problems: list[str]) -> Iterator[str]:
    """Whether processes on all GPUs can talk to one another; what is wrong is added to the problems."""
    from fastvideo_core.app.workers.small_collective import problem_of_processes

    with suppress(Exception):  # said above
        import torch

        if (count := torch.cuda.device_count()) > 1:
            problem = problem_of_processes(count, "cuda")
            yield f"  a small collective of {count} processes " + ("fails" if problem else "works")
            if problem:
                problems.append(f"processes on {count} GPUs cannot talk to one another: {problem}; see NCCL_DEBUG=INFO")


def _settings(found: Plugins) -> Iterator[str]:
    yield "\nenvironment"
    for name in VARIABLES:
        value = "(not shown)" if name in SECRETS else os.environ.get(name)
        yield f"  {name}={value}" if name in os.environ else f"  {name} is not set"
    yield from (f"  {line}" for line in unread_variables(found))
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
        with suppress(PluginError, InputError):  # reported as a problem
            yield from ask("list of settings", lambda: list(settings_of(backend)), list)  # noqa: B023  # asked at once
    for plugin in found.all:
        if plugin.status == "disabled":
            yield f"  {plugin.label} is switched off by FASTVIDEO_DISABLE_PLUGINS"


def _policies(found: Plugins, asked: Question) -> Iterator[str]:
    yield "\ncaching policies"
    for plugin in found.loaded:
        for policy in plugin.policies:
            yield f"  {policy.name} ({plugin.label})"
            try:
                yield from _settings_of_policy(policy, asked)
            except (InputError, PluginError) as error:
                yield f"      {error}"
    if not found.policy_names():
        yield "  none is installed"


def _settings_of_policy(policy: type[CachePolicy], asked: Question) -> list[str]:
    return ask("list of settings", lambda: list(settings_of(asked.make(policy))), list)


def _problems(found: Plugins, probes: list[_Probed], asked: Question) -> Iterator[str]:
    from fastvideo_core.engine.attention.resolve import find_backend
    from fastvideo_core.engine.caching.choice import find_policy

    for plugin in found.broken:
        yield f"{plugin.label} is broken: {plugin.cause}; upgrade it, uninstall it, or set FASTVIDEO_DISABLE_PLUGINS"
    for backend, plugin, probe in probes:
        if probe.broken:
            yield f"{backend.name} ({plugin.label}): {probe.reason}. {probe.remedy}"
    for plugin in found.loaded:
        for policy in plugin.policies:
            if problem := _problem(partial(_settings_of_policy, policy, asked)):
                yield f"{policy.name} ({plugin.label}): {problem}"
    questions: list[Callable[[], object]] = [_check_diffusers]
    questions += [partial(found.backend, name) for name in found.backend_names()]
    questions += [partial(found.policy, name) for name in found.policy_names()]
    questions += [partial(found.preset, name) for name in found.preset_names()]
    if fallback := read_settings().attention_fallback:
        questions.append(partial(find_backend, found, fallback, "FASTVIDEO_ATTENTION_FALLBACK"))
    questions.append(partial(_found, found, find_backend, "attention_config", asked.backend))
    questions.append(partial(_found, found, find_policy, "cache_config", asked.policy))
    yield from filter(None, map(_problem, questions))
    if problem := _problem(partial(_check_runs, probes, asked, fallback)):
        yield problem


def _found(
    plugins: Plugins,
    find: Callable[[Plugins, str, str], object],
    parameter: str,
    question: Callable[[], Asked],
) -> None:
    """Look for what was asked for, if anything was; else there must be no settings for it."""
    asked = question()
    if asked.name:
        find(plugins, asked.name, asked.origin)
    else:
        asked.with_config(None, parameter)


def _check_runs(probes: list[_Probed], asked: Question, fallback: str | None) -> None:
    """Refuse a backend that was asked for and cannot run here, if nothing that could stands in for it."""
    available = {backend.name: probe.available for backend, _, probe in probes if not probe.broken}
    wanted = asked.backend()
    if wanted.name and available.get(wanted.name) is False and not (fallback and available.get(fallback)):
        also = f", nor can {fallback}, its fallback" if fallback else ""
        raise InputError(f"{wanted.name} (from {wanted.origin}) cannot run here{also}; see above")


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
