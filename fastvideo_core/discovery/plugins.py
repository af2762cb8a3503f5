"""Find, load, list and switch off plugins; one that is broken never takes down another."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from fastvideo_core.contract import hookspecs
from fastvideo_core.contract.attention import AttentionBackend
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.contract.executor import Executor
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.contract.preset import ModelPreset
from fastvideo_core.discovery.distributions import Found, entry_points_of
from fastvideo_core.discovery.environment import Settings, normalize_plugin_name, read_settings
from fastvideo_core.discovery.managers import manager_of
from fastvideo_core.discovery.metadata import installed_version
from fastvideo_core.discovery.printable import explain
from fastvideo_core.discovery.provided import (
    CONTENTS,
    check_commands,
    checked_backend,
    checked_executor,
    checked_family,
    checked_policy,
    checked_preset,
)
from fastvideo_core.discovery.time_limit import Load, load_each_within, load_within
from fastvideo_core.errors import DuplicateProviderError, PluginError

if TYPE_CHECKING:
    import click

CORE_DISTRIBUTION = "fastvideo-core"

BUILTIN = {
    "torch-sdpa": "fastvideo_core.builtin.torch_sdpa",
    "wan": "fastvideo_core.builtin.models.wan",
    "wan-vace": "fastvideo_core.builtin.models.wan_vace",
    "wan-animate": "fastvideo_core.builtin.models.wan_animate",
    "skyreels-v2": "fastvideo_core.builtin.models.skyreels_v2",
    "chronoedit": "fastvideo_core.builtin.models.chronoedit",
    "hunyuan-video": "fastvideo_core.builtin.models.hunyuan_video",
    "hunyuan-video-1.5": "fastvideo_core.builtin.models.hunyuan_video15",
    "framepack": "fastvideo_core.builtin.models.framepack",
    "ltx-video": "fastvideo_core.builtin.models.ltx_video",
    "ltx-2": "fastvideo_core.builtin.models.ltx2",
    "cogvideox": "fastvideo_core.builtin.models.cogvideox",
    "allegro": "fastvideo_core.builtin.models.allegro",
    "mochi": "fastvideo_core.builtin.models.mochi",
    "local-processes": "fastvideo_core.builtin.local_processes",
    "kandinsky5": "fastvideo_core.builtin.models.kandinsky5",
    "cosmos": "fastvideo_core.builtin.models.cosmos",
    "helios": "fastvideo_core.builtin.models.helios",
    "easyanimate": "fastvideo_core.builtin.models.easyanimate",
    "wan-presets": "fastvideo_core.builtin.presets.wan",
    "hunyuan-video-presets": "fastvideo_core.builtin.presets.hunyuan_video",
    "ltx-video-presets": "fastvideo_core.builtin.presets.ltx_video",
    "cogvideox-presets": "fastvideo_core.builtin.presets.cogvideox",
    "mochi-presets": "fastvideo_core.builtin.presets.mochi",
    "skyreels-v2-presets": "fastvideo_core.builtin.presets.skyreels_v2",
    "kandinsky5-presets": "fastvideo_core.builtin.presets.kandinsky5",
    "cosmos-presets": "fastvideo_core.builtin.presets.cosmos",
    "chronoedit-presets": "fastvideo_core.builtin.presets.chronoedit",
    "helios-presets": "fastvideo_core.builtin.presets.helios",
    "progress-bar": "fastvideo_core.builtin.progress_bar",
}
"""The plugins that come with the core, and their modules: as text, so that discovery imports nothing above it."""


@dataclass
class Plugin:
    """One entry point of group `fastvideo`, loaded or not.

    Attributes:
        name: the entry point's name.
        distribution: the package that brings it, and its `version`.
        status: "loaded", "disabled" or "broken".
        backends: the attention backends that it provides.
        policies: the classes of the caching policies that it provides.
        families: the model families that it provides.
        presets: the model presets that it provides.
        executors: the classes of the executors that it provides.
        error: if broken, why.
    """

    name: str
    distribution: str
    version: str
    status: Literal["loaded", "disabled", "broken"] = "loaded"
    backends: list[AttentionBackend] = field(default_factory=list)
    policies: list[type[CachePolicy]] = field(default_factory=list)
    families: list[ModelFamily] = field(default_factory=list)
    presets: list[ModelPreset] = field(default_factory=list)
    executors: list[type[Executor]] = field(default_factory=list)
    error: Exception | None = None
    manager: pluggy.PluginManager | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """Distribution and version, as messages name it."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def provides(self) -> list[str]:
        """Names of everything that the plugin brings."""
        return [
            thing.name
            for things in (self.backends, self.policies, self.families, self.presets, self.executors)
            for thing in things
        ]

    @property
    def watches(self) -> bool:
        """Whether it is told of generations."""
        return self.manager is not None and any(
            hook.get_hookimpls()
            for name, hook in vars(self.manager.hook).items()
            if name.startswith(("fastvideo_generation_", "fastvideo_step_"))
        )

    @property
    def cause(self) -> str | None:
        """The error in one line."""
        return explain(self.error) if self.error else None


