"""Facts from a run's other files, in Markdown: training, data, provenance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, pairwise
from typing import Any

from omegaconf import DictConfig

from common import provenance
from common.errors import UserError
from common.files import read_json, sha256_json
from common.text import markdown_table, percent
from data_prep.output import number_facts
from eval.results.base_vs_sft import Evaluation
from trainer.planning.workload import shape_of
from trainer.recipe import load as configs
from trainer.run.device_hours import ranks_of
from trainer.run.folder import Run
from trainer.run.step_metrics import alarm_lines, mean_rate, rate_line

AVERAGED = 50
"""Number of steps over which a milestone's loss is averaged, as in transformers' Trainer with
logging_steps=50.
"""


MILESTONES = (
    f"Training loss, each the mean over the last {AVERAGED} steps. The mean over the run is what "
    "transformers' Trainer reports as the final training loss. Entropy (nats) and token accuracy, "
    "where recorded, are means over the same supervised tokens: how uncertain the model is of the "
    "next token, and how often its most likely token is the right one."
)
ALARMS = 20
"""Number of alarms that the report lists."""
EPOCHS = 10
"""Maximum number of epoch ends among the milestones; of more, only every second, third, ... is
listed.
"""
SIGNALS: dict[str, tuple[str, Callable[[float], str]]] = {
    "entropy": ("entropy", "{:.4f}".format),
    "token_accuracy": ("token accuracy", percent),
}
"""Metric -> its name and format."""


def training(steps: Sequence[dict[str, Any]]) -> str:
    """Returns a one-sentence summary of training; ``steps`` are the metrics of its steps, in
    order.
    """
    last, tokens = steps[-1], sum(s["tokens"] for s in steps)
    seconds = sum(s["seconds"] for s in steps)
    rate = rate_line(mean_rate(steps))
    # Older runs did not record the rows of a step.
    if all(s.get("rows") for s in steps):
        rate += f", {sum(s['rows'] for s in steps) / seconds:.2f} rows/s"
    balance = sum(s["balance"] for s in steps) / len(steps)
    text = (
        f"{last['step']:,} of {last['total']:,} steps, {tokens:,} tokens, {rate}, "
        f"balance {percent(balance)}; loss {_loss(steps[0]['loss'])} at the first step, "
        f"{_loss(last['loss'])} at the last"
    )
    if held_out := [s for s in steps if s["val_loss"] is not None]:
        loss, step = held_out[-1]["val_loss"], held_out[-1]["step"]
        text += f"; {loss:.4f} on the held-out rows after step {step:,}"
    text += _signals(steps[0], last, held_out[-1:])
    if skipped := sum(s["skipped"] for s in steps):
        text += f"; {skipped} steps skipped because their gradients were not finite"
    return text + "."


def alarms(steps: Sequence[Mapping[str, Any]]) -> str:
    """Returns a list of the newest alarms of training, newest first; empty if there was none."""
    lines = [line for step in reversed(steps) for line in alarm_lines(step)]
    if not lines:
        return ""
    shown = "" if len(lines) <= ALARMS else f", of which the newest {ALARMS}"
    head = f"Alarms in training: {len(lines)}{shown}."
    return "\n".join([head, "", *(f"- {line}" for line in lines[:ALARMS])])


def _signals(
    first: Mapping[str, Any], last: Mapping[str, Any], held_out: Sequence[Mapping[str, Any]]
) -> str:
    """Returns entropy and token accuracy of these steps as part of a sentence, where recorded."""
    places = [(first, "", "at the first step"), (last, "", "at the last")]
    places += [(step, "val_", "on the held-out rows") for step in held_out]
    text = ""
    for step, rows, place in places:
        entropy, accuracy = (step.get(f"{rows}{metric}") for metric in SIGNALS)
        if entropy is not None and accuracy is not None:
            names = (", ", "") if text else ("; entropy ", "token accuracy ")
            text += f"{names[0]}{entropy:.4f} and {names[1]}{percent(accuracy)} {place}"
    return text


def milestones(steps: Sequence[dict[str, Any]], reference: Mapping[str, Any] | None) -> str:
    """Returns a table of training losses, entropies and token accuracies: at published or round
    steps, at the ends of epochs, and the mean over the run; ``reference`` is the recipe's, with the
    published losses.

    A step's value is the mean over the last ``AVERAGED`` steps, because one step's is noisy.
    """
    published = (reference or {}).get("loss") or {}
    ours = {s["step"]: s for s in steps}
    every = -(-steps[-1]["epoch"] // EPOCHS)
    ends = {
        a["step"]: a["epoch"]
        for a, b in pairwise(steps)
        if a["epoch"] != b["epoch"] and a["epoch"] % every == 0
    }
    if steps[-1]["step"] == steps[-1]["total"]:
        ends[steps[-1]["step"]] = steps[-1]["epoch"]
    chosen = {*(published or _round_steps(steps[-1]["step"])), *ends, steps[-1]["step"]}
    names = [name for name, _ in SIGNALS.values()]
    lines = [["step", "", "loss", "published", *names]]
    for step in sorted(chosen):
        window = [ours[n] for n in range(step - AVERAGED + 1, step + 1) if n in ours]
        reached, *signals = _means(window if step in ours else [])
        end = f"end of epoch {ends[step]}" if step in ends else ""
        loss = reached if step in ours else "not reached"
        lines.append([f"{step:,}", end, loss, _published(published.get(step)), *signals])
    loss, *signals = _means(steps)
    mean = _published((reference or {}).get("mean_loss"))
    lines.append(["all", "mean over the run", loss, mean, *signals])
    # Columns without a value are left out.
    kept = [i for i in range(len(lines[0])) if i < 3 or any(line[i] for line in lines[1:])]
    shown = [[line[i] for i in kept] for line in lines]
    return markdown_table(shown, "".join("rlrrrr"[i] for i in kept))


def _means(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the means of the finite values of loss, entropy and token accuracy, as text; "" for a
    metric that was not recorded.
    """
    shown = [_loss(_mean([s["loss"] for s in steps]))]
    for metric, (_, write) in SIGNALS.items():
        mean = _mean([s.get(metric) for s in steps])
        shown.append("" if mean is None else write(mean))
    return shown


