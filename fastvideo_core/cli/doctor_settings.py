"""What `fv doctor` tells of settings: for backends and policies alike."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from fastvideo_core.contract.attention import AttentionBackend
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.contract.reading import as_text
from fastvideo_core.contract.settings import Config, Owner, Requested, declared_settings
from fastvideo_core.discovery.environment import VARIABLES
from fastvideo_core.discovery.plugins import Plugins
from fastvideo_core.engine.asked import Asked, asked_backend, asked_policy
from fastvideo_core.engine.attention.answers import ask
from fastvideo_core.errors import PluginError


@dataclass(frozen=True)
class Question:
    """What the doctor is asked about: as `fv generate` takes it, and as the environment has it.

    Attributes:
        attention_backend, cache: as the options of these names; None: by the environment.
        attention_config, cache_config: what --set gives for them.
    """

    attention_backend: str | None = None
    cache: str | None = None
    attention_config: Config = None
    cache_config: Config = None

    def backend(self) -> Asked:
        """The backend that is asked for; raises InputError, as the next ones do."""
        return asked_backend(self.attention_backend)

    def policy(self) -> Asked:
        """The caching policy that is asked for."""
        return asked_policy(self.cache)

    def prepare(self, backend: AttentionBackend) -> None:
        """Give a backend its settings: those that were asked for, if it is the one, else by its own variables."""
        asked = self.backend()
        chosen = backend.name == asked.name
        requested = asked.with_config(self.attention_config, "attention_config") if chosen else Requested()
        backend.take_settings(requested=requested)

    def make(self, kind: type[CachePolicy]) -> CachePolicy:
        """A policy of a kind with its settings, as `prepare`."""
        asked = self.policy()
        chosen = kind.name == asked.name
        requested = asked.with_config(self.cache_config, "cache_config") if chosen else Requested()
        return kind.from_settings(requested=requested)


def settings_of(owner: AttentionBackend | CachePolicy) -> Iterator[str]:
    """Each setting with its value here, where that comes from, and what it does."""
    values = owner.settings_used()
    for one in declared_settings(owner):
        ways = f"{one.variable}, {owner.name}@VALUE" if one.name == owner.main_setting else one.variable
        origin = owner.origin_of(one.name) if owner.was_given(one.name) else f"default; {ways}"
        yield f"      {one.name} = {as_text(values[one.name])} ({origin}): {one.help}"


def unread_variables(found: Plugins) -> Iterator[str]:
    """Variables that begin as ours do and that nothing reads."""
    owners: list[Owner] = [backend for plugin in found.loaded for backend in plugin.backends]
    owners += [policy for plugin in found.loaded for policy in plugin.policies]
    known = {*VARIABLES}
    for owner in owners:
        with suppress(PluginError):  # reported as a problem
            known |= {one.variable for one in ask("list of settings", lambda: declared_settings(owner), list)}  # noqa: B023  # asked at once
    for name in sorted(name for name in os.environ if name.startswith("FASTVIDEO_") and name not in known):
        close = difflib.get_close_matches(name, known, n=1)
        yield f"{name} is read by nothing that is installed" + (f"; did you mean {close[0]}?" if close else "")
