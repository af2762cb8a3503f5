"""What is to be measured: every attention backend with every caching policy by every number of processes."""

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
from fastvideo_core.engine.parallel.shareable import check_degrees
from fastvideo_core.engine.plugin_calls import check_grid
from fastvideo_core.errors import InputError

NO_CACHE = "none"


@dataclass(frozen=True)
class Combination:
    """An attention backend and a caching policy, as they were written, and how many processes make a video."""

    attention: str
    cache: str
    processes: int = 1

    @property
    def title(self) -> str:
        """For tables."""
        name = self.attention if self.cache == NO_CACHE else f"{self.attention} + {self.cache}"
        return f"{name}, {self.loaded.processes_in_words}" if self.processes > 1 else name

    @property
    def file_name(self) -> str:
        """For files."""
        name = f"{self.attention}-{self.cache}"
        name = f"{name}-{self.loaded.processes_in_words}" if self.processes > 1 else name
        return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")

    @property
    def loaded(self) -> Loaded:
        """What it shares with other policies."""
        return Loaded(self.attention, self.processes)


@dataclass(frozen=True)
class Loaded:
    """What one generator serves: an attention backend, in that many processes."""

    attention: str
    processes: int

    @property
    def key(self) -> str:
        """For files."""
        return f"{self.attention}, {self.processes_in_words}" if self.processes > 1 else self.attention

    @property
    def processes_in_words(self) -> str:
        return f"{self.processes} processes"


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
        loading: keywords of `VideoGenerator.from_pretrained`, but for those that differ between combinations.
        machine: the device, its name, the dtype and the versions of what computes.
        details: for each backend and each policy, as they were written, what serves and with which settings.
        settings: by name of a backend or policy, settings beside those that its text gives.
        counted: the keyword that takes the number of processes.
    """

    info: ModelInfo
    combinations: tuple[Combination, ...]
    samples: tuple[Sample, ...]
    sampling: dict[str, Any]
    loading: dict[str, Any]
    machine: dict[str, Any]
    details: dict[str, dict[str, Any]]
    settings: dict[str, dict[str, Any]]
    counted: str = "num_gpus"

    @property
    def plain(self) -> Combination:
        return self.combinations[0]

    def of_generator(self) -> Iterator[tuple[list[Loaded], list[Combination]]]:
        """What a generator serves, for one generator after the other.

        In one process that is all backends; several processes keep the one that they began with.
        """
        groups: dict[Loaded | None, list[Combination]] = {}
        for one in self.combinations:
            groups.setdefault(one.loaded if one.processes > 1 else None, []).append(one)
        for combinations in groups.values():
            yield list(dict.fromkeys(one.loaded for one in combinations)), combinations

    def loading_of(self, loaded: Loaded) -> dict[str, Any]:
        """All keywords of `VideoGenerator.from_pretrained` for it."""
        shared = {self.counted: loaded.processes} if loaded.processes > 1 else {}
        return {
            "attention_backend": loaded.attention,
            "attention_config": self.settings_of(loaded.attention),
            **self.loading,
            **shared,
        }

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
    num_gpus: Sequence[int] = (1,),
    num_processes: Sequence[int] = (1,),
) -> Setup:
    """Check everything that can be checked before a weight is loaded.

    Args:
        attention, cache: lists separated by commas; of the first backend without caching is the plain one.
        num_gpus, num_processes: by how many each video is made; the smallest is the plain one's.

    Raises:
        ModelError, BackendError, CacheError, InputError: something does not exist, fit, or run here.
        ParallelError: several processes cannot share the model.
    """
    plugins = load_plugins()
    info = read_model(plugins, model)
    params = SamplingParam.from_preset(info.preset).with_overrides(**sampling)
    for seed in (seeds[0], seeds[-1] + len(prompts) - 1):
        replace(params, seed=seed).check(info)
    device = check_device(loading.get("device"))
    dtype = check_dtype(loading.get("dtype"), device)
    counted, counts = _counts(num_gpus, num_processes, device)
    if counts[-1] > 1:
        check_degrees(info.family, None)
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
    combinations = tuple(
        Combination(name, policy, number) for name in dict.fromkeys(backends) for number in counts for policy in ordered
    )
    machine = {
        "device": device,
        "name": name_of(device),
        "dtype": str(dtype).removeprefix("torch."),
        "versions": versions_of({CORE_DISTRIBUTION}),
    }
    return Setup(info, combinations, tuple(samples), sampling, loading, machine, details, settings, counted)


def _counts(num_gpus: Sequence[int], num_processes: Sequence[int], device: str) -> tuple[str, list[int]]:
    """The keyword that takes the number of processes, and the numbers, the smallest first.

    Raises:
        InputError: there are fewer GPUs, or both differ from 1.
    """
    given = {"num_gpus": num_gpus, "num_processes": num_processes}
    several = [name for name, numbers in given.items() if list(numbers) != [1]]
    if len(several) > 1:
        raise InputError(
            f"--num-gpus is {_listed(num_gpus)} and --num-processes {_listed(num_processes)}: there is a process for "
            "each GPU; give --num-gpus, or --num-processes with --device cpu"
        )
    counted = several[0] if several else "num_gpus"
    counts = sorted(set(given[counted]))
    for number in counts:
        alone = {"num_gpus": 1, "num_processes": 1, counted: number}
        check_processes(alone["num_gpus"], alone["num_processes"], device)
    return counted, counts


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


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


def split_numbers(text: str, option: str) -> list[int]:
    """Whole numbers from 1 on, between commas.

    Raises:
        InputError: a part is none.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not re.fullmatch(r"0*[1-9][0-9]{0,5}", part):
            raise InputError(f"{option} {text!r}: {part!r} is no whole number from 1 on; write such as {option} 1,2,4")
    return [int(part) for part in parts]
