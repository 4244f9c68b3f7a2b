"""Prepares a dataset for the hub: parquet files that ``datasets.load_dataset`` reads, and a card.

The rows have our own columns, which ``data.columns`` can read back, and the same conversation as
``messages``, the form that other trainers read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.files import MANIFEST, sha256_file, write_text
from common.records import ROW, row_of
from common.text import fenced, markdown_table, shortened
from data_prep import rules
from data_prep.output.write import ROWS
from data_prep.tokenizer.prompt import BARE
from eval.card import citation
from eval.card.training_data import TrainingData
from eval.report import run_facts
from trainer.export.hub_upload import CARD

TEXT = 1_500
"""Maximum length of the example row's solution, in characters."""
BATCH = 1_000
"""Rows per row group."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
LARGEST = "1M<n<10M"
"""The hub's size categories: (fewer rows than, name), and the name for more rows."""
COLUMNS = {
    "id": "hash of source, uuid and trace",
    "source": "where the record came from, as the source names it",
    "uuid": "the source's own id of the record, or a hash of the problem",
    "trace": "index of the chosen solution among those of the record",
    "problem": "the problem",
    "solution": "the reasoning in one think block, then the answer",
    "answer": "the answer alone",
    "messages": "the conversation: earlier turns if there are any, the problem and the solution",
}
STYLES = {
    "boxed": "the answer is in the last `\\boxed{}` after the think block",
    "answer_is": 'the answer is stated after the think block as "The answer is N."',
}
"""Answer style -> how a solution gives its answer."""


def stage(data: TrainingData, config: DictConfig, repo: str, target: Path) -> None:
    """Writes the files to upload into the folder ``target``: data/train.parquet, data/test.parquet
    if rows are held out, and README.md. ``repo`` is the dataset's OWNER/NAME on the hub.
    """
    splits = [split for split, count in data.manifest["rows"].items() if count]
    for split in splits:
        _write_rows(data.folder / ROWS, split, target / "data" / f"{split}.parquet")
    write_text(target / CARD, text(data, config, repo))


def text(data: TrainingData, config: DictConfig, repo: str) -> str:
    """Returns the card: YAML metadata, then Markdown."""
    from huggingface_hub import DatasetCard

    name = repo.rpartition("/")[2]
    sections = {
        "": _summary(data, name),
        "How to use": _usage(data, repo),
        "Columns": markdown_table([("column", "content"), *COLUMNS.items()], "ll"),
        "Example": _example(data),
        "How the rows were chosen": _rows(data),
        "Limitations": "\n".join(f"- {line}" for line in _limitations(data)),
        "Licence": _licence(data, config),
        "Citation": _citation(data, config, repo),
        "Provenance": _provenance(data),
    }
    body = "\n\n".join(
        f"## {title}\n\n{content}" if title else content for title, content in sections.items()
    )
    header = _metadata(data, config, name).to_yaml()
    # DatasetCard parses the metadata again, so a card with broken metadata raises here.
    return str(DatasetCard(f"---\n{header}\n---\n\n{body}\n"))


def _write_rows(rows: Path, split: str, target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    target.parent.mkdir(parents=True, exist_ok=True)
    source = pq.ParquetFile(rows)
    kept = [source.schema_arrow.field(column) for column in ROW if column in COLUMNS]
    schema = pa.schema([*kept, ("messages", pa.list_(turn))])
    with pq.ParquetWriter(target, schema) as sink:
        for batch in source.iter_batches(batch_size=BATCH):
            chosen = [row for row in batch.to_pylist() if row.pop("split") == split]
            if chosen:
                sink.write_table(pa.Table.from_pylist(list(map(_row, chosen)), schema))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    turns = [*BARE.messages(row_of(row)), {"role": "assistant", "content": row["solution"]}]
    return {name: row[name] for name in COLUMNS if name in row} | {"messages": turns}


def _metadata(data: TrainingData, config: DictConfig, name: str) -> Any:
    from huggingface_hub import DatasetCardData

    rows = data.manifest["rows"]
    total, hub = sum(rows.values()), data.source.get("hub")
    tags = ["math", "reasoning", "chain-of-thought", "sft"]
    tags += ["synthetic"] if data.writer or "generator" in data.source else []
    return DatasetCardData(
        language="en",
        license=licence(data, config),
        task_categories=["text-generation"],
        size_categories=next((size for limit, size in SIZES if total < limit), LARGEST),
        source_datasets=[hub] if hub else None,
        tags=tags,
        pretty_name=name,
        configs=[
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": f"data/{split}.parquet"}
                    for split, count in rows.items()
                    if count
                ],
            }
        ],
    )


