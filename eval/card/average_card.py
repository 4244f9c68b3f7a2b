"""The card of an average of checkpoints: its members and their sources, and its figures next to
theirs.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import Any

from common.text import markdown_table
from eval.card import method
from eval.card.sft_card import SftCard
from eval.results import average_vs_members, base_vs_sft
from eval.results.average_vs_members import AverageComparison
from eval.results.evaluation import Evaluation
from trainer.run.model_label import ModelLabel

SOURCES = {"checkpoint": "its checkpoint (fp32)", "export": "its export (bf16)"}
"""Source of a member's weights -> text for the card."""
MERGED = {"checkpoint": "its adapters, merged (fp32)", "export": "its merged export (bf16)"}
"""The same for a QLoRA."""
WHY = (
    "Averages of early and late checkpoints, or of a model and its base, can have a higher pass@k "
    "than the last checkpoint (arXiv 2504.10478, 2606.09932). Only its evaluation shows whether "
    "this one does."
)


class AverageCard(SftCard):
    """The sections of the SFT card, changed for an average."""

    @cached_property
    def averaged(self) -> list[AverageComparison]:
        """The average's complete evaluations, compared with those of its members."""
        return average_vs_members.of_model(self.run, self.label)

    @cached_property
    def members(self) -> list[dict[str, Any]]:
        """The members, from the export's manifest."""
        return self.export["average"]["members"]

    @cached_property
    def base(self) -> Fraction:
        """The base model's share."""
        return Fraction(self.export["average"]["base"])

    @property
    def _suffix(self) -> str:
        return f"-{self.label.word}"

    def _shown(self) -> list[Evaluation]:
        found = {e.folder: e for c in self.averaged for e in c.all}
        return list(found.values()) or super()._shown()

    def _metadata(self) -> Any:
        found = super()._metadata()
        found.tags = [*found.tags, "merge"]
        return found

    def _limitations(self) -> str:
        return (
            "- It is an average of weights that no training step produced.\n"
            f"{super()._limitations()}"
        )

    def _provenance(self) -> str:
        lines = [["average of", "manifest"]]
        for m in self.members:
            lines.append([f"{m['source']} of step {m['step']:,}", f"`{m['manifest']}`"])
        for name, known in self.export["average"].get("base_model", {}).items():
            lines.append([f"base {name}", f"`{known}`"])
        lines.append(["git commit of the export", f"`{self.export['git']}`"])
        return f"{super()._provenance()}\n\n{markdown_table(lines)}"

    def _summary(self) -> str:
        return self._introduced(
            self._what(),
            self._members(),
            WHY,
            purpose="It is meant as a starting policy of RL with verifiable rewards, and for "
            "studying what averaging changes. It is not meant as an assistant: no RL, no "
            "preference tuning and no safety training were added to the base model.",
        )

    def _what(self) -> str:
        if len(self.members) > 1:
            steps = ", ".join(f"{m['step']:,}" for m in self.members)
            what = f"The average of {len(self.members)} checkpoints (steps {steps}) of one run"
        else:
            what = f"The checkpoint of step {self.members[0]['step']:,} of a run"
        if self.base:
            what += f", moved towards the base model by {_percent(self.base)}"
        return (
            f"{what}. **These weights were never trained:** they are a weighted mean, in bf16. The "
            f"last member is {self._sft()}. {self._form()}"
        )

    def _members(self) -> str:
        sources = MERGED if self.config.train.lora_rank else SOURCES
        lines = [["model", "share", "weights read from"]]
        for m in self.members:
            share = Fraction(m["weight"]) * (1 - self.base)
            lines.append([f"step {m['step']:,}", _percent(share), sources[m["source"]]])
        if self.base:
            path = f"its safetensors, {method.base(self.config)}"
            lines.append(["base model", _percent(self.base), path])
        return markdown_table(lines)

    def _tables(self) -> list[str]:
        parts = []
        for compared in self.averaged:
            table = markdown_table(average_vs_members.headline([compared]))
            parts += [table, f"{base_vs_sft.protocol(compared.average)}."]
        return parts or super()._tables()

    def _wanted(self) -> dict[ModelLabel, bool]:
        members = {
            ModelLabel(m["step"]): any(c.members.get(m["step"]) for c in self.averaged)
            for m in self.members
        }
        return super()._wanted() | members

    def _training(self) -> str:
        last = self.members[-1]["step"]
        return (
            f"The average itself was not trained. This is the training up to step {last:,}, its "
            f"last member.\n\n{super()._training()}"
        )

    def _cited(self) -> tuple[str, str]:
        steps = ", ".join(str(m["step"]) for m in self.members)
        moved = f", {_percent(self.base)} of the base model" if self.base else ""
        return self.label.word, f"an average of the SFT steps {steps}{moved}"


def _percent(share: Fraction) -> str:
    return f"{float(share * 100):.4g} %"
