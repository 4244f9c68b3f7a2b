"""verl's GRPO configuration for RL from an export, with a reason for each number, and the script
that runs it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from omegaconf import DictConfig

from common.errors import UserError
from eval.generation.settings import SamplingSettings
from eval.rl.gpu_settings import ALGORITHM, REFERENCE, GpuSettings

BATCH, STEPS, EVERY = 128, 100, 20
"""Maximum number of problems per step (or one per GPU if there are more GPUs); steps of RL; steps
between two validations and between two checkpoints.
"""

TEMPLATE = """\
# GRPO with verl from {name}: what differs from verl's own ppo_trainer. The script beside it gives
# the paths of prompts, model and checkpoints.
defaults: [ppo_trainer, {device}_self_]
hydra: {{searchpath: ["pkg://verl.trainer.config", "pkg://eval.rl"]}}

data:
  # The longest prompt, in tokens: none is cut.
  max_prompt_length: {prompt}
  # Keeps 99 % of the accuracy that {budget} tokens gave on these problems. A longer rollout is cut:
  # compare response_length/max with this limit, and raise it when steps keep reaching it.
  # (response_length/clip_ratio compares with the batch's longest rollout.)
  max_response_length: {response}
  # {batch} x {group} rollouts per step, the same number on each of {gpus} GPUs. The pool has
  # {problems} problems.
  train_batch_size: {batch}
  seed: {seed}

actor_rollout_ref:
  actor:
    strategy: fsdp2
    # One update per batch: each rollout comes from the policy that it trains.
    ppo_mini_batch_size: {batch}
{actor}\
    # A rule gives the reward, so no KL penalty is needed against reward hacking, and no reference
    # model in memory (DAPO, Yu et al., 2025).
    use_kl_loss: false
    # The rate of DeepSeekMath's GRPO and of DAPO; ten warmup steps fill Adam's averages.
    optim: {{lr: 1.0e-6, lr_warmup_steps: 10}}
    # The last is the Hugging Face folder, which `warmstart eval` takes.
    checkpoint: {{save_contents: [model, optimizer, extra, hf_model]}}
  rollout:
    name: vllm
    # The sampling of the rollouts that chose the problems.
    n: {group}
    temperature: {temperature}
    top_p: {top_p}
    seed: {seed}
    max_model_len: {context}
{rollout}    # The evaluation's sampling, on the held-out rows of SFT.
    val_kwargs:
      do_sample: {val_sample}
      temperature: {val_temperature}
      top_p: {val_top_p}
      n: 1
{reference}
# The problems were chosen because one sample of rollouts was mixed, and regress to the mean: the
# reward starts below the sample's figures if most of the pool is hard, above if most is easy.
{algorithm}critic: {{enable: false}}

reward:
  custom_reward_function: {{path: "pkg://eval.rl.reward", name: compute_score}}
  reward_manager:
    source: importlib
    name: TellsTruncation
    module: {{path: "pkg://eval.rl.reward_manager"}}

trainer:
  # Enough to see whether the reward rises; raise both to continue.
  total_training_steps: {steps}
  total_epochs: {epochs}
  test_freq: {every}
  save_freq: {every}
  max_actor_ckpt_to_keep: 2
  nnodes: {nodes}
  n_gpus_per_node: {gpus_per_node}
  project_name: warmstart
  experiment_name: {experiment}
  checkpoint_callback_class: eval.rl.stop.StopOnRequest
  logger: [console, file]
"""

CPU_ACTOR = """\
    # Tokens per micro-batch: as in SFT, or more if a full rollout needs it.
    use_dynamic_bsz: true
    ppo_max_token_len_per_gpu: {tokens}
    ulysses_sequence_parallel_size: {sequence_parallel}
"""
CPU_ROLLOUT = """\
    tensor_model_parallel_size: {tensor_parallel}
"""
CPU_ALGORITHM = """\
algorithm: {adv_estimator: grpo}
"""

SCRIPT_TEMPLATE = """\
#!/usr/bin/env bash
# GRPO from {name}. Arguments are verl's (trainer.nnodes=1); rerun it to resume from the last
# checkpoint. It runs in the environment that is active, or in the one of this folder.
set -euo pipefail
folder=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
test='from importlib.util import find_spec as find; assert find("verl") and find("eval.rl.launch")'
found=$(type -P python3 || true)
for python in "${{VIRTUAL_ENV:-}}/bin/python" "$found" .venv-gpu/bin/python .venv/bin/python; do
    if "$python" -c "$test" 2>/dev/null; then
        exec "$python" -m eval.rl.launch "$folder" "$@"
    fi
done
echo "no environment with warmstart is active: source .venv-gpu/bin/activate" >&2
exit 2
"""


@dataclass(frozen=True)
class Start:
    """The measured facts that the GRPO configuration depends on."""

    name: str
    problems: int
    prompt: int
    """Length of the longest prompt, in tokens."""
    response: int
    """Budget of a rollout, in tokens."""
    sampling: SamplingSettings
    """Budget of the evaluation that selected the problems."""


def batch_size(problems: int, gpus: int) -> int:
    """Returns the number of problems per step, a multiple of the number of GPUs. Raises UserError
    when there are fewer problems than GPUs.
    """
    batch = min(max(BATCH, gpus), problems) // gpus * gpus
    if not batch:
        raise UserError(
            f"{problems} problems have both right and wrong rollouts, fewer than the {gpus} "
            "GPUs: give more problems (--problems N), give others (--pool FILE), or lower "
            "cluster.nodes"
        )
    return batch


def config_text(
    start: Start, config: DictConfig, validation: SamplingSettings, gpu: GpuSettings | None = None
) -> str:
    """Returns the YAML of the overrides of verl's ppo_trainer; ``validation`` is the sampling of
    the run's evaluations, ``gpu`` has the settings for GPUs (None: on CPUs).

    Raises UserError when there are fewer problems than GPUs.
    """
    cluster = config.cluster
    gpus = cluster.nodes * cluster.gpus_per_node
    batch = batch_size(start.problems, gpus)
    context = start.prompt + start.response
    return TEMPLATE.format(
        device="" if gpu else "cpu, ",
        name=start.name,
        experiment=json.dumps(start.name),
        problems=start.problems,
        prompt=start.prompt,
        response=start.response,
        context=context,
        budget=start.sampling.max_tokens,
        group=start.sampling.rollouts,
        temperature=start.sampling.temperature,
        top_p=start.sampling.top_p,
        batch=batch,
        gpus=gpus,
        seed=start.sampling.seed,
        actor=gpu.actor if gpu else _cpu_actor(config, context),
        rollout=gpu.rollout
        if gpu
        else CPU_ROLLOUT.format(tensor_parallel=config.eval.tensor_parallel),
        reference=REFERENCE if gpu else "",
        algorithm=ALGORITHM if gpu else CPU_ALGORITHM,
        val_sample=str(validation.temperature > 0).lower(),
        val_temperature=validation.temperature,
        val_top_p=validation.top_p,
        steps=STEPS,
        epochs=-(-STEPS // (start.problems // batch)),
        every=EVERY,
        nodes=cluster.nodes,
        gpus_per_node=cluster.gpus_per_node,
    )


def _cpu_actor(config: DictConfig, context: int) -> str:
    train = config.train
    return CPU_ACTOR.format(
        tokens=max(train.max_tokens_per_gpu, -(-context // train.sequence_parallel)),
        sequence_parallel=train.sequence_parallel,
    )


def script_text(start: Start) -> str:
    """Returns the shell script that starts verl with that configuration."""
    return SCRIPT_TEMPLATE.format(name=start.name)
