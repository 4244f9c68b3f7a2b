import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from data_prep.benchmarks.known import BENCHMARKS
from data_prep.benchmarks.sets import expand, hashes, load, protocol


def write(folder: Path, name: str, lines: list[Any]) -> None:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def problem(name: str | int = "a/1", **changes: Any) -> dict[str, Any]:
    return {"id": name, "problem": "1+1?", "answer": "2", "source": "x"} | changes


def test_loads_sets_in_order(tmp_path: Path) -> None:
    write(tmp_path, "one", [problem("a/1"), problem("a/2")])
    write(tmp_path, "two", [problem("a/1")])
    loaded = load(tmp_path, ["two", "one"], None)
    assert [(p.set, p.id) for p in loaded] == [("two", "a/1"), ("one", "a/1"), ("one", "a/2")]
    assert [(p.set, p.id) for p in load(tmp_path, ["one"], 1)] == [("one", "a/1")]
    first = hashes(tmp_path, ["one", "two"])
    assert set(first) == {"one", "two"} and first["one"] != first["two"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty"),
        ([problem(), {"id": "x", "problem": "y"}], r"bad.jsonl, line 2: no key 'answer'"),
        ([problem(problem=2)], r"line 1: problem must be text, not 2"),
        ([problem(answer=True)], r"line 1: answer must be text or a number, not True"),
        ([problem(answer=float("inf"))], r"line 1: answer must be text or a number, not inf"),
        ([problem(), problem("b", answer=" ")], "line 2: the answer ' ' is blank"),
        ([problem(answer=r"\text{ }")], "line 1: the answer .* is blank"),
        ([problem(), problem()], r"line 2: id 'a/1' is used twice"),
        ([[1]], "line 1: expected an object"),
        ([problem(problem=" \n")], "line 1: problem is blank"),
        ([problem(""), problem()], "line 1: id is blank"),
        ([problem(problem="\ud800")], "line 1: problem has a lone surrogate"),
    ],
)
def test_bad_file(tmp_path: Path, lines: list[Any], message: str) -> None:
    write(tmp_path, "bad", lines)
    with pytest.raises(UserError, match=message):
        load(tmp_path, ["bad"], None)


def test_ids_and_answers_may_be_numbers(tmp_path: Path) -> None:
    write(tmp_path, "one", [problem(1, answer=12), problem(2, answer=-3.0), problem(3, answer=0.5)])
    loaded = load(tmp_path, ["one"], None)
    assert [(p.id, p.answer) for p in loaded] == [("1", "12"), ("2", "-3"), ("3", "0.5")]


@pytest.mark.parametrize("name", ["total", "a|b", "../x", "a/b", "a+b", "-", ""])
def test_a_name_that_would_not_stand_in_a_path_or_a_table(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"cannot name a set.*rename its file"):
        load(tmp_path, [name], None)


def test_line_numbers_count_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps(problem()) + "\n\n{}\n")
    with pytest.raises(UserError, match="line 3: no key 'id'"):
        load(tmp_path, ["bad"], None)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a folder.*eval.benchmarks=DIR"):
        load(tmp_path / "none", ["one"], None)
    write(tmp_path, "one", [problem()])
    with pytest.raises(
        UserError, match=r"two.jsonl does not exist .* has one\).*eval.benchmarks=DIR"
    ):
        load(tmp_path, ["two"], None)
    with pytest.raises(UserError, match="does not exist"):
        hashes(tmp_path, ["two"])
    with pytest.raises(UserError, match=r"eval\.limit"):
        load(tmp_path, ["one"], 0)
    with pytest.raises(UserError, match="each only once"):
        load(tmp_path, ["one", "one"], None)


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_known_sets_are_counted(tmp_path: Path, name: str) -> None:
    lines = [problem(str(i)) for i in range(BENCHMARKS[name].problems)]
    write(tmp_path, name, lines[:-1])
    with pytest.raises(UserError, match=f"{name} has {BENCHMARKS[name].problems}"):
        load(tmp_path, [name], 3)
    write(tmp_path, name, lines)
    assert len(load(tmp_path, [name], None)) == BENCHMARKS[name].problems


def test_answers_of_known_sets_are_looked_at(tmp_path: Path) -> None:
    lines = [problem(str(i)) for i in range(BENCHMARKS["aime2024"].problems)]
    lines[4]["answer"] = "\\frac{1}{2}"
    write(tmp_path, "aime2024", lines)
    with pytest.raises(
        UserError, match=r"aime2024.jsonl, line 5: '.*frac.*' is not an answer of aime2024"
    ):
        load(tmp_path, ["aime2024"], None)
    write(tmp_path, "own", [problem(answer=" ")])
    with pytest.raises(UserError, match="line 1: the answer ' ' is blank"):
        load(tmp_path, ["own"], None)


def test_suites_are_sets_with_a_protocol(tmp_path: Path) -> None:
    assert expand(["t0", "own", "amc2023"]) == ["aime2025", "aime2026", "amc2023", "own"]
    assert protocol(["t0", "own", "math500"], None, None) == (16, 0.6)
    assert protocol(["gsm8k"], None, None) == (1, 0.0)
    assert protocol(["gsm8k"], 4, 0.7) == (4, 0.7)
    assert protocol(["gsm8k", "t0"], 4, 0) == (4, 0.0)
    with pytest.raises(
        UserError,
        match=r"eval.sets=\[gsm8k, t0\] have different rollouts \(1, 16\): .*set eval.rollouts",
    ):
        protocol(["gsm8k", "t0"], None, None)
    write(
        tmp_path, "gsm8k_test", [problem(str(i)) for i in range(BENCHMARKS["gsm8k_test"].problems)]
    )
    assert (
        {p.set for p in load(tmp_path, ["gsm8k"], 2)}
        == {"gsm8k_test"}
        == hashes(tmp_path, ["gsm8k"]).keys()
    )


def test_the_real_sets(benchmarks: Path) -> None:
    assert len(
        load(benchmarks, ["t0", "gsm8k", "gsm8k_train", "aime2024", "math500"], None)
    ) == sum(known.problems for known in BENCHMARKS.values())
