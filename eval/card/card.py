"""Writes the model card of an export: README.md in its folder, from the run's files alone.

Its figures come from the functions that write the report. The export's manifest does not list the
card and its picture, because they change with every evaluation while the model stays the same.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import MANIFEST, read_json, read_jsonl, sha256_file, write_text
from common.text import markdown_table
from data_prep.output.folder import dataset_folder
from data_prep.output.write import HELD_OUT
from data_prep.tokenizer import chat
from eval import evaluate
from eval.card import limitations, usage
from eval.report import run_facts, tables
from eval.results import base_vs_sft
from eval.results.evaluation import is_of_pool
from trainer.recipe import load as configs
from trainer.run import device_hours, step_metrics
from trainer.run.folder import LOSS_PICTURE, Run, is_complete, parse_evaluation
from trainer.run.model_label import BASE, ModelLabel

CARD = "README.md"
NO_DATASET = (
    "The dataset was not available when this card was written. Its manifest's hash is below."
)


def refresh(run: Run) -> list[Path]:
    """Rewrites the card of every complete export; returns the cards' paths."""
    return [write(run, run.export(step)) for step in run.exports]


def write(run: Run, folder: Path, repo: str | None = None) -> Path:
    """Writes README.md and loss.png into ``folder``, a complete export of the run; returns the
    former's path.

    ``repo`` is the model's name on the hub, for the examples. Raises UserError when the run's
    metrics are missing.
    """
    step = read_json(folder / MANIFEST)["step"]
    steps = [s for s in step_metrics.read(run) if s["step"] <= step]
    if not steps:
        raise UserError(
            f"{run.root} has no metrics of its steps up to {step}, which the model card needs: "
            "restore its attempts/*/metrics.jsonl"
        )
    run_facts.loss_picture(folder / LOSS_PICTURE, steps)
    write_text(folder / CARD, _Card(run, step, steps, repo).text())
    return folder / CARD


