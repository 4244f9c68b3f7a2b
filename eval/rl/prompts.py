"""Writes problems for verl's RL dataset: parquet with the chat, the gold answer, and the problem's
source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.records import Problem
from data_prep.tokenizer.prompt import Prompt


def write(
    path: Path,
    problems: Sequence[Problem],
    prompt: Prompt,
    facts: Mapping[str, Mapping[str, Any]],
) -> None:
    """Writes one row per problem, in order.

    ``prompt`` is the conversation up to the answer, as in SFT; ``data_source`` is the problem's
    set, by which verl groups its metrics; ``extra_info`` has the problem's index, its id, and
    ``facts[id]``, with the same keys for all.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = [
        {
            "data_source": p.set,
            "prompt": prompt.messages(p),
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": p.answer},
            "extra_info": {"index": i, "id": p.id} | dict(facts.get(p.id, {})),
        }
        for i, p in enumerate(problems)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
