"""Training on one GPU: ours against stock verl's and TRL's trainers, each knob on and off, forecast and loss.

    python -m tests.bench.bench_gpu [LENGTH] [CASE ...]      (default 8192 and all cases; exit 3 without a CUDA device)

All cases train the same random Qwen3-4B on the same rows (random tokens of long-think lengths: lognormal, median 6K,
sigma 0.8, clipped at LENGTH) in the same steps, one case a process, its output in .bench/bench-gpu-LENGTH-CASE.log.
The model has as many of the 36 layers as the planner's forecast of ours and four copies of all logits leave room for.

    ours         the 4B recipe on one rank, micro-batches of LENGTH tokens
    verl         stock SFT trainer: no padding, dynamic batches of LENGTH tokens, checkpointing, flash-attn, Liger.
                 Without flash-attn crippled: SDPA under a mask of all pairs, a loss that loops over tokens
    verl-fused   the same with use_fused_kernels, which this model's tied head allows
    trl          SFTTrainer, one row a micro-batch

and ours with one setting changed, named after it (``compile=true``). What is not installed is left out; what
``DEADLINE`` leaves no time for is named. Needs torch with CUDA, transformers, datasets, matplotlib, verl and its
imports (ray, tensordict, torchdata, peft, accelerate, codetiming, hydra-core, dill), neither vllm nor an installed
warmstart. Without network: PYTHONPATH=SITE, a folder with the missing wheels.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from data_prep import tokens
from data_prep.schema import Tokens
from tests.bench.cases import FLASH_ATTN, LIGER, OURS, RECIPE, TRL, Case, knobs, peers, recipe
from tests.bench.table import FOLDER, Result, publish
from trainer import config as configs
from trainer import sampler
from trainer.balance import plan_step
from trainer.flops import Shape, peak_flops, training_flops
from trainer.planning import memory
from trainer.planning.basis import KNOWN

ROOT = Path(__file__).resolve().parents[2]
WARM, TIMED = 2, 3  # steps
SEED = 9  # its 40 rows have a median of 5,940 tokens and one beyond 32,768
PROMPT = 100  # tokens without loss at the start of a row
LOGITS_COPIES = 4
"""In the compute type: logits, log-probabilities and their gradients."""
DEADLINE = 510
"""Seconds: what runs then is ended; nothing is started that would not be over by then if it took as long as ours."""
PARITY = 1e-3
"""Relative difference of the first step's loss; bf16 has eight bits, and their rounding averages out over tokens."""
MFU_AIM, SPEED_AIM = 0.5, 1.5
"""Causal MFU on an H100 or an H200; tokens/s over stock verl's, both with flash-attn."""


@dataclass(frozen=True)
class Setting:
    """What every case trains, and where."""

    device: str
    precision: str
    shape: Shape
    length: int  # of the longest row, and tokens of a micro-batch
    median: int = 6000
    rows: int = 8  # of a step
    peak: float | None = None
    """FLOP/s, where it is known."""
    recipe: str = RECIPE

    def lengths(self) -> list[int]:
        """Tokens of each row."""
        drawn = np.random.default_rng(SEED).lognormal(np.log(self.median), 0.8, self.rows * (WARM + TIMED))
        return np.clip(drawn.round(), 8, self.length).astype(int).tolist()

    def layout(self) -> memory.Setup:
        """Of ours, as the planner takes it."""
        full = self.precision == "fp32"
        return memory.Setup(
            ranks=1, sequence_parallel=1, tokens=self.length, checkpointing=recipe().checkpointing,
            compute=4 if full else 2, sdpa=full, multi_tensor=self.device == "cuda",
        )  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A case's figures."""

    loss: float
    """Of the first step."""
    rate: float
    """Tokens/s."""
    mfu: float | None
    memory: float
    """GB at the peak: tensors on a GPU, the resident set on a CPU."""