class _Card:
    """One card; each method is a section."""

    def __init__(self, run: Run, step: int, steps: list[dict[str, Any]], repo: str | None) -> None:
        self.run, self.step, self.steps, self.repo = run, step, steps, repo
        self.label = ModelLabel(step)
        self.config = configs.read(run.attempts[-1].config)
        self.export = read_json(run.export(step) / MANIFEST)
        self.compared = base_vs_sft.of_model(run, self.label)
        self.evaluations = [e for c in self.compared for e in c.both]
        manifest = dataset_folder(self.config) / MANIFEST
        # Uses the dataset only if it is the build that the checkpoint was trained on.
        known = manifest.exists() and sha256_file(manifest) == self.export["dataset"]
        self.dataset = read_json(manifest) if known else None
        self.name = (repo or run.name).rpartition("/")[2]

    def text(self) -> str:
        """Returns the card: YAML metadata, then Markdown."""
        from huggingface_hub import ModelCard

        sections = {
            "": self._summary(),
            "Evaluation": self._evaluation(),
            "How to use": self._usage(),
            "Training": self._training(),
            "Data": run_facts.data(self.dataset) if self.dataset else NO_DATASET,
            "Cost": device_hours.table(
                device_hours.costs(self.run, [e.folder for e in self.evaluations], self.step)
            ),
            "Limitations": limitations.text(self.compared),
            "Licence": self._licence(),
            "Citation": self._citation(),
            "Provenance": run_facts.provenance_table(
                self.run, self.export["dataset"], self.evaluations
            ),
        }
        body = "\n\n".join(
            f"## {title}\n\n{text}" if title else text for title, text in sections.items()
        )
        # ModelCard parses the metadata again, so a card with broken metadata raises here.
        return str(ModelCard(f"---\n{self._metadata().to_yaml()}\n---\n\n{body}\n"))

    def _metadata(self) -> Any:
        from huggingface_hub import ModelCardData

        datasets = self.dataset["settings"]["source"].get("hub") if self.dataset else None
        return ModelCardData(
            language="en",
            license=self.config.model.license,
            library_name="transformers",
            pipeline_tag="text-generation",
            base_model=self._hub_base(),
            datasets=datasets,
            tags=["math", "reasoning", "chain-of-thought", "sft", "rl-warm-start", "verl"],
            model_name=self.name,
            eval_results=self._results() or None,
        )

    def _results(self) -> list[Any]:
        """Returns pass@1 and maj@n of each evaluated set, as the hub's EvalResult."""
        from huggingface_hub import EvalResult

        results = []
        for sft in (c.sft for c in self.compared if c.sft):
            sampling = sft.settings.sampling
            keys = ("temperature", "top_p", "max_tokens")
            conditions = {key: getattr(sampling, key) for key in keys}
            for name, figures in tables.figures_of_sets(sft).items():
                for metric in ("pass@1", f"maj@{sampling.rollouts}"):
                    result = EvalResult(
                        task_type="text-generation",
                        task_name="Text generation",
                        dataset_type=name,
                        dataset_name=name,
                        dataset_args={
                            "sha256": sft.settings.benchmarks[name],
                            "problems": figures["problems"],
                        },
                        metric_type=metric,
                        metric_name=f"{metric} ({sampling.rollouts} rollouts per problem)",
                        metric_value=round(figures[metric] * 100, 2),
                        metric_args=conditions,
                    )
                    results.append(result)
        return results

    def _hub_base(self) -> str | None:
        """Returns the base model's name on the hub; None for random weights or a local folder."""
        path = self.config.model.path
        return None if self.config.model.init is not None or Path(path).exists() else path

    def _base(self) -> str:
        if self.config.model.init is not None:
            return "a Qwen3 with random weights"
        name = self._hub_base()
        if name:
            return f"[{name}](https://huggingface.co/{name})"
        return f"`{Path(self.config.model.path).name}`"

    def _summary(self) -> str:
        rows = "a dataset"
        if self.dataset:
            rows = f"{self.dataset['rows']['train']:,} rows of {run_facts.source(self.dataset)}"
        lines = [
            f"# {self.name}",
            f"A warm start for reinforcement learning on mathematics: {self._base()} after "
            f"{self.step:,} steps of supervised fine-tuning of all its "
            f"{run_facts.parameter_count(self.export['parameters'])} parameters on {rows}. It "
            "thinks inside one `<think>` block, then answers with a `\\boxed{}`, and ends its turn "
            "with `<|im_end|>`.",
            "It is meant as the starting policy of RL with verifiable rewards, and as a baseline "
            "for studying what RL adds to SFT. It is not an assistant: it has had no RL, no "
            "preference tuning and no safety training.",
        ]
        if self.config.model.init is not None:
            lines.append(
                "**It started from random weights.** It shows that the pipeline works from end to "
                "end, and can do only the one task in its data."
            )
        return "\n\n".join(lines)

    def _evaluation(self) -> str:
        parts = []
        for compared in self.compared:
            headline = base_vs_sft.headline(compared, self.config.reference)
            parts += [markdown_table(headline), f"{base_vs_sft.protocol(compared.known)}."]
        if parts:
            parts.append(base_vs_sft.LEGEND)
            if held_out := self._held_out():
                parts.append(
                    f"`{held_out}` is the part of the dataset that was kept out of training."
                )
            if self.config.reference:
                parts.append(f"**{base_vs_sft.published(self.config.reference)}**")
        if pending := self._pending():
            parts.append("Pending:\n" + "\n".join(f"- {text}" for text in pending))
        return "\n\n".join(parts)

    def _pending(self) -> list[str]:
        """Returns a line per incomplete or missing evaluation of the base model and this step,
        without RL's pool.
        """
        begun = {}
        for folder in self.run.evaluations:
            if is_of_pool(folder):
                continue
            label = parse_evaluation(folder)[1]
            if not is_complete(folder) and label in (BASE, self.label):
                begun[label] = f"{label}: `{folder.name}` is not finished"
        missing = {
            BASE: not any(c.base for c in self.compared),
            self.label: not any(c.sft for c in self.compared),
        }
        absent = [
            f"{label}: not evaluated yet"
            for label in missing
            if missing[label] and label not in begun
        ]
        return [*begun.values(), *absent]

    def _held_out(self) -> str | None:
        """Returns the name of the evaluated set that is the dataset's held-out file; None if there
        is none.
        """
        theirs = self.dataset["files"][HELD_OUT] if self.dataset else None
        sets = (item for e in self.evaluations for item in e.settings.benchmarks.items())
        return next((name for name, content in sets if content == theirs), None)

    def _usage(self) -> str:
        if self.compared:
            sampling = self.compared[0].known.settings.sampling
        else:
            sampling = evaluate.sampling(self.config)
        model = self.repo or "path/to/this/folder"
        problem = self._problem()
        return "\n\n".join(
            [
                "The tokenizer has the chat template that the model was trained with. Sampling "
                f"and budget ({sampling.max_tokens:,} tokens, including the reasoning) are those "
                "of the evaluation.",
                _fenced(usage.transformers(model, problem, sampling), "python"),
                _fenced(usage.vllm(model, problem, sampling), "python"),
                f"For RL with verl: `actor_rollout_ref.model.path={model}`. A conversation looks "
                "like this:",
                _fenced(chat.render(problem, usage.PATTERN)),
            ]
        )

    def _problem(self) -> str:
        """Returns the shortest held-out problem, or a fixed problem if there are none."""
        path = dataset_folder(self.config) / HELD_OUT
        problems = [row["problem"] for row in read_jsonl(path)] if self.dataset else []
        return min(
            problems, key=len, default="What is the remainder when $7^{100}$ is divided by 13?"
        ).strip()

    def _training(self) -> str:
        table = run_facts.recipe(self.config, self._base(), self.steps[-1])
        return "\n\n".join(
            [
                table,
                run_facts.training(self.steps),
                f"![loss by step]({LOSS_PICTURE})",
                run_facts.MILESTONES,
                run_facts.milestones(self.steps, self.config.reference),
            ]
        )

    def _licence(self) -> str:
        known = self.config.model.license
        own = "The base model's licence applies to the weights."
        if known:
            own = f"The weights are under `{known}`."
        return f"{own} The training data has its own terms."

    def _citation(self) -> str:
        made = (self.run.export(self.step) / MANIFEST).stat().st_mtime
        facts_of = {
            "title": f"{{{self.name}}}: a warm start for reinforcement learning, "
            f"{self.step} steps of SFT",
            "year": str(datetime.datetime.fromtimestamp(made, datetime.UTC).year),
            "note": f"Made with Warmstart, commit {run_facts.origin(self.run)['git']}",
        }
        if self.repo:
            facts_of["howpublished"] = f"\\url{{https://huggingface.co/{self.repo}}}"
        inner = "".join(f",\n  {key} = {{{value}}}" for key, value in facts_of.items())
        return (
            f"```bibtex\n@misc{{{self.name.lower()}-step{self.step}{inner}\n}}\n```\n\n"
            "Please cite the base model and the data as their authors ask."
        )


def _fenced(text: str, language: str = "") -> str:
    """Returns a code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
