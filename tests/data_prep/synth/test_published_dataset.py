"""The published dataset, clarkkitchen22/SynthGSM8K-50K, as the source of the QLoRA recipe.

synthgsm8k.jsonl has its schema: the columns id, question, solution (with annotations, without a
#### line) and answer (a float). It is that of revision ebf8f270, as a public preparation script of
the dataset checks it; the same source counts 50,418 rows and 37,421 different ids. So rows must
not be told apart by id. The problems are our own; the last one's arithmetic is wrong.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.files import read_json
from tests.hub import serving, warm

NAME = "clarkkitchen22/SynthGSM8K-50K"
WORDS = [
    "data",
    "qlora_gsm8k_4b",
    f"data.source={NAME}",
    "data.columns={problem: question, uuid: null}",
    "model.tokenizer=qwen3",
    "data.decontaminate=[]",
    "data.train_rows=5",
    "data.test_rows=1",
    "data.processes=1",
]
FIXTURE = Path(__file__).with_name("synthgsm8k.jsonl")


def parquet(folder: Path) -> bytes:
    records = [json.loads(line) for line in FIXTURE.read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(records), folder / "source.parquet")
    return (folder / "source.parquet").read_bytes()


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_every_right_row_is_kept_and_states_its_number(kind: str, tmp_path: Path) -> None:
    content = parquet(tmp_path) if kind == "parquet" else FIXTURE.read_bytes()
    with serving({f"datasets/{NAME}": {f"train.{kind}": content}}) as hub:
        done = warm(tmp_path, hub.url, *WORDS)
    assert done.returncode == 0, done.stderr
    data = tmp_path / "data" / "qlora_gsm8k_4b"
    rows = {row["problem"]: row for row in pq.read_table(data / "rows.parquet").to_pylist()}
    assert len(rows) == 6
    assert {row["answer"] for row in rows.values()} == {"108", "9", "50", "2.5", "1000", "100"}
    (row,) = (row for problem, row in rows.items() if problem.startswith("A baker"))
    assert row["solution"] == (
        "<think>\nThe baker makes 12*9 = 108 muffins.\n</think>\nThe answer is 108."
    )
    funnel = read_json(data / "manifest.json")["funnel"]
    assert funnel["dropped: math verification: wrong arithmetic"] == 1
    assert read_json(data / "manifest.json")["numbers"] == {
        "operations_per_solution": pytest.approx(8 / 6),
        "annotated_share": 1.0,
        "integer_share": pytest.approx(5 / 6),
        "smallest_answer": 2.5,
        "largest_answer": 1000.0,
    }
    report = (data / "report.md").read_text()
    for line in ("solution | 1.3 |", "answers | 83.3% |", "answers | 2.5 to 1,000 |"):
        assert line in report