def _round_steps(last: int) -> Iterator[int]:
    """Yields at most ten multiples of a round number up to ``last``."""
    width = next(w for k in count() for w in (10**k, 2 * 10**k, 5 * 10**k) if 10 * w >= last)
    yield from range(width, last + 1, width)


def _mean(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None]
    return sum(finite) / len(finite) if finite else None


def _published(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.3f}"


def trained_share(config: DictConfig) -> str | None:
    """Returns the number of trained parameters as text, with their share if adapters were trained;
    None if the base model's shape is not known on this machine.
    """
    try:
        shape = shape_of(config)
    except UserError:
        return None
    if not shape.lora_rank:
        return f"all {parameter_count(shape.parameters)}"
    trained = shape.adapter_parameters
    total = shape.parameters + trained
    return (
        f"{parameter_count(trained)} of {parameter_count(total)} ({percent(trained / total)}), "
        "the base included"
    )


def parameter_count(parameters: int) -> str:
    """Returns a number of parameters in thousands, millions or billions, as text."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.3g}{unit}"
    return str(parameters)


def origin(run: Run) -> dict[str, Any]:
    """Returns git commit and package versions of the newest attempt that recorded them, otherwise
    of this process.
    """
    recorded = [a.provenance for a in run.attempts if a.provenance.exists()]
    if recorded:
        return read_json(recorded[-1])
    return {"git": provenance.git_commit(), "versions": provenance.versions()}


def provenance_table(
    run: Run, origins: Mapping[str, Any], evaluations: Sequence[Evaluation]
) -> str:
    """Returns a table of commit, hashes and versions. ``origins`` are further entries by name;
    those that are None are left out.
    """
    made = origin(run)
    folders: dict[str, list[str]] = {}
    for e in evaluations:
        folders.setdefault(f"evaluation of {e.name}", []).append(e.folder.name)
    facts = {
        "git commit": made["git"],
        "config": sha256_json(configs.own_values(configs.read(run.config), run.config)),
        **{name: value for name, value in origins.items() if value is not None},
        **{name: ", ".join(of) for name, of in folders.items()},
        "grader's version": ", ".join(dict.fromkeys(str(e.grader) for e in evaluations)),
        **{
            f"{name}.jsonl": value
            for e in evaluations
            for name, value in e.settings.benchmarks.items()
        },
        **made["versions"],
    }
    return fields({key: f"`{value}`" for key, value in facts.items()})


def fields(facts: dict[str, str]) -> str:
    """Returns a Markdown table of names and values."""
    return markdown_table([("", ""), *facts.items()], "ll")


def recipe(config: DictConfig, base: str, last: dict[str, Any]) -> str:
    """Returns a table of the training settings; ``base`` names the base model, ``last`` is the
    metrics of a step.
    """
    train = config.train
    method, optimizer = "full-parameter SFT, verl FSDP2", "AdamW"
    precision = f"{train.precision} compute, fp32 master weights and optimizer; exported as bf16"
    if train.lora_rank:
        method = (
            "QLoRA: base frozen in 4-bit NF4, "
            f"adapters of rank {train.lora_rank}, alpha {train.lora_alpha}"
        )
        optimizer = "8-bit AdamW"
        precision = f"{train.precision} compute, fp32 adapters; merged and exported as bf16"
    epochs = f"{train.epochs}"
    if train.max_steps:
        epochs += f", ended at step {train.max_steps:,}"
    warmup = (
        f"{train.warmup_steps} steps of"
        if train.warmup_steps
        else f"{percent(train.warmup_ratio, 0)}"
    )
    return fields(
        {
            "method": f"{method}; loss on every token of the answer, its end of turn included",
            "base model": base,
            "trained parameters": trained_share(config) or "not known here",
            "epochs": epochs,
            "rows per step": f"{train.batch_size}",
            "longest row": f"{config.data.max_length:,} tokens; never cut, packed without padding",
            "optimizer": f"{optimizer}, betas {train.betas[0]} and {train.betas[1]}, weight decay "
            f"{train.weight_decay}, gradient norm at most {train.clip_grad}",
            "learning rate": f"{train.lr:g}; {warmup} warmup, "
            f"cosine to {percent(train.min_lr_ratio, 0)} of it",
            "precision": precision,
            "ranks": f"{ranks_of(last)} ({config.device}), "
            f"sequence parallel {train.sequence_parallel}",
            "seed": f"{train.seed}",
        }
    )


def source(dataset: dict[str, Any]) -> str:
    """Returns the source of a dataset's records, as text; ``dataset`` is its manifest."""
    origin = dataset["settings"]["source"]
    if "synthetic" in origin:
        made = origin["synthetic"]
        return f"problems written by {made['model']}, modelled on {made['seed_rows']} seed problems"
    if "generator" in origin:
        return f"generated sums of two numbers of {origin['generator']['digits']} digits"
    if "hub" in origin:
        return f"[{origin['hub']}](https://huggingface.co/datasets/{origin['hub']})"
    return ", ".join(f"`{name}`" for name, _ in origin["files"])


def data(dataset: dict[str, Any]) -> str:
    """Returns the size, funnel and decontamination of a dataset; ``dataset`` is its manifest."""
    rows = dataset["rows"]
    funnel = {step: count for step, count in dataset["funnel"].items() if count}
    return "\n\n".join(
        [
            f"{rows['train']:,} training rows ({dataset['tokens']['train']:,} tokens) from "
            f"{source(dataset)}; {rows['test']:,} more were held out. What became of every "
            "source record:",
            markdown_table([("", "rows"), *((step, f"{n:,}") for step, n in funnel.items())]),
            *([number_facts.table(dataset["numbers"])] if "numbers" in dataset else []),
            _decontamination(dataset),
        ]
    )


def _decontamination(dataset: dict[str, Any]) -> str:
    hits = dict.fromkeys(dataset["settings"]["benchmarks"], 0)
    if not hits:
        return "The rows were not compared with any benchmark."
    for found in dataset["contaminated"].values():
        hits[found["set"]] += 1
    counts = ", ".join(f"{name} {count:,}" for name, count in hits.items())
    return (
        "Rows whose problem is in a benchmark, rewords a problem of it, or repeats half of its "
        f"statement were dropped: {counts}. What the base model saw in pretraining is not known."
    )


def _loss(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