class Bench:
    """Runs cases of one setting, one process at a time, below a folder."""

    def __init__(self, setting: Setting, folder: Path, logs: str, deadline: float) -> None:
        self.setting, self.folder, self.logs = setting, folder, logs
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.end, self.usual = time.monotonic() + deadline, 0.0
        self.lengths = setting.lengths()
        self.train = self.config(OURS).train
        self.measured: dict[str, Measured] = {}
        self.failed: dict[str, str] = {}
        """Case name -> reason."""
        generator = np.random.default_rng(SEED)
        rows = (
            Tokens(id=str(i), input_ids=generator.integers(0, setting.shape.vocabulary, n, dtype=np.int32),
                   prompt_len=min(PROMPT, n // 2), length=n)
            for i, n in enumerate(self.lengths)
        )  # fmt: skip
        tokens.write(Path(self.config(OURS).verl.data.train_files), rows)

    def config(self, case: Case) -> DictConfig:
        """The recipe's configuration with this model, these rows and the case's settings."""
        s = self.setting
        init = {
            "num_hidden_layers": s.shape.layers, "hidden_size": s.shape.hidden, "vocab_size": s.shape.vocabulary,
            "intermediate_size": s.shape.intermediate, "num_attention_heads": s.shape.heads,
            "num_key_value_heads": s.shape.kv_heads, "head_dim": s.shape.head_dim,
            "tie_word_embeddings": str(s.shape.tied).lower(), "max_position_embeddings": 40_960,
        }  # fmt: skip
        return configs.load(s.recipe, [
            f"device={s.device}", "data.source=none", f"run.root={self.folder}/runs", f"data.dir={self.folder}/data",
            f"model.path={self.folder}/model", *(f"model.init.{key}={value}" for key, value in init.items()),
            f"data.max_length={s.length}", f"train.max_tokens_per_gpu={s.length}", f"train.precision={s.precision}",
            f"train.batch_size={s.rows}", "train.epochs=1", f"train.max_steps={WARM + TIMED}", "train.ranks=1",
            "train.sequence_parallel=1", *case.overrides,
        ])  # fmt: skip

    def run(self, case: Case) -> bool:
        """Measures a case or says why not; False when less time is left than ours took."""
        begin = time.monotonic()
        if self.end - begin < self.usual:
            return False
        reason = self.process(case, self.end - begin)
        if case is OURS:
            self.usual = time.monotonic() - begin
        steps = self.folder / f"{case.name}.jsonl"
        if reason is None:
            self.measured[case.name] = self.figures([json.loads(line) for line in steps.read_text().splitlines()])
        else:
            self.failed[case.name] = reason
            print(f"{case.label}: {reason}", flush=True)
        return True

    def process(self, case: Case, seconds: float) -> str | None:
        """Runs a case's process for at most ``seconds``; returns the reason if it failed."""
        config, log = self.folder / f"{case.name}.yaml", FOLDER / f"{self.logs}-{case.name}.log"
        configs.write(self.config(case), config)
        command = [*case.program, str(config), str(self.folder / f"{case.name}.jsonl"), *case.arguments]
        with log.open("w") as out:
            try:
                code = subprocess.run(
                    [sys.executable, "-m", *command], cwd=ROOT, env=self.environment(), stdout=out, stderr=out,
                    timeout=seconds,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                return f"not done in the {seconds:.0f} s that were left"
        text = log.read_text(errors="replace")
        if code == 0:
            return None
        errors = [line for line in text.splitlines() if "Error" in line] or [f"exit code {code}"]
        reason = "out of memory" if "OutOfMemoryError" in text else errors[-1].strip()[:200]
        return f"{reason} ({log.relative_to(ROOT)})"

    def environment(self) -> dict[str, str]:
        """One rank, alone on this machine and its first GPU."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] if self.setting.device == "cuda" else ""
        alone = {
            "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0",
            "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": visible,
        }  # fmt: skip
        return os.environ | alone

    def steps(self) -> list[dict[int, int]]:
        """Row -> tokens of each step."""
        size, seed = self.train.batch_size, self.train.seed
        drawn = [sampler.step_rows(step, len(self.lengths), size, seed).tolist() for step in range(WARM + TIMED)]
        return [{row: self.lengths[row] for row in rows} for rows in drawn]

    def figures(self, lines: list[dict]) -> Measured:
        """From a case's lines, over the timed steps."""
        seconds = lines[-1]["at"] - lines[WARM - 1]["at"]
        timed = [n for step in self.steps()[WARM:] for n in step.values()]
        flops = training_flops(self.setting.shape, timed).sum() / seconds
        return Measured(
            loss=lines[0]["loss"],
            rate=sum(timed) / seconds,
            mfu=flops / self.setting.peak if self.setting.peak else None,
            memory=max(line["memory"] for line in lines) / 1e9,
        )

    def forecast(self) -> float:
        """The planner's peak of ours in GB, at the fullest micro-batch there is."""
        setting = self.setting
        fullest = max(
            sum(lengths[row] for row in rows)
            for lengths in self.steps()
            for rows in plan_step(lengths, 1, setting.length, setting.shape)[0]
        )
        return sum(memory.peak(setting.shape, replace(setting.layout(), tokens=fullest)).values()) / 1e9


def fitting(shape: Shape, setup: memory.Setup, room: float) -> Shape:
    """``shape`` with the most layers that fit ``room`` bytes by the rule above. Raises ValueError when none does."""
    logits = LOGITS_COPIES * setup.compute * shape.vocabulary * setup.tokens
    for layers in range(shape.layers, 0, -1):
        fewer = replace(shape, layers=layers)
        if sum(memory.on_gpu(memory.peak(fewer, setup)).values()) + logits <= room:
            return fewer
    raise ValueError(f"rows of {setup.tokens:,} tokens do not fit this device with a single layer: take a lower LENGTH")


def measure(setting: Setting, folder: Path, cases: Sequence[Case], logs: str, deadline: float) -> list[Result]:
    """Runs ours and ``cases``, and returns the table; prints what failed and what was skipped."""
    bench = Bench(setting, folder, logs, deadline)
    if reason := bench.process(Case("base", "the model", ("tests.bench.contenders", "base")), deadline):
        raise RuntimeError(f"the random model could not be written: {reason}")
    skipped = [case.name for case in (OURS, *cases) if not bench.run(case)]
    if skipped:
        print(f"skipped, for the time was up: {' '.join(skipped)}", flush=True)
    return table(bench, [case for case in cases if case.name not in skipped])


def table(bench: Bench, cases: Sequence[Case]) -> list[Result]:
    """Ours, then ours against each peer, each knob against ours without it, forecast and loss."""
    measured, setting = bench.measured, bench.setting
    ours, memory_metric = measured.get("ours"), ("tensors" if setting.device == "cuda" else "resident set")
    figures = [("tokens/s", "1/s", "rate"), (f"peak {memory_metric}", "GB", "memory")]
    if setting.peak is not None:
        figures.insert(1, ("causal MFU", "", "mfu"))
    aim = MFU_AIM if setting.peak == peak_flops("NVIDIA H100") else None
    results = [Result("ours", "layers", "of the model", setting.shape.layers)]
    results += [
        Result("ours", metric, unit, getattr(ours, key, None), limit=aim if key == "mfu" else None)
        for metric, unit, key in figures
    ]
    stock = max((m.rate for name, m in measured.items() if name.startswith("verl")), default=None)
    for case in cases:
        here, reason = measured.get(case.name), bench.failed.get(case.name)
        mine, theirs, peer = (ours, here, case.label) if case.is_peer else (here, ours, "ours")
        for metric, unit, key in figures:
            best = here is not None and here.rate == stock
            limit = SPEED_AIM * stock if stock and best and FLASH_ATTN and key == "rate" else None
            results.append(Result(
                case.name, metric, unit, getattr(mine, key, None), getattr(theirs, key, None),
                f"{peer}: {reason}" if reason else peer, limit,
            ))  # fmt: skip
    if ours is not None:
        planned = bench.forecast()
        results.append(Result("forecast", f"peak {memory_metric}", "GB", ours.memory, planned, "the planner's"))
    for case in cases:
        if ours is not None and case.is_peer and case.name in measured:
            difference = abs(ours.loss / measured[case.name].loss - 1)
            results.append(Result("loss parity", f"to {case.name}", "relative", difference, limit=PARITY))
    return results


def main() -> int:
    """Measures on this machine's first GPU."""
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("length", nargs="?", type=int, default=8192)
    known = {case.name: case for case in (*peers(), *knobs())}
    parser.add_argument("cases", nargs="*", metavar="CASE", help=" ".join(known))
    options = parser.parse_args()
    if unknown := set(options.cases) - set(known):
        parser.error(f"no case {' '.join(sorted(unknown))}: there are {' '.join(known)}")
    if not torch.cuda.is_available():
        print("bench-gpu needs a CUDA device, and there is none here.")
        return 3
    device = torch.cuda.get_device_properties(0)
    setting = Setting("cuda", "bf16", KNOWN["Qwen/Qwen3-4B-Base"], options.length, peak=peak_flops(device.name))
    setting = replace(setting, shape=fitting(setting.shape, setting.layout(), device.total_memory))
    name = "-".join(["bench-gpu", str(options.length), *options.cases])
    print(f"{device.name}: Qwen3-4B, {setting.shape.layers} of 36 layers; rows of at most {options.length:,} tokens")
    for package, there in (("flash-attn", FLASH_ATTN), ("liger-kernel", LIGER), ("trl", TRL)):
        if not there:
            print(f"{package} is not installed: what needs it is left out.")
    with tempfile.TemporaryDirectory() as folder:
        chosen = [known[case] for case in options.cases] or list(known.values())
        publish(name, measure(setting, Path(folder), chosen, name, DEADLINE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