class Plugins:
    """All plugins of this process, each looked at once."""

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.all = list(plugins)

    @property
    def loaded(self) -> list[Plugin]:
        return [plugin for plugin in self.all if plugin.status == "loaded"]

    @property
    def broken(self) -> list[Plugin]:
        return [plugin for plugin in self.all if plugin.status == "broken"]

    def with_backend(self, backend: AttentionBackend, provider: str) -> Plugins:
        """These and a backend that nothing has to be installed for, in the place of any other of its name."""
        own = Plugin(provider, provider, "", backends=[backend])
        others = [
            replace(plugin, backends=[one for one in plugin.backends if one.name != backend.name])
            for plugin in self.all
        ]
        return Plugins([*others, own])

    def backend_names(self) -> list[str]:
        """Names of all installed attention backends, sorted."""
        return sorted({backend.name for plugin in self.loaded for backend in plugin.backends})

    def backend(self, name: str) -> tuple[AttentionBackend, Plugin]:
        """The backend of that name and its plugin.

        Raises:
            KeyError: no plugin provides it.
            DuplicateProviderError: more than one does.
        """
        return _only(
            "attention backend",
            name,
            [(b, plugin) for plugin in self.loaded for b in plugin.backends if b.name == name],
        )

    def policy_names(self) -> list[str]:
        """Names of all installed caching policies, sorted."""
        return sorted({policy.name for plugin in self.loaded for policy in plugin.policies})

    def policy(self, name: str) -> tuple[type[CachePolicy], Plugin]:
        """The class of the caching policy of that name and its plugin; raises as `backend` does."""
        return _only(
            "caching policy", name, [(p, plugin) for plugin in self.loaded for p in plugin.policies if p.name == name]
        )

    def with_family(self, family: ModelFamily, provider: str) -> Plugins:
        """These and a model family that need not be installed, in the place of any other of its transformer."""
        own = Plugin(provider, provider, "", families=[family])
        others = [
            replace(plugin, families=[one for one in plugin.families if one.transformer != family.transformer])
            for plugin in self.all
        ]
        return Plugins([*others, own])

    def families(self) -> list[ModelFamily]:
        """All installed model families, sorted by the name of their transformer's class."""
        every = [family for plugin in self.loaded for family in plugin.families]
        return sorted(every, key=lambda family: family.transformer)

    def family(self, transformer: str) -> tuple[ModelFamily, Plugin]:
        """The model family of a transformer's class, by its name, and its plugin; raises as `backend` does."""
        return _only(
            "model family of",
            transformer,
            [(f, plugin) for plugin in self.loaded for f in plugin.families if f.transformer == transformer],
        )

    def preset_names(self) -> list[str]:
        """Names of all installed model presets, sorted."""
        return sorted({preset.name for plugin in self.loaded for preset in plugin.presets})

    def preset(self, name: str) -> tuple[ModelPreset, Plugin]:
        """The model preset of that name and its plugin; raises as `backend` does."""
        return _only(
            "model preset", name, [(p, plugin) for plugin in self.loaded for p in plugin.presets if p.name == name]
        )

    def executor_names(self) -> list[str]:
        """Names of all installed executors, sorted."""
        return sorted({executor.name for plugin in self.loaded for executor in plugin.executors})

    def executor(self, name: str) -> tuple[type[Executor], Plugin]:
        """The class of the executor of that name and its plugin; raises as `backend` does."""
        return _only(
            "executor", name, [(e, plugin) for plugin in self.loaded for e in plugin.executors if e.name == name]
        )

    def register_commands(self, cli: click.Group) -> None:
        """Let every plugin add subcommands; one that fails becomes broken, and adds none."""
        seconds = read_settings().plugin_timeout
        for plugin in self.loaded:
            before = dict(cli.commands)
            try:
                load_within(seconds, partial(_add_commands, plugin, cli), (plugin.label, plugin.name, "commands"))
            except Exception as error:
                plugin.status, plugin.error = "broken", error
                cli.commands.clear()
                cli.commands.update(before)


