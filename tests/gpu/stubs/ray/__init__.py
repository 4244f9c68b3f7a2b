"""Stands in for ray on a machine without it: verl imports ray in modules that training on one device never calls.

Names exist so that decorators, annotations and base classes can be read; nothing works.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import Any


class _Nothing(type):
    """A class whose attributes are such classes again, and which gives a decorated thing back."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing(name, (), {})


def remote(*things: Any, **_: Any) -> Any:
    """Gives the decorated class or function back."""
    return things[0] if things else remote


def is_initialized() -> bool:
    return False


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Nothing(name, (), {})


class _Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``ray.anything`` as an empty module with the same answer to every name."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if not name.startswith(f"{__name__}."):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        module = ModuleType(spec.name)
        vars(module)["__getattr__"] = __getattr__
        return module

    def exec_module(self, module: ModuleType) -> None:
        return None


sys.meta_path.append(_Submodules())
