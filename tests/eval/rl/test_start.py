"""A start of RL: the pool, the problems that teach, what is refused."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from common.errors import UserError
from common.files import MANIFEST, read_json, sha256_file, write_json, write_jsonl
from common.records import Problem
from data_prep.benchmarks import sets
from data_prep.output.folder import dataset_folder
from eval import evaluate
from eval.grading.metrics import METRICS
from eval.rl import cost, pool
from eval.rl.prepare import prepare
from tests.conftest import lines
from tests.eval.rl.samples import STEP, sample
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.rl_start import RlStart

POOL = 30


def test_the_pool_is_what_sft_and_evaluation_have_not_seen(run: Run) -> None:
    config = configs.read(run.config)
    folder = pool.build(run, config, None, POOL)
    dataset = dataset_folder(config)
    problems = {line["problem"] for line in lines(folder / "rl_pool.jsonl")}
    assert len(problems) == POOL
    assert not problems & set(pq.read_table(dataset / "rows.parquet")["problem"].to_pylist())
    manifest = read_json(folder / MANIFEST)
    funnel = manifest["funnel"]
    assert (
        funnel["offered"]
        == len(lines(dataset / "spare.jsonl"))
        == sum(funnel.values()) - funnel["offered"]
    )
    assert (funnel["kept"], manifest["in_sft"]) == (POOL, 0)
    before = sha256_file(folder / MANIFEST)
    assert pool.build(run, config) == folder and sha256_file(folder / MANIFEST) == before
    with pytest.raises(UserError, match=r"built with problems 30, not 31: .*move the folder away"):
        pool.build(run, config, None, 31)


def test_a_pool_of_ones_own_loses_benchmarks_and_duplicates_and_knows_sft(
    run: Run, tmp_path: Path
) -> None:
    config = configs.read(run.config)
    dataset = dataset_folder(config)
    rows = pq.read_table(dataset / "rows.parquet", filters=[("split", "=", "train")]).to_pylist()
    held_out = lines(dataset / "heldout.jsonl")[3]["problem"]
    new = "Find the sum of all primes below 10."
    seen = "How many positive integer divisors does the number 360 have in all?"
    (run.root / "evals/other@base-0").mkdir(parents=True)
    sets.write_problems(
        run.root / "evals/other@base-0/problems.jsonl", [Problem("x", seen, "24", "other")]
    )
    texts = [
        new,
        rows[0]["problem"],
        held_out.upper() + "??",
        " " + rows[1]["problem"],
        f"{new} ",
        f"So: {seen}",
    ]
    answers = ["17", rows[0]["answer"], "1", rows[1]["answer"], "17", "24"]
    own = [
        {"id": str(i), "problem": t, "answer": a}
        for i, (t, a) in enumerate(zip(texts, answers, strict=True))
    ]
    write_jsonl(tmp_path / "mine.jsonl", own)
    folder = pool.build(run, config, tmp_path / "mine.jsonl")
    in_sft = {line["id"]: line["in_sft"] for line in lines(folder / "rl_pool.jsonl")}
    assert in_sft == {"0": False, "1": True, "3": True}
    manifest = read_json(folder / MANIFEST)
    found = {name: finding["set"] for name, finding in manifest["contaminated"].items()}
    assert found == {"2": "heldout", "5": "other"}
    assert list(manifest["funnel"].values()) == [6, 2, 1, 0, 3] and manifest["in_sft"] == 2
    write_jsonl(tmp_path / "other.jsonl", own[:1])
    with pytest.raises(UserError, match="built with file"):
        pool.build(run, config, tmp_path / "other.jsonl")
    with pytest.raises(UserError, match="is not a JSONL file"):
        pool.build(run, config, tmp_path)


def test_without_rows_to_spare_the_training_rows_are_the_pool(run: Run) -> None:
    config = configs.read(run.config)
    spare = dataset_folder(config) / "spare.jsonl"
    kept = spare.read_text()
    spare.write_text("")
    try:
        manifest = read_json(pool.build(run, config) / MANIFEST)
    finally:
        spare.write_text(kept)
    assert manifest["in_sft"] == manifest["funnel"]["kept"] == 200


def test_only_problems_with_right_and_wrong_rollouts_teach(run: Run) -> None:
    config = configs.read(run.config)
    first = prepare(run, config, STEP, count=POOL)
    assert first.folder is None and "30 problems" in first.counts
    assert first.cost == "240 rollouts"  # 30 x GROUP; no evaluation was timed
    assert prepare(run, config, STEP).command == first.command
    sample(run, first.command, lambda i: i % 9)
    second = prepare(run, config, STEP)
    assert second.folder is not None and second.command == f"bash {second.folder}/run_grpo.sh"
    assert second.cost == "100 steps of 22 x 8 rollouts on 2 ranks"
    (planned,) = run.evaluations
    timed = {"device": "cpu", "devices": 2, "wall_seconds": 120, "timed_rollouts": 240}
    write_json(planned / MANIFEST, read_json(planned / MANIFEST) | timed)
    # 17,600 rollouts of a second each.
    assert prepare(run, config, STEP).cost == (
        f"{second.cost}, about 4.89 CPU process-hours at the pace of {planned.name} for the "
        "rollouts alone"
    )
    start = RlStart(second.folder)
    forecast = cost.of_training(run, STEP, start, {"step_seconds": 36.0})
    assert forecast == f"{second.cost}, 2 GPU-hours in the forecast"
    rows = pq.read_table(second.folder / "train.parquet").to_pylist()
    problems = lines(run.rl / "pool" / "rl_pool.jsonl")
    mixed = [(p, i % 9) for i, p in enumerate(problems) if i % 9 not in (0, 8)]
    assert [(row["extra_info"]["id"], row["extra_info"]["right"]) for row in rows] == [
        (p["id"], n) for p, n in mixed
    ]
    assert [row["reward_model"]["ground_truth"] for row in rows] == [p["answer"] for p, _ in mixed]
    manifest = read_json(second.folder / MANIFEST)
    assert (manifest["never"], manifest["mixed"], manifest["always"]) == (
        4,
        23,
        3,
    ) and "23 have both right" in second.counts
    validation = pq.read_table(second.folder / "validation.parquet").to_pylist()
    held_out = lines(dataset_folder(config) / "heldout.jsonl")
    assert [row["prompt"][0]["content"] for row in validation] == [p["problem"] for p in held_out]
    before = sha256_file(second.folder / MANIFEST)
    assert prepare(run, config, STEP).folder == second.folder
    assert sha256_file(second.folder / MANIFEST) == before
    # A group of another size wants rollouts of its own.
    assert "eval.rollouts=4" in prepare(run, config, STEP, ["eval.rollouts=4"]).command


def test_a_pool_graded_by_other_rules_than_the_rewards_is_refused(run: Run) -> None:
    config = configs.read(run.config)
    folder = sample(run, prepare(run, config, STEP, count=POOL).command, lambda i: i % 9)
    figures = read_json(folder / METRICS)
    for values in figures.values():
        del values["grader"]
    write_json(folder / METRICS, figures)
    with pytest.raises(UserError, match=rf"version 1 of the rules.*: warmstart grade {folder}$"):
        prepare(run, config, STEP)
    evaluate.regrade(folder)
    assert prepare(run, config, STEP).folder


def own(path: Path, text: str, count: int = 16) -> Path:
    """A file of problems that differ in more than a number."""
    texts = (f"{text} number {i} of the list, what is it? {i * i + 7}" for i in range(count))
    lines = [
        {"id": f"{path.stem}-{i}", "problem": text, "answer": str(i + 1)}
        for i, text in enumerate(texts)
    ]
    write_jsonl(path, lines)
    return path


def trained_on(folder: Path) -> set[str]:
    rows = pq.read_table(folder / "train.parquet").to_pylist()
    return {row["extra_info"]["id"].rpartition("-")[0] for row in rows}


def test_another_pool_and_another_export_make_another_start(run: Run, tmp_path: Path) -> None:
    config = configs.read(run.config)
    starts = []
    for name, text in (("first", "The prime"), ("second", "Perfect triangle in a circle")):
        pooled = prepare(run, config, STEP, file=own(tmp_path / f"{name}.jsonl", text))
        assert pooled.folder is None
        evaluation = sample(run, pooled.command, lambda i: 1 + i % 7)
        made = prepare(run, config, STEP)
        assert made.folder is not None and trained_on(made.folder) == {name}
        starts.append(made)
        evaluate.regrade(evaluation)
        assert prepare(run, config, STEP) == made
        (run.rl / "pool").rename(run.rl / f"pool-{name}")
    (run.rl / "pool-first").rename(run.rl / "pool")
    assert prepare(run, config, STEP) == starts[0] != starts[1]
    exported = read_json(run.export(STEP) / MANIFEST)
    write_json(run.export(STEP) / MANIFEST, exported | {"exported": "anew"})
    try:
        sample(run, prepare(run, config, STEP).command, lambda i: 1 + i % 7)
        again = prepare(run, config, STEP)
    finally:
        write_json(run.export(STEP) / MANIFEST, exported)
    assert again.folder is not None and again.folder != starts[0].folder


def test_the_budget_is_enough_for_the_problems_that_teach(run: Run) -> None:
    """Two are solved now and then, in 50 tokens; the others always, in 20, and so are 99 % of the
    right rollouts.
    """
    config = configs.read(run.config)
    command = prepare(run, config, STEP, count=POOL).command
    sample(run, command, lambda i: 1 if i < 2 else 8, lambda i: 50 if i < 2 else 20)
    folder = prepare(run, config, STEP).folder
    assert folder is not None
    written = OmegaConf.load(folder / "grpo.yaml")
    assert written.data.max_response_length == 52


@pytest.mark.parametrize("name", ["gsm8k", "t0", "math500"])
def test_a_pool_is_read_from_the_file_that_is_named(run: Run, tmp_path: Path, name: str) -> None:
    """Whatever a suite or a benchmark of that name would be."""
    file = own(tmp_path / f"{name}.jsonl", "Circle with corner")
    for other in ("gsm8k_test", "aime2025", "aime2026", "amc2023"):
        own(tmp_path / f"{other}.jsonl", "A test's")
    folder = pool.build(run, configs.read(run.config), file)
    assert {line["id"].rpartition("-")[0] for line in lines(folder / "rl_pool.jsonl")} == {name}
    assert read_json(folder / MANIFEST)["funnel"]["offered"] == 16


@pytest.mark.parametrize("key", ["id", "problem", "answer"])
def test_a_pool_with_half_a_character_is_refused(run: Run, tmp_path: Path, key: str) -> None:
    odd = {"id": "a", "problem": "How many?", "answer": "2"} | {key: "x \ud800"}
    file = own(tmp_path / "odd.jsonl", "Circle with corner")
    with file.open("a") as f:
        f.write(json.dumps(odd) + "\n")
    with pytest.raises(
        UserError, match=rf"odd.jsonl, line 17: {key} has a lone surrogate.*: fix or remove"
    ):
        prepare(run, configs.read(run.config), STEP, file=file)
    assert not (run.rl / "pool").exists()


@pytest.mark.parametrize("override", ["eval.sets=[aime2025]", "eval.benchmarks=elsewhere"])
def test_what_is_sampled_is_the_pool_and_nothing_else(run: Run, override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(
        UserError, match=rf"{key} cannot be set here: .*--pool FILE.*warmstart eval .* 7 {key}="
    ):
        prepare(run, configs.read(run.config), STEP, [override])
    assert not run.rl.exists()


def test_refusals(run: Run) -> None:
    config = configs.read(run.config)
    with pytest.raises(UserError, match=r"no export of step 8 \(available: 7\): warmstart export"):
        prepare(run, config, 8)
    with pytest.raises(UserError, match=r"eval\.rollouts must be 2 or more"):
        prepare(run, config, STEP, ["eval.rollouts=1"])
    assert not run.rl.exists()
    sample(run, prepare(run, config, STEP, count=8).command, lambda i: i % 2 * 8)
    with pytest.raises(
        UserError, match="0 problems have both right and wrong rollouts, fewer than the 2 GPUs"
    ):
        prepare(run, config, STEP)
    assert {p.name for p in run.rl.iterdir()} <= {"pool", "lock"}
    write_json(
        run.export(STEP) / MANIFEST, read_json(run.export(STEP) / MANIFEST) | {"dataset": "another"}
    )
    with pytest.raises(UserError, match="trained on another build"):
        prepare(run, config, STEP)
    dataset = dataset_folder(config)
    write_json(
        run.export(STEP) / MANIFEST, {"dataset": sha256_file(dataset / MANIFEST), "files": {}}
    )


def test_rl_asks_in_the_words_of_the_pools_evaluation(run: Run) -> None:
    config = configs.read(run.config)
    words = ["eval.prompt={problem}\nBox the answer."]
    sample(run, prepare(run, config, STEP, words).command, lambda i: 1 + i % 7)
    folder = prepare(run, config, STEP, words).folder
    assert folder is not None
    for name in ("train.parquet", "validation.parquet"):
        for row in pq.read_table(folder / name).to_pylist():
            (turn,) = row["prompt"]
            assert turn["content"].endswith("\nBox the answer.")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("eval.prefill=<think>\n", "eval.prefill must be empty"),
        ("eval.extractor=answer_is", "reward for RL reads boxed answers"),
        ("eval.system=", "leave out eval.system"),
    ],
)
def test_what_the_reward_or_the_template_cannot_follow_is_refused(
    run: Run, override: str, words: str
) -> None:
    config = configs.read(run.config).copy()
    OmegaConf.set_readonly(config, False)
    config.data.system = "Be brief."
    with pytest.raises(UserError, match=words):
        prepare(run, config, STEP, [override])
