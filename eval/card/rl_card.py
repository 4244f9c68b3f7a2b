"""The card of an RL model: what SFT did to the base model, and what RL added."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from common.text import markdown_table
from eval.card import limitations
from eval.card.metadata import metadata
from eval.card.sft_card import SftCard
from eval.report import rl_training, run_facts
from eval.results import base_vs_sft, rl_vs_sft
from eval.results.evaluation import Evaluation
from eval.results.rl_vs_sft import RlComparison
from trainer.run import rl_metrics, rl_models
from trainer.run.device_hours import Cost
from trainer.run.model_label import ModelLabel
from trainer.run.rl_metrics import RlStep
from trainer.run.rl_start import REWARD_PICTURE, RlStart


class RlCard(SftCard):
    """The sections of the SFT card, changed for RL."""

    @cached_property
    def rl(self) -> dict[str, Any]:
        """How the model was trained, from the export's manifest (``rl_models.facts``)."""
        return self.export["rl"]

    @cached_property
    def reinforced(self) -> list[RlComparison]:
        """The model's complete evaluations, compared with those of the SFT step that RL started
        from.
        """
        return rl_vs_sft.of_model(self.run, self.label)

    @cached_property
    def start(self) -> RlStart | None:
        """The RL start that made the model; None if it was deleted."""
        return rl_models.start_of(self.run, self.label)

    @cached_property
    def done(self) -> list[RlStep]:
        """The RL steps up to the model's."""
        return rl_metrics.read(self.start, self.label.rl) if self.start else []

    @property
    def _suffix(self) -> str:
        return "-rl"

    def _shown(self) -> list[Evaluation]:
        found = {e.folder: e for c in self.reinforced for e in c.all}
        return list(found.values())

    def _metadata(self) -> Any:
        return metadata(self.config, self.name, self.data, self.compared, rl=True)

    def _costs(self) -> list[Cost]:
        found = super()._costs()
        if self.start and self.done:
            found.append(rl_training.cost(self.start, self.done, self.config.device == "cpu"))
        return found

    def _limitations(self) -> str:
        return limitations.text(self.compared, self.data, self.config, self.rl)

    def _provenance(self) -> str:
        facts = {
            "start of RL": self.rl["start"],
            "manifest of the start": self.rl["manifest"],
            "git commit of the export": self.export["git"],
        }
        table = run_facts.fields({key: f"`{value}`" for key, value in facts.items()})
        return f"{super()._provenance()}\n\n{table}"

    def _summary(self) -> str:
        rl = self.rl
        return self._introduced(
            f"A model trained with reinforcement learning on mathematics: {self._sft()}, then "
            f"{rl['step']:,} steps of GRPO (start `{rl['start']}`) on {rl['problems']:,} problems, "
            f"{rl['rollouts']} rollouts of each, learning rate {rl['lr']:g}. {self._form()}",
            purpose="It is meant for studying what RL adds to SFT. It is not meant as an "
            "assistant: this training added no preference tuning and no safety training to the "
            "base model.",
        )

    def _tables(self) -> list[str]:
        parts = []
        for compared in self.reinforced:
            table = markdown_table(rl_vs_sft.headline([compared]))
            parts += [table, f"{base_vs_sft.protocol(compared.rl)}."]
        return parts

    def _wanted(self) -> dict[ModelLabel, bool]:
        start = {ModelLabel(self.step): any(c.sft for c in self.reinforced)}
        return super()._wanted() | start

    def _training(self) -> str:
        rl = self.rl
        penalty = "with a KL penalty" if rl["kl"] else "without a KL penalty"
        left = f"{rl['never']:,} never solved and {rl['always']:,} always solved were left out"
        table = run_facts.fields(
            {
                "method": f"GRPO with verl, all parameters, {penalty}",
                "reward": "1 for an exact match of the boxed answer, else 0",
                "start": f"`{rl['start']}`, from step {self.step:,} of SFT",
                "steps": f"{rl['step']:,} (planned: {rl['total']:,})",
                "problems": f"{rl['problems']:,}, solved by the start in some rollouts and not in "
                f"others; {left}; {rl['in_sft']:,} are also rows of SFT",
                "rollouts per step": f"{rl['rollouts']} of each of {rl['prompts']} problems",
                "sampling": f"temperature {rl['temperature']}, top-p {rl['top_p']}, at most "
                f"{rl['budget']:,} tokens",
                "learning rate": f"{rl['lr']:g}",
                "ranks": f"{rl['gpus']} ({self.config.device})",
            }
        )
        parts = ["### SFT", super()._training(), "### RL", table]
        if self.done:
            parts += [rl_training.table(self.done), *rl_training.budget(rl, self.done)]
            parts.append(rl_training.REGRESSION)
        if (self.folder / REWARD_PICTURE).exists():
            parts.append(f"![reward by step]({REWARD_PICTURE})")
        return "\n\n".join(parts)

    def _cited(self) -> tuple[str, str]:
        done = f"{self.rl['step']} steps of RL after {self.step} steps of SFT"
        return f"step{self.step}-rl{self.rl['step']}", done
