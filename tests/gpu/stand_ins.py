"""Stands in for packages that verl imports and that training on one device never calls, where they
are missing.

Ray's wheel is larger than all that a bare machine needs. verl's modules decorate, annotate and
derive from its names, so each name exists: a lower-case one as a module, another as a class.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGES = ("ray", "uvicorn", "fastapi")


class StandIn(ModuleType):
    """A module in which every name exists."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.islower():
            return importlib.import_module(f"{self.__name__}.{name}")
        return type(name, (), {})

    @staticmethod
    def remote(*things: Any, **_: Any) -> Any:
        """Ray's decorator, with options and without."""
        return things[0] if things else StandIn.remote


class Finder(MetaPathFinder, Loader):
    """The last to be asked: it answers for what no one else has."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return (
            ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in PACKAGES else None
        )

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def install() -> None:
    """Adds the finder to this process."""
    sys.meta_path.append(Finder())
