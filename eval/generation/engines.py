"""vLLM engines as Ray actors: places, starts and stops them, and yields their answers as they
arrive.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError, first_line
from common.records import Key
from eval.generation import vllm_actor
from eval.generation.settings import EngineSettings

START, BEAT = "start", "beat"
"""Requests to an engine besides rollouts."""


def placement(nodes: Sequence[int], settings: EngineSettings) -> tuple[int, int]:
    """Returns the number of engines, and the GPUs or cores per engine; ``nodes`` has the GPUs or
    cores of each node.

    An engine runs on one node. If the number of engines is not set, as many start as fit: on GPUs
    one per tensor-parallel group, on CPUs one per node. Raises UserError when fewer fit than are
    set.
    """
    engines, tensor_parallel = settings.count, settings.tensor_parallel
    on_gpus = settings.device == "cuda"
    kind = "GPUs" if on_gpus else "cores"
    if on_gpus:
        fit, share = sum(there // tensor_parallel for there in nodes), tensor_parallel
    else:
        fit = engines or len(nodes)
        shares = [
            s for s in range(1, max(nodes, default=0) + 1) if sum(n // s for n in nodes) >= fit
        ]
        share = max(shares, default=0)
    if fit < max(1, engines or 1) or not share:
        raise UserError(
            f"eval.engines={engines or 'null'} with eval.tensor_parallel={tensor_parallel} does "
            f"not fit: Ray's nodes have {'+'.join(map(str, nodes)) or '0'} {kind}. Lower the values"
            + (", or set device=cpu" if on_gpus else "")
        )
    return engines or fit, share


class Fleet:
    """Engines by name, each an actor in its own process, and the requests that they have not
    answered yet.
    """

    def __init__(self, ray: Any, create: Callable[[str], Any]) -> None:
        """``create`` starts the actor of a name."""
        self._ray, self._create = ray, create
        self._actors: dict[str, Any] = {}
        self._asked: dict[Any, tuple[str, Key | str]] = {}

    def start(self, name: str) -> None:
        """Starts a new actor with that name, which begins to load the model."""
        self._actors[name] = self._create(name)
        self._asked[self._actors[name].start.remote()] = (name, START)

    def ask(self, name: str, key: Key, prompt: list[int], seed: int, late: bool) -> None:
        """Requests a rollout."""
        self._asked[self._actors[name].generate.remote(key, prompt, seed, late)] = (name, key)

    def beat(self, name: str) -> None:
        """Requests the token counts of an engine's rollouts, unless an earlier request is still
        open.
        """
        if (name, BEAT) not in self._asked.values():
            self._asked[self._actors[name].beat.remote()] = (name, BEAT)

    def stop(self, name: str) -> None:
        """Kills an engine, whether it is dead or not, and drops its open requests."""
        self._asked = {ref: asked for ref, asked in self._asked.items() if asked[0] != name}
        self._ray.kill(self._actors.pop(name))

    def answers(self, seconds: float) -> Iterator[tuple[str, Key | str, Any]]:
        """Yields (engine, request, answer) for each request that is answered within ``seconds``;
        the answer is an exception when the engine or its actor has failed.
        """
        self._ray.wait(list(self._asked), timeout=seconds)
        ready, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        for ref in ready:
            if ref not in self._asked:
                continue  # its engine was stopped in the meantime
            name, what = self._asked.pop(ref)
            try:
                yield name, what, self._ray.get(ref)
            except self._ray.exceptions.RayError as e:
                yield name, what, e


def reason(error: Any) -> str:
    """Returns the last line of a failure's message, shortened: the other lines of Ray's messages
    are guesses at the cause.
    """
    return textwrap.shorten((str(error).strip().splitlines() or [first_line(error)])[-1], 120)


def creator(
    ray: Any,
    settings: EngineSettings,
    share: int,
    log: Callable[[str], Path],
    *arguments: Any,
) -> Callable[[str], Any]:
    """Returns the function that starts the actor with a given name on ``share`` GPUs or cores;
    ``arguments`` are those of ``Engine`` after name and log.
    """
    kind = "num_gpus" if settings.device == "cuda" else "num_cpus"
    variables = vllm_actor.environment(settings.device, share, settings.tensor_parallel)
    remote = ray.remote(vllm_actor.Engine).options(
        **{kind: share},
        max_concurrency=10_000,  # the scheduler limits the requests per engine
        runtime_env={"env_vars": variables},
    )
    return lambda name: remote.remote(name, log(name), *arguments)
