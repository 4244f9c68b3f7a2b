"""The card of an SFT checkpoint. Its figures come from the functions that write the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import MANIFEST, read_json
from common.records import Row, row_of
from common.text import fenced, markdown_table, shortened
from data_prep.tokenizer import chat
from data_prep.tokenizer.prompt import PROBLEM, Prompt
from eval import evaluate
from eval.card import citation, limitations, method, training_data, usage
from eval.card.metadata import metadata
from eval.generation.vllm_actor import NF4
from eval.report import run_facts
from eval.results import base_vs_sft, published, siblings
from eval.results.evaluation import Evaluation, check_graders, is_of_pool
from trainer.recipe import load as configs
from trainer.run import device_hours, frozen_config
from trainer.run.device_hours import Cost
from trainer.run.folder import LOSS_PICTURE, Run, is_complete, parse_evaluation
from trainer.run.model_label import BASE, ModelLabel

NO_DATASET = (
    "The dataset was not available when this card was written. Its manifest's hash is below."
)
SHOWN = 1_500
"""Maximum length of the example conversation, in characters."""
PROBLEM_SHOWN = "What is the remainder when $7^{100}$ is divided by 13?"
"""The problem in the programs when the dataset is not known."""


class SftCard:
    """One card; each method is a section."""

    def __init__(
        self,
        run: Run,
        folder: Path,
        steps: list[dict[str, Any]],
        repo: str | None,
        overrides: Sequence[str],
    ) -> None:
        self.run, self.folder, self.steps, self.repo = run, folder, steps, repo
        self.export = read_json(folder / MANIFEST)
        self.step: int = self.export["step"]
        self.label = ModelLabel.parse(folder.name)
        config = frozen_config.read(run, run.attempts[-1].config)
        self.config = configs.amend(config, overrides) if overrides else config
        self.prompt = Prompt(self.config.data.prompt, self.config.data.system)
        self.compared = base_vs_sft.of_model(run, self.label)
        self.seeds = [siblings.find(run, c.sft) for c in self.compared if c.sft]
        self.evaluations = self._shown()
        check_graders(self.evaluations)
        self.data = training_data.read(self.config, self.export["dataset"])
        self.row = self.data.example() if self.data else None
        self.style = self.config.data.answer_style
        self.example = (
            row_of(self.row)
            if self.row
            else Row("", "", "", 0, PROBLEM_SHOWN, usage.PATTERNS[self.style], "")
        )
        self.name = repo.rpartition("/")[2] if repo else f"{run.name}{self._suffix}"

    def text(self) -> str:
        """Returns the card: YAML metadata, then Markdown."""
        from huggingface_hub import ModelCard

        sections = {
            "": self._summary(),
            "Evaluation": self._evaluation(),
            "How to use": self._usage(),
            "Training": self._training(),
            "Data": run_facts.data(self.data.manifest) if self.data else NO_DATASET,
            "Cost": device_hours.table(self._costs()),
            "Limitations": self._limitations(),
            "Licence": self._licence(),
            "Citation": self._citation(),
            "Provenance": self._provenance(),
        }
        body = "\n\n".join(
            f"## {title}\n\n{text}" if title else text for title, text in sections.items()
        )
        header = self._metadata().to_yaml()
        # ModelCard parses the metadata again, so a card with broken metadata raises here.
        return str(ModelCard(f"---\n{header}\n---\n\n{body}\n"))

    def _shown(self) -> list[Evaluation]:
        """Returns the evaluations that the card shows."""
        return [e for c in self.compared for e in c.both]

    def _metadata(self) -> Any:
        return metadata(self.config, self.name, self.data, self.compared)

    def _costs(self) -> list[Cost]:
        return device_hours.costs(self.run, [e.folder for e in self.evaluations], self.step)

    def _limitations(self) -> str:
        seeds = bool(self.seeds) and all(self.seeds)
        return limitations.text(self.compared, self.data, self.config, other_seeds=seeds)

    def _provenance(self) -> str:
        origins = {"dataset manifest": self.export["dataset"], "attempts": len(self.run.attempts)}
        return run_facts.provenance_table(self.run, origins, self.evaluations)

    @property
    def _suffix(self) -> str:
        """The end of the model's name if it has no name on the hub."""
        return ""

    def _summary(self) -> str:
        return self._introduced(
            f"A warm start for reinforcement learning on mathematics: {self._sft()}. "
            f"{self._form()}",
            purpose="It is meant as the starting policy of RL with verifiable rewards, and as a "
            "baseline for studying what RL adds to SFT. It is not meant as an assistant: this "
            "training added no RL, no preference tuning and no safety training to the base model.",
        )

    def _introduced(self, *what: str, purpose: str) -> str:
        """Returns the title, what the model is, the method's details and its purpose."""
        lines = [f"# {self.name}", *what]
        if details := method.details(self.config, self.export):
            lines.append(details)
        lines.append(purpose)
        if self.config.model.init is not None:
            lines.append(method.RANDOM)
        return "\n\n".join(lines)

    def _sft(self) -> str:
        """Returns a description of SFT, as text."""
        rows = "a dataset"
        if self.data:
            rows = f"{self.data.rows:,} rows of {run_facts.source(self.data.manifest)}"
        done = method.of_summary(self.config, self.export)
        return f"{method.base(self.config)} after {self.step:,} steps of {done} on {rows}"

    def _form(self) -> str:
        return (
            "It was trained to think inside one `<think>` block, then to "
            f"{method.ANSWERS[self.style]} and to end its turn with `<|im_end|>`."
        )

    def _tables(self) -> list[str]:
        """Returns the evaluations' tables, each with its protocol."""
        parts = []
        for compared in self.compared:
            headline = base_vs_sft.headline(compared, self.config.reference)
            parts += [markdown_table(headline), f"{base_vs_sft.protocol(compared.known)}."]
        return parts

    def _evaluation(self) -> str:
        if parts := self._tables():
            parts.append(base_vs_sft.LEGEND)
            parts += [f"**{found.sentence()}**" for found in self.seeds if found]
            if held_out := self._held_out():
                parts.append(
                    f"`{held_out}` is the part of the dataset that was kept out of training."
                )
            if self.label.kind == "sft" and self.config.reference:
                parts.append(f"**{published.note(self.config.reference, self.compared[0].known)}**")
        if pending := self._pending():
            parts.append("Pending:\n" + "\n".join(f"- {text}" for text in pending))
        return "\n\n".join(parts)

    def _pending(self) -> list[str]:
        """Returns a line per incomplete or missing evaluation; the RL pool's is not counted."""
        begun, wanted = {}, self._wanted()
        for folder in self.run.evaluations:
            if is_of_pool(folder):
                continue
            label = parse_evaluation(folder)[1]
            if not is_complete(folder) and label in wanted:
                begun[label] = f"{label}: `{folder.name}` is not finished"
        absent = [
            f"{label}: not evaluated yet"
            for label, there in wanted.items()
            if not there and label not in begun
        ]
        return [*begun.values(), *absent]

    def _wanted(self) -> dict[ModelLabel, bool]:
        """Returns the models whose figures the card should show -> whether it has any of them."""
        return {
            BASE: any(c.base for c in self.compared),
            self.label: any(c.sft for c in self.compared),
        }

    def _held_out(self) -> str | None:
        """Returns the name of the evaluated set that is the dataset's held-out file; None if there
        is none.
        """
        theirs = self.data.held_out if self.data else None
        sets = (item for e in self.evaluations for item in e.settings.benchmarks.items())
        return next((name for name, content in sets if content == theirs), None)

    def _usage(self) -> str:
        if self.compared:
            settings = self.compared[0].known.settings
            sampling, dtype, whose = settings.sampling, settings.dtype, "the evaluation"
        else:
            sampling, dtype = evaluate.sampling(self.config), self.config.eval.dtype
            whose = "the planned evaluation"
        model = self.repo or "path/to/this/folder"
        problem = self.prompt.messages(self.example)[-1]["content"]
        parts = [
            "The tokenizer has the chat template that the model was trained with. "
            f"{self._asked()}Sampling ({usage.how(sampling)}) and budget "
            f"({sampling.max_tokens:,} tokens, including the reasoning) are those of {whose}."
        ]
        if dtype == NF4:
            parts.append(
                f"For {whose}, vLLM loads the weights in 4 bits, as the second program does; the "
                "first one uses them in 16 bits, as they are stored."
            )
        parts += [
            fenced(usage.transformers(model, problem, sampling, dtype), "python"),
            fenced(usage.vllm(model, problem, sampling, dtype), "python"),
            *self._answers(),
            f"For RL with verl: `actor_rollout_ref.model.path={model}`.",
            *self._conversation(),
        ]
        return "\n\n".join(parts)

    def _asked(self) -> str:
        """Returns what training added to each problem, as sentences; empty if nothing."""
        said = ""
        if self.prompt.text != PROBLEM:
            said = "Each problem was asked as in the examples, with the same added text. "
        if self.prompt.system:
            said += (
                "Conversations without a system turn get the one of training, "
                f"{usage.quoted(self.prompt.system)}. "
            )
        return said

    def _answers(self) -> list[str]:
        style = self.compared[0].known.settings.answer_style if self.compared else self.style
        if style != "answer_is":
            return [f"The graded answer is {base_vs_sft.ANSWERS[style]}."]
        return [
            'The graded answer is the number after the first "answer is" or "answer:" after '
            "`</think>`, or else the last number there, as this function finds it:",
            fenced(usage.extraction(), "python"),
        ]

    def _conversation(self) -> list[str]:
        text = chat.render(self.example, self.prompt)
        if self.row is None:
            return ["A conversation has this form:", fenced(text)]
        whose = "a held-out row" if self.row["split"] == "test" else "a training row"
        cut = ", without its middle" if len(text) > SHOWN else ""
        return [
            f"A conversation has this form ({whose} of its dataset{cut}):",
            fenced(shortened(text, SHOWN)),
        ]

    def _training(self) -> str:
        table = run_facts.recipe(self.config, method.base(self.config), self.steps[-1])
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
        lines = ["The base model's licence applies to the weights."]
        if known := self.config.model.license:
            lines = [f"The weights are under `{known}`."]
        stated = self.config.data.license or (self.data and self.data.manifest.get("license"))
        if stated:
            lines.append(f"The training data is under `{stated}`.")
        else:
            lines.append("The training data has its own terms, which this run does not state.")
        if self.data and self.data.writer:
            lines.append(self.data.writer.sentence())
        return " ".join(lines)

    def _citation(self) -> str:
        key, title = self._cited()
        entry = citation.bibtex(
            f"{self.name.lower()}-{key}",
            f"{{{self.name}}}: {title}",
            list(self.config.run.authors),
            (self.folder / MANIFEST).stat().st_mtime,
            run_facts.origin(self.run)["git"],
            f"https://huggingface.co/{self.repo}" if self.repo else None,
        )
        return f"{entry}\n\nPlease cite the base model and the data as their authors ask."

    def _cited(self) -> tuple[str, str]:
        """Returns the ends of the citation's key and title."""
        return (
            f"step{self.step}",
            f"a warm start for reinforcement learning, {self.step} steps of SFT",
        )
