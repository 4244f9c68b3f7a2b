"""The settings of an evaluation: everything that changes a rollout or its grade."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from common.errors import UserError, first_line
from common.files import read_json
from data_prep.tokenizer.prompt import Prompt
from eval.generation.settings import SamplingSettings
from trainer.run.model_label import ModelLabel

SETTINGS = "settings.json"


@dataclass(frozen=True)
class EvaluationSettings:
    """The content of an evaluation's settings.json."""

    label: ModelLabel
    identity: dict[str, str | None]
    """The model's file names and hashes, or its hub name and revision."""
    benchmarks: dict[str, str]
    """Set -> SHA-256 of its file."""
    template: str
    """Hash of the chat template."""
    tokenizer: str
    """Hash of tokenizer.json."""
    limit: int | None
    """Maximum number of problems per set."""
    answer_style: str
    """The extractor, one of ``eval.grading.grade.EXTRACTORS``."""
    prompt: Prompt
    sampling: SamplingSettings
    dtype: str

    def to_json(self) -> dict[str, Any]:
        """Returns the values as settings.json has them. Their hash names the evaluation's folder,
        so an added key gives every evaluation a new folder.
        """
        return {
            "model": {"label": str(self.label), "identity": self.identity},
            "benchmarks": self.benchmarks,
            "template": self.template,
            "tokenizer": self.tokenizer,
            "limit": self.limit,
            "answer_style": self.answer_style,
            **asdict(self.sampling),
            "dtype": self.dtype,
            **self.prompt.to_json(),
        }

    @staticmethod
    def read(path: Path) -> EvaluationSettings:
        """Returns the settings in a file. Raises UserError when it holds none."""
        try:
            return EvaluationSettings.from_json(read_json(path))
        except (KeyError, TypeError) as e:
            raise UserError(
                f"{path} does not hold an evaluation's settings ({first_line(e)}): move its folder "
                "away"
            ) from e

    @staticmethod
    def from_json(values: dict[str, Any]) -> EvaluationSettings:
        """Returns the settings of a settings.json; one without ``answer_style``, which older code
        wrote, has boxed answers.
        """
        values = {"answer_style": "boxed", **values}
        keys = ("benchmarks", "template", "tokenizer", "limit", "answer_style", "dtype")
        sampling = {field.name: values[field.name] for field in fields(SamplingSettings)}
        model = values["model"]
        return EvaluationSettings(
            label=ModelLabel.parse(model["label"]),
            identity=model["identity"],
            **{key: values[key] for key in keys},
            prompt=Prompt.from_json(values),
            sampling=SamplingSettings(**sampling),
        )
