"""What is to be measured: every attention backend with every caching policy, each prompt and seed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fastvideo_core.app.loading import check_compile, check_device, check_dtype
from fastvideo_core.app.memory import check_memory
from fastvideo_core.app.model_info import ModelInfo, read_model
from fastvideo_core.app.processes import check_processes
from fastvideo_core.app.prompts import check_prompt
from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.discovery.environment import normalize_asked
from fastvideo_core.discovery.plugins import CORE_DISTRIBUTION, load_plugins
from fastvideo_core.engine.asked import parse_asked
from fastvideo_core.engine.attention.choice import choose_attention
from fastvideo_core.engine.attention.resolve import Resolution
from fastvideo_core.engine.caching.choice import choose_policy, prepare_policy
from fastvideo_core.engine.machine import name_of, versions_of
from fastvideo_core.engine.plugin_calls import check_grid
from fastvideo_core.errors import InputError

NO_CACHE = "none"


@dataclass(frozen=True)
class Combination:
    """An attention backend and a caching policy, as they were written."""

    attention: str
    cache: str

    @property
    def title(self) -> str:
        """For tables."""
        return self.attention if self.cache == NO_CACHE else f"{self.attention} + {self.cache}"

    @property
    def file_name(self) -> str:
        """For files."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", f"{self.attention}-{self.cache}").strip("-")


@dataclass(frozen=True)
class Sample:
    """A prompt, its number, and a seed."""

    number: int
    prompt: str
    seed: int


@dataclass(frozen=True)
class Setup:
    """All that a bench measures; the first combination is the plain one, which the others are held against.

    Attributes:
        sampling: sampling parameters that differ from the model's preset.
        loading: keywords of `VideoGenerator.from_pretrained`.
        machine: the device, its name, the dtype and the versions of what computes.
        details: for each backend and each policy, as they were written, what serves and with which settings.
        settings: by name of a backend or policy, settings beside those that its text gives.
    """

    info: ModelInfo
    combinations: tuple[Combination, ...]
    samples: tuple[Sample, ...]
    sampling: dict[str, Any]
    loading: dict[str, Any]
    machine: dict[str, Any]
    details: dict[str, dict[str, Any]]
    settings: dict[str, dict[str, Any]]

    @property
    def plain(self) -> Combination:
        return self.combinations[0]

    def of_attention(self) -> Iterator[tuple[str, list[Combination]]]:
        """The combinations of each backend."""
        for attention in dict.fromkeys(one.attention for one in self.combinations):
            yield attention, [one for one in self.combinations if one.attention == attention]

    def describe(self) -> dict[str, Any]:
        """What must be the same when a bench is resumed."""
        return {
            "model": self.info.name,
            "plain": self.plain.title,
            "sampling": self.sampling,
            "loading": self.loading,
            "machine": self.machine,
        }

    def settings_of(self, asked: str) -> dict[str, Any]:
        """The settings for a backend or policy, as it was written."""
        return self.settings.get(parse_asked(asked, "")[0], {})


def prepare(
    model: str,
    prompts: Sequence[str],
    seeds: Sequence[int],
    attention: str,
    cache: str,
    sampling: dict[str, Any],
    loading: dict[str, Any],
    settings: dict[str, dict[str, Any]],
) -> Setup:
    """Check everything that can be checked before a weight is loaded.

    Args:
        attention, cache: lists separated by commas; of the first backend without caching is the plain one.

    Raises:
        ModelError, BackendError, CacheError, InputError: something does not exist, fit, or run here.
    """
    plugins = load_plugins()
    info = read_model(plugins, model)
    params = SamplingParam.from_preset(info.preset).with_overrides(**sampling)
    for seed in (seeds[0], seeds[-1] + len(prompts) - 1):
        replace(params, seed=seed).check(info)
    device = check_device(loading.get("device"))
    dtype = check_dtype(loading.get("dtype"), device)
    check_processes(loading.get("num_gpus", 1), loading.get("num_processes", 1), device)
    needs = info.family.needs(info.transformer, dtype, torch.device(device))
    if loading.get("compile"):
        check_compile(info, device, dit_cpu_offload=False)
    backends = [normalize_asked(name) or name for name in split_list(attention, "--attention")]
    details = {}
    for name in backends:
        config = settings.get(parse_asked(name, "--attention")[0])
        chosen_backends = choose_attention(plugins, name, needs, config)[1].values()
        check_grid([one.backend for one in chosen_backends], params.grid(info))
        details[name] = _details_of_backend(chosen_backends)
    policies = split_list(cache, "--cache")
    for asked in policies:
        if chosen := choose_policy(plugins, asked, settings.get(parse_asked(asked, "--cache")[0])):
            used = prepare_policy(chosen.policy, info.cached_model).settings_used()
            details[asked] = {"distribution": chosen.distribution, "settings": used}
    check_memory(params, info, device, dtype)
    ordered = dict.fromkeys([NO_CACHE, *(NO_CACHE if one.lower() == NO_CACHE else one for one in policies)])
    samples = [
        Sample(number, check_prompt(prompt), seed + number) for number, prompt in enumerate(prompts) for seed in seeds
    ]
    combinations = tuple(Combination(name, policy) for name in dict.fromkeys(backends) for policy in ordered)
    machine = {
        "device": device,
        "name": name_of(device),
        "dtype": str(dtype).removeprefix("torch."),
        "versions": versions_of({CORE_DISTRIBUTION}),
    }
    return Setup(info, combinations, tuple(samples), sampling, loading, machine, details, settings)


def _details_of_backend(chosen: Iterable[Resolution]) -> dict[str, Any]:
    """What serves each role, of which distribution, and with which settings."""
    return {
        one.role.value: {
            "backend": one.backend.name,
            "distribution": one.plugin.label,
            "kernel": f"{one.probe.kernel} {one.probe.version}",
            "settings": {name: str(value) for name, value in one.backend.settings_used().items()},
        }
        for one in chosen
    }


def split_list(text: str, option: str) -> list[str]:
    """Parts between commas that are not within brackets, nor within a value such as 3,3,3: no name begins so.

    Raises:
        InputError: a part is empty.
    """
    parts = [part.strip() for part in re.split(r",(?![^\[]*\])(?!\s*[-+.\d])", text)]
    if not all(parts):
        raise InputError(f"{option} {text!r} has an empty entry; write names separated by commas")
    return parts
