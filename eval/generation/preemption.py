"""Which rollout waits when an engine's key-value cache is full: of the late ones that with the most tokens.

Stock vLLM has the one wait that came last, until another one ends; in the end that one goes on alone after all others.
Late rollouts take turns, and end together. While more are to come, turns only cost: what goes on after waiting is read
in again.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler

from eval.generation.vllm_actor import EARLY


class TakingTurns(Scheduler):
    """vLLM's scheduler (``scheduler_cls``, ``scheduling_policy=priority``); the highest priority has to wait."""

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """Schedules one step."""
        for request in self.running:
            if request.priority < EARLY:
                request.priority = request.num_tokens
        return super().schedule(*args, **kwargs)


class AsyncTakingTurns(TakingTurns, AsyncScheduler):
    """The same where vLLM schedules a step while the one before it runs."""
