"""A CPU platform for verl, whose registry has none."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry, set_platform


def _peak_bytes(*_: Any) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _reset_peak(*_: Any) -> None:
    """Resets the high-water mark to the current resident set (proc(5)); no effect in kernels
    without clear_refs.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _free_and_total_bytes(*_: Any) -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def _nothing(*_: Any, **__: Any) -> None:
    return None


# The functions that verl calls on torch.cuda, for the host; memory is the process's resident set.
_DEVICE_MODULE = ModuleType("host")
vars(_DEVICE_MODULE).update(
    {name: getattr(torch.cpu, name) for name in torch.cpu.__all__}
    | dict.fromkeys(("set_device", "empty_cache", "ipc_collect"), _nothing)
    | dict.fromkeys(
        ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"),
        _peak_bytes,
    )
    | {
        "reset_peak_memory_stats": _reset_peak,
        "get_device_name": lambda *_: "CPU",
        "mem_get_info": _free_and_total_bytes,
        "manual_seed": torch.manual_seed,
        "manual_seed_all": torch.manual_seed,
        "get_rng_state": torch.get_rng_state,
        "set_rng_state": torch.set_rng_state,
    }
)


@PlatformRegistry.register("cpu")
class CpuPlatform(PlatformBase):
    """The host processor, with gloo between ranks."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _DEVICE_MODULE

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Any:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "CPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> Any:
        return None


def use(device: str) -> None:
    """Makes verl run on ``device``. Call it before any other import of verl."""
    if device == "cpu":
        set_platform(CpuPlatform())
