"""How verl's RL trainer is started: its command line and its processes' environment."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from common.files import read_json
from trainer.run.folder import Run, is_complete
from trainer.run.rl_start import RlAttempt, RlStart, gpus_of

STOP = "WARMSTART_RL_STOP"
"""Variable of the trainer's process with the file whose existence requests a stop."""
MODEL = "actor_rollout_ref.model.path"
ATTENTION = "actor_rollout_ref.model.override_config.attn_implementation"
SEQUENCE_PARALLEL = "actor_rollout_ref.actor.ulysses_sequence_parallel_size"
CPU_VARIABLES = {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "eval.rl.cpu_runner",
    # verl registers its engine for GPUs only.
    "VERL_ENGINE_DEVICE": "cuda",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "TORCHDYNAMO_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Invocation:
    """One way to run an RL start: its own values, overridden by the user's."""

    start: RlStart
    words: Sequence[str]
    """verl's key=value, and Hydra's options."""
    values: DictConfig
    """The start's values overridden by those of the words, without verl's defaults."""
    model: Path
    """Folder of the weights to start from."""

    @staticmethod
    def of(start: RlStart, words: Sequence[str]) -> Invocation:
        """Returns the invocation. Raises UserError when the start or its model is not complete, and
        as ``RlStart.values`` does.
        """
        if not is_complete(start.root):
            raise UserError(f"{start.root} is not complete: warmstart rl RUN STEP writes it")
        values = start.values(words)
        named = OmegaConf.select(values, MODEL)
        return Invocation(start, words, values, Path(named) if named else _export(start))

    @property
    def on_cpu(self) -> bool:
        """Whether the start is for CPUs."""
        return "cpu" in self.values.defaults

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return self.values.trainer.total_training_steps

    @property
    def gpus(self) -> int:
        """Number of GPUs, or of ranks on CPUs."""
        return gpus_of(self.values)

    @property
    def shows_only(self) -> bool:
        """Whether Hydra is only to show something (``--cfg job``)."""
        return any(word.startswith("-") for word in self.words)

    def check_attention(self) -> None:
        """Raises UserError when attention would fail or be wrong here: verl makes transformers use
        flash-attn, and only that path exchanges tokens for sequence parallelism.
        """
        if self.on_cpu:
            return
        asked = OmegaConf.select(self.values, ATTENTION)
        if asked is None and find_spec("flash_attn") is None:
            raise UserError(
                "verl's RL trainer attends with flash-attn, which this environment lacks: "
                "FLASH_ATTN=1 make setup-gpu builds it. Without it, "
                f"+{ATTENTION}=sdpa runs, slower and with more memory than planned: attention goes "
                "over whole micro-batches with a mask, and the loss goes token by token and keeps "
                "4 more bytes per logit"
            )
        degree = OmegaConf.select(self.values, SEQUENCE_PARALLEL, default=1)
        if asked is not None and not str(asked).startswith("flash") and degree > 1:
            raise UserError(
                f"with {ATTENTION}={asked} each GPU would attend to its own part of a row only: "
                f"give {SEQUENCE_PARALLEL}=1, with {degree} times the tokens per GPU"
            )

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Returns the environment of verl's first process."""
        values = {**os.environ, **(CPU_VARIABLES if self.on_cpu else {}), **more}
        if self.on_cpu:
            # Ray sets it for its workers; an empty value would hide the logical GPUs.
            values.pop("CUDA_VISIBLE_DEVICES", None)
        return values

    def command(self, folder: Path, attempt: RlAttempt | None = None) -> list[str]:
        """Returns the command line, which writes Hydra's files to ``folder``.

        Paths are given on it because the start may have been moved since it was written; the
        workers' variables, because Ray may have been started elsewhere.
        """
        start = self.start
        paths: dict[str, Path] = {
            "hydra.run.dir": folder,
            "data.train_files": start.train,
            "data.val_files": start.validation,
            "trainer.default_local_dir": start.checkpoints,
            MODEL: self.model,
        }
        variables = dict(CPU_VARIABLES) if self.on_cpu else {}
        if attempt is not None:
            variables["VERL_FILE_LOGGER_PATH"] = str(attempt.metrics)
            variables[STOP] = str(attempt.stop)
        workers = {
            f"+ray_kwargs.ray_init.runtime_env.env_vars.{name}": value
            for name, value in variables.items()
        }
        # Hydra takes its options before the first override only.
        return [
            *(sys.executable, "-m", "verl.trainer.main_ppo"),
            *("--config-path", str(start.root), "--config-name", start.config.stem),
            *(word for word in self.words if not _is_override(word)),
            *(f"{key}={_quoted(str(value))}" for key, value in {**paths, **workers}.items()),
            *filter(_is_override, self.words),
        ]


def _is_override(word: str) -> bool:
    return word.startswith("~") or ("=" in word and not word.startswith("-"))


def _quoted(text: str) -> str:
    """Returns the text as a quoted value of Hydra's grammar, where a backslash counts only before a
    quote.
    """
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", "\\'"), text) + "'"


def _export(start: RlStart) -> Path:
    run, step = Run(start.root.parents[1]), read_json(start.manifest)["step"]
    if not is_complete(run.export(step)):
        raise UserError(
            f"{run.export(step)} is missing: warmstart export {run.root} {step}, or name another "
            f"folder: {MODEL}=FOLDER"
        )
    return run.export(step)
