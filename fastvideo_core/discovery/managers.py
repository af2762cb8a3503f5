"""A pluggy manager for each plugin: its validation and every hook call then concern that plugin alone."""

from __future__ import annotations

from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import pluggy

from fastvideo_core.contract import hookspecs
from fastvideo_core.errors import PluginError

_SPECIFICATIONS = ModuleType(hookspecs.__name__, hookspecs.__doc__)
"""The hooks without what their module imports: pluggy inspects each name of it anew for each plugin."""
vars(_SPECIFICATIONS).update({name: one for name, one in vars(hookspecs).items() if hasattr(one, "fastvideo_spec")})

_FUNCTIONS = frozenset({FunctionType, BuiltinFunctionType, MethodType})


@dataclass(frozen=True)
class _Made:
    """A manager, and the functions that the module had when it was made."""

    module: ModuleType
    functions: dict[str, Any]
    manager: pluggy.PluginManager


_made: dict[tuple[str, str], _Made] = {}


def manager_of(module: ModuleType, name: str) -> pluggy.PluginManager:
    """The manager that a module is registered with under that name; the same while the module has the same functions.

    Raises:
        PluginError: it implements no hook.
        Exception: what pluggy raises of hooks that it does not know, or whose arguments are others.
    """
    functions = {key: one for key, one in vars(module).items() if type(one) in _FUNCTIONS}
    made = _made.get((module.__name__, name))
    if made is None or made.module is not module or not _same(made.functions, functions):
        made = _made[module.__name__, name] = _Made(module, functions, _registered(module, name))
    return made.manager


def _same(before: dict[str, Any], now: dict[str, Any]) -> bool:
    return before.keys() == now.keys() and all(now[key] is one for key, one in before.items())


def _registered(module: ModuleType, name: str) -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(_SPECIFICATIONS)
    manager.register(module, name)
    manager.check_pending()
    if not manager.get_hookcallers(module):
        raise PluginError(f"{module.__name__} implements no hook; mark its functions with fastvideo_core.hookimpl")
    return manager
