"""What a call of the generator asks of caching, in FastVideo's words or in ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from fastvideo_core.app.known_fields import check_flags
from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.contract.caching import CachedModel, CachePolicy
from fastvideo_core.contract.reading import shown
from fastvideo_core.contract.settings import Config
from fastvideo_core.engine.asked import CACHE, parse_asked
from fastvideo_core.errors import InputError

TEACACHE = "TEACACHE"

FASTVIDEO_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "Wan2.1-T2V-1.3B": {"threshold": 0.08, "use_ret_steps": True},
    "Wan2.1-T2V-14B": {"threshold": 0.2, "use_ret_steps": False},
    "Wan2.1-I2V-14B-480P": {"threshold": 0.26, "use_ret_steps": True},
    "Wan2.1-I2V-14B-720P": {"threshold": 0.3, "use_ret_steps": True},
}
"""Settings of TeaCache that FastVideo v0.1.7 has for a checkpoint, in fastvideo/v1/configs/sample/wan.py."""


@dataclass(frozen=True)
class CacheRequest:
    """A caching policy and its settings, as a call gives them.

    Attributes:
        cache, config: as `attach` takes them.
        as_fastvideo: whether it was asked for by `enable_teacache=True`.
    """

    cache: str | CachePolicy | None
    config: Config
    as_fastvideo: bool

    @classmethod
    def of(cls, enable_teacache: bool, cache: str | CachePolicy | None, config: Config) -> Self:
        """What the arguments ask for together.

        Raises:
            InputError: they ask for different policies.
        """
        check_flags(enable_teacache=enable_teacache)
        if not enable_teacache:
            return cls(cache, config, False)
        if cache is None or (isinstance(cache, str) and not cache.strip()):
            return cls(TEACACHE, config, True)
        name = parse_asked(cache, CACHE)[0] if isinstance(cache, str) else getattr(cache, "name", None)
        if name != TEACACHE:
            raise InputError(
                f"enable_teacache=True asks for {TEACACHE}, cache={shown(cache)} for something else; give one of them"
            )
        return cls(cache, config, True)

    def defaults(self, params: SamplingParam, model: CachedModel) -> dict[str, dict[str, Any]]:
        """Per policy, settings that count where the request does not give them."""
        known = FASTVIDEO_PRESETS.get(model.checkpoint.removesuffix("-Diffusers"), {}) if self.as_fastvideo else {}
        return {TEACACHE: {**known, **params.teacache_params.settings()}}