def licence(data: TrainingData, config: DictConfig) -> str | None:
    """Returns the dataset's licence: the recipe's, otherwise the one it was built with."""
    return config.data.license or data.manifest.get("license")


def _summary(data: TrainingData, name: str) -> str:
    rows, tokens = data.manifest["rows"], data.manifest["tokens"]
    style = data.manifest["settings"]["rows"].get("answer_style", "boxed")
    counts = f"{rows['train']:,} training rows ({tokens['train']:,} tokens)"
    if rows["test"]:
        counts += f" and {rows['test']:,} held-out rows ({tokens['test']:,} tokens)"
    return (
        f"# {name}\n\n{counts} for supervised fine-tuning of a reasoning model on mathematics, "
        f"from {run_facts.source(data.manifest)}. Each solution reasons inside one `<think>` "
        f"block; {STYLES[style]}. Tokens are those of the tokenizer that the dataset was built "
        "for, prompt and end of turn included."
    )


def _usage(data: TrainingData, repo: str) -> str:
    columns = "{problem: problem, solution: solution, answer: answer, uuid: uuid}"
    if "messages" in (data.manifest["settings"]["rows"]["columns"] or {}):  # may have earlier turns
        columns = "{messages: messages, answer: answer, uuid: uuid}"
    return "\n\n".join(
        [
            fenced(
                f'from datasets import load_dataset\n\nrows = load_dataset("{repo}", '
                'split="train")\nprint(rows[0]["messages"])',
                "python",
            ),
            "With Warmstart:",
            fenced(f"warmstart data RECIPE data.source={repo} 'data.columns={columns}'", "bash"),
        ]
    )


def _example(data: TrainingData) -> str:
    row = data.example()
    parts = (
        ("Problem", row["problem"]),
        ("Solution", shortened(row["solution"], TEXT)),
        ("Answer", row["answer"]),
    )
    return "\n\n".join(f"{title}:\n\n{fenced(said)}" for title, said in parts)


def _rows(data: TrainingData) -> str:
    checks = [
        step.removeprefix("dropped: ")
        for step in data.manifest["funnel"]
        if step.startswith("dropped: ")
    ]
    return "\n\n".join(
        [
            run_facts.data(data.manifest),
            "Reasons for which a row could be dropped, in the order of the checks:",
            "\n".join(f"- {check}" for check in checks),
        ]
    )


def _limitations(data: TrainingData) -> Iterator[str]:
    if not data.has_negative_answers:
        yield "No training row has a negative number as its answer."
    if data.has_only_whole_answers:
        yield "The answer of every training row is a whole number."
    yield (
        "Programs chose the rows. No person checked their reasoning or their answers for this "
        "dataset, and both can be wrong."
    )


def _licence(data: TrainingData, config: DictConfig) -> str:
    stated = licence(data, config)
    lines = [f"The dataset is under `{stated}`." if stated else "No licence is stated."]
    if hub := data.source.get("hub"):
        lines.append(
            f"Its records come from [{hub}](https://huggingface.co/datasets/{hub}), whose terms "
            "apply to them."
        )
    if data.writer:
        lines.append(data.writer.sentence())
    return " ".join(lines)


def _citation(data: TrainingData, config: DictConfig, repo: str) -> str:
    name = repo.rpartition("/")[2]
    made = (data.folder / MANIFEST).stat().st_mtime
    title = f"{{{name}}}: {data.rows:,} rows for supervised fine-tuning on mathematics"
    url = f"https://huggingface.co/datasets/{repo}"
    authors = list(config.run.authors)
    return citation.bibtex(name.lower(), title, authors, made, data.manifest["git"], url)


def _provenance(data: TrainingData) -> str:
    manifest, settings = data.manifest, data.manifest["settings"]
    source = {k: v for k, v in settings["source"].items() if not isinstance(v, dict | list)}
    inner = [v for v in settings["source"].values() if isinstance(v, dict)]
    values = {
        "manifest": sha256_file(data.folder / MANIFEST),
        "git commit": manifest["git"],
        **{f"source, {k}": v for k, v in source.items()},
        **{f"source, {k}": v for one in inner for k, v in one.items()},
        **{f"source file {name}": digest for name, digest in settings["source"].get("files", [])},
        **{f"rows, {k}": v for k, v in settings["rows"].items()},
        **{f"version of the rules, {k}": v for k, v in rules.of_dataset(settings).items()},
        **{f"compared with {k}": v for k, v in settings["benchmarks"].items()},
        **manifest["versions"],
    }
    return run_facts.fields({key: f"`{value}`" for key, value in values.items()})
