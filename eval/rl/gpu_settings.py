"""The part of verl's GRPO configuration that depends on GPUs: the planner's settings, with a reason
for each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainer.batching.flops import Shape
from trainer.planning import rl_memory
from trainer.planning.cluster import Cluster
from trainer.planning.memory import GIB
from trainer.planning.rl_memory import RESERVE, RlSetup
from trainer.planning.rl_settings import RlForecast
from trainer.planning.rl_time import RlLoad

DEFAULT_SHARE = 0.5
"""verl's gpu_memory_utilization."""

ACTOR = """\
    # The settings here and of rollout fit {gpus} GPUs of {gpu:.1f} GiB in the forecast of
    # `warmstart plan RUN --rl`; none of it was measured. The trainer's peak is {trainer:.1f} GiB.
    # Tokens per micro-batch and GPU: the longest row has {context:,}. Logits are {logits:.1f} GiB.
    use_dynamic_bsz: true
    ppo_max_token_len_per_gpu: {tokens}
    ulysses_sequence_parallel_size: {sequence_parallel}
    # verl asks for the entropy with old log-probabilities. Whole and eager, its float32 softmax
    # and product take {whole:.1f} GiB beside the logits; in chunks, {chunked:.1f} GiB.
    entropy_from_logits_with_chunking: true
    # {offload}
    fsdp_config: {{param_offload: {param_offload}, optimizer_offload: {optimizer_offload}, \
offload_policy: {policy}}}
"""
ROLLOUT = """\
    # GPUs per engine: each holds {weights:.1f} GiB of weights, the rest of its share is cache.
    tensor_model_parallel_size: {tensor_parallel}
    # vLLM's share of each GPU: the highest that leaves {reserve:.0f} GiB free beside the trainer's
    # and CUDA's {state:.1f} GiB. An engine's cache holds {in_flight:.1f} rollouts of mean length,
    # {longest:.1f} of the longest; with verl's {default} it {half}.
    gpu_memory_utilization: {share}
    # Tokens per micro-batch of the pass for old log-probabilities, which keeps no activations.
    log_prob_max_token_len_per_gpu: {log_prob_tokens}
"""
REFERENCE = """\
  # For a reference model, if one is ever asked for.
  ref: {entropy_from_logits_with_chunking: true}
"""
ALGORITHM = """\
algorithm:
  adv_estimator: grpo
  # vLLM and the trainer compute in bf16 with different kernels, so rollouts come from a policy that
  # is not quite the one trained, and over long rollouts the differences multiply (Yao et al., 2025,
  # fengyao.notion.site/off-policy-rl). If training/rollout_probs_diff_mean grows from step to step,
  # this weights each token by the truncated ratio of the two, which biases the gradient a little:
  # rollout_correction: {rollout_is: token, rollout_is_threshold: 2.0}
"""
NOTHING = "Nothing is offloaded: the trainer's state fits beside vLLM's share."
MOMENTS = "Adam's moments are on the host while vLLM generates, which makes room for its cache."
STATE = "Weights and moments are on the host while vLLM generates, which makes room for its cache."
POLICY = "The trainer's state is on the host and crosses PCIe in each pass, or it would not fit."


@dataclass(frozen=True)
class GpuSettings:
    """The planner's choice for one start, and the inputs of that choice."""

    shape: Shape
    cluster: Cluster
    load: RlLoad
    chosen: RlForecast

    @property
    def actor(self) -> str:
        """Lines under ``actor_rollout_ref.actor``."""
        setup, step = self.chosen.setup, self.chosen.setup.training
        whole = replace(setup, chunked_entropy=False)
        return ACTOR.format(
            gpus=self.cluster.ranks,
            gpu=self.cluster.gpu.memory / GIB,
            trainer=sum(self.chosen.trainer.values()) / GIB,
            context=self.load.context,
            logits=rl_memory.logits(self.shape, setup, step.tokens) / GIB,
            tokens=step.tokens,
            sequence_parallel=step.sequence_parallel,
            whole=rl_memory.entropy(self.shape, whole) / GIB,
            chunked=rl_memory.entropy(self.shape, setup) / GIB,
            offload=_offload(setup),
            param_offload=str(setup.param_offload).lower(),
            optimizer_offload=str(setup.optimizer_offload).lower(),
            policy=str(step.offload).lower(),
        )

    @property
    def rollout(self) -> str:
        """Lines under ``actor_rollout_ref.rollout``."""
        setup, chosen = self.chosen.setup, self.chosen
        default = replace(setup, utilization=DEFAULT_SHARE)
        half = rl_memory.cache_tokens(self.shape, default, self.cluster.gpu.memory)
        held = half / self.load.context
        state = sum(chosen.generation.values()) - chosen.generation["vLLM"]
        return ROLLOUT.format(
            weights=rl_memory.rollout_weights(self.shape, setup.tensor_parallel) / GIB,
            tensor_parallel=setup.tensor_parallel,
            reserve=RESERVE / GIB,
            state=state / GIB,
            in_flight=chosen.in_flight,
            longest=chosen.cache / self.load.context,
            default=DEFAULT_SHARE,
            half=f"would hold {held:.1f} of the longest" if held else "would not load the weights",
            share=setup.utilization,
            log_prob_tokens=setup.log_prob_tokens,
        )


def _offload(setup: RlSetup) -> str:
    if setup.training.offload:
        return POLICY
    if setup.param_offload:
        return STATE
    return MOMENTS if setup.optimizer_offload else NOTHING
