"""The settings that determine a dataset's content, as recorded in its manifest."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from common.differences import differences
from common.errors import UserError
from common.files import MANIFEST, read_json
from data_prep import rules
from data_prep.answers import answer_is
from data_prep.benchmarks import sets as benchmarks
from data_prep.duplicates import benchmark_index, decontaminate, formulas, minhash, tfidf
from data_prep.output import stratify
from data_prep.rows import filters, language
from data_prep.rows.map_shard import RowSettings
from data_prep.source.source import Source
from data_prep.synth import check_arithmetic, check_problem
from data_prep.tokenizer import chat

THRESHOLDS = {
    "filters": filters,
    "language": language,
    "dedup": minhash,
    "formulas": formulas,
    "overlap": benchmark_index,
    "decontaminate": decontaminate,
    "subset": stratify,
}
SYNTHETIC_THRESHOLDS = {"checks": check_problem, "steps": check_arithmetic, "similar": tfidf}
"""Name in the manifest -> module with the thresholds. A renamed module keeps its old name here,
because otherwise old datasets would not be recognised.
"""


@dataclass(frozen=True)
class Settings:
    """Everything that determines a dataset's content."""

    source: Source
    rows: RowSettings
    tokenizer: str
    """``model``, ``qwen3`` or ``trained``."""
    model: str
    """Base model that provides the tokenizer ``model``."""
    model_revision: str | None
    benchmarks: Path
    decontaminate: tuple[str, ...]
    """Benchmark sets whose problems must not be in the dataset."""
    train_rows: int | None
    test_rows: int
    max_bad_records: int
    spare_share: float = 0.0
    """Share of the good rows, held-out ones not counted, to leave out; applies only without
    ``train_rows``.
    """


def recorded(settings: Settings, source: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings as recorded in the manifest: what determines the content, not where the
    files are.
    """
    modules = dict(THRESHOLDS)
    rows = settings.rows
    if rows.filters == "synthetic":
        modules |= SYNTHETIC_THRESHOLDS
    if rows.answer_style == "answer_is" and "messages" not in (rows.columns or {}):
        modules["answer_is"] = answer_is
    # The source is replaced because it may hold a backend, which is not a value to record.
    values = asdict(replace(settings, source=Source("")))
    values |= {
        "source": source,
        "template": chat.template_identity(chat.template()),
        "rules": rules.current(),
        "thresholds": _thresholds(modules),
    }
    values["benchmarks"] = benchmarks.hashes(settings.benchmarks, list(settings.decontaminate))
    del values["decontaminate"]
    if not settings.spare_share:  # as datasets from before it existed
        del values["spare_share"]
    if settings.tokenizer != "model":
        del values["model"], values["model_revision"]
    # Round trip, so that it compares equal to what is read from a manifest.
    return json.loads(json.dumps(values))


def check_same(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    """Raises UserError naming each difference between what ``folder`` was built from and ``new``.

    A row setting that older code lacked counts as its default, which is how that code behaved; a
    setting that no longer exists is ignored. Other versions of the rules do not make another
    dataset: it keeps the rules and thresholds it was built with.
    """
    known = {field.name: field.default for field in fields(RowSettings)}
    rows = {name: default for name, default in known.items() if default is not MISSING}
    rows |= {name: value for name, value in old["rows"].items() if name in known}
    own: dict[str, Any] = {"rows": rows}
    if rules.of_dataset(old) != new["rules"]:
        own |= {"rules": new["rules"], "thresholds": new["thresholds"]}
    if changed := differences(old | own, new):
        raise UserError(
            f"{folder} was built with other settings:\n  "
            + "\n  ".join(changed.values())
            + "\nuse another name (data.name=NAME), or delete that folder; a run that was started "
            "on it resumes with warmstart train"
        )


def other_rules(folder: Path) -> str:
    """Returns one line about a dataset that was built under other versions of the rules than this
    code has; empty if it has the same versions.
    """
    built, now = rules.of_dataset(read_json(folder / MANIFEST)["settings"]), rules.current()
    if built == now:
        return ""
    told = ", ".join(f"{name} {built[name]} (now {now[name]})" for name in now)
    return (
        f"{folder} was built under other versions of the rules: {told}; it is used unchanged, and "
        "data.name=NAME builds one under the current rules"
    )


def _thresholds(modules: dict[str, ModuleType]) -> dict[str, Any]:
    """Returns the modules' public upper-case numbers and tuples, keyed ``recorded name.NAME``."""
    return {
        f"{recorded_name}.{name}": value
        for recorded_name, module in modules.items()
        for name, value in vars(module).items()
        if name.isupper() and name[0] != "_" and isinstance(value, int | float | tuple)
    }