def _only(kind: str, name: str, found: list[tuple[Any, Plugin]]) -> tuple[Any, Plugin]:
    if not found:
        raise KeyError(name)
    if len(found) > 1:
        labels = " and ".join(plugin.label for _, plugin in found)
        raise DuplicateProviderError(
            f"the {kind} {name} is provided by {labels}; uninstall one of them, or set "
            f"FASTVIDEO_DISABLE_PLUGINS={found[-1][1].distribution}"
        )
    return found[0]


_loading = threading.Lock()


def load_plugins() -> Plugins:
    """Discover and load every plugin that is installed now and not switched off; in one thread at a time."""
    with _loading:
        return _load_all()


def _load_all() -> Plugins:
    version_here, settings = own_version(), read_settings()
    own = [Plugin(name, CORE_DISTRIBUTION, version_here) for name in BUILTIN]
    for plugin in own:
        _register(plugin, import_module(BUILTIN[plugin.name]))
    return Plugins([*own, *_load_installed(entry_points_of(hookspecs.PROJECT), settings)])


def own_version() -> str:
    """The version of fastvideo-core; "unknown" when it runs from a source tree that is not installed."""
    try:
        return installed_version(CORE_DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def _load_installed(every: list[Found], settings: Settings) -> list[Plugin]:
    plugins = [Plugin(found.name, found.distribution, found.version) for found in every]
    loading: dict[int, Plugin] = {}
    loads: list[Load] = []
    for number, (plugin, found) in enumerate(zip(plugins, every, strict=True)):
        names = {normalize_plugin_name(plugin.name), normalize_plugin_name(plugin.distribution), "*"}
        if names & settings.disabled_plugins:
            plugin.status = "disabled"
        elif found.entry_point is None:
            plugin.status, plugin.error = "broken", found.error
        else:
            loading[number] = copy(plugin)  # one that is stuck goes on with what nobody looks at
            loads.append((found.entry_point, partial(_import, loading[number], found.entry_point)))
    problems = load_each_within(settings.plugin_timeout, loads)
    for (number, plugin), problem in zip(loading.items(), problems, strict=True):
        if problem is None:
            plugins[number] = plugin
        else:
            plugins[number].status, plugins[number].error = "broken", problem
    return plugins


def _import(plugin: Plugin, point: EntryPoint) -> None:
    _register(plugin, point.load())


def _register(plugin: Plugin, module: ModuleType) -> None:
    """Validate the module against the contract and collect what it provides; raises on anything unexpected."""
    stated = getattr(module, "api_version", None)
    if stated != hookspecs.API_VERSION:
        raise PluginError(
            f"{module.__name__} states api_version {stated!r}, this fastvideo-core ({own_version()}) has "
            f"{hookspecs.API_VERSION}; install matching versions of {plugin.distribution} and {CORE_DISTRIBUTION}"
        )
    plugin.manager = manager_of(module, plugin.name)
    plugin.backends = [checked_backend(one) for one in _collect(plugin, "fastvideo_attention_backends")]
    plugin.policies = [checked_policy(one) for one in _collect(plugin, "fastvideo_cache_policies")]
    plugin.families = [checked_family(one) for one in _collect(plugin, "fastvideo_model_families")]
    plugin.presets = [checked_preset(one) for one in _collect(plugin, "fastvideo_model_presets")]
    plugin.executors = [checked_executor(one) for one in _collect(plugin, "fastvideo_executors")]


def _collect(plugin: Plugin, hook: str) -> list[Any]:
    """What the hook returns, which must be a list."""
    results: list[Any] = []
    for result in getattr(_hook(plugin), hook)():
        if not isinstance(result, list):
            raise PluginError(f"{hook} must return a list of {CONTENTS[hook]}, not {result!r}")
        results += result
    return results


def _add_commands(plugin: Plugin, cli: click.Group) -> None:
    _hook(plugin).fastvideo_register_commands(cli=cli)
    check_commands(cli)


def _hook(plugin: Plugin) -> Any:
    if plugin.manager is None:
        raise PluginError(f"{plugin.label} is not loaded")
    return plugin.manager.hook
