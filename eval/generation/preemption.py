"""vLLM's preemption order when the KV cache is full: among late rollouts, the longest is preempted.

Stock vLLM preempts the most recent rollout until another one ends; at the end of an evaluation that
rollout then runs alone after all others. Late rollouts take turns instead, and end at about the
same time. Earlier in an evaluation, turns would only cost time, because a resumed rollout has to be
prefilled again.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler

from eval.generation.vllm_actor import EARLY


class TakingTurns(Scheduler):
    """vLLM's scheduler (``scheduler_cls``, ``scheduling_policy=priority``); preempts the highest
    priority value.
    """

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """Sets each late rollout's priority to its number of tokens, then schedules one step."""
        for request in self.running:
            if request.priority < EARLY:
                request.priority = request.num_tokens
        return super().schedule(*args, **kwargs)


class AsyncTakingTurns(TakingTurns, AsyncScheduler):
    """The same for async scheduling, where vLLM schedules a step while the previous one runs."""
