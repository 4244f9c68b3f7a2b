"""What a job asks for, against what its recipe can use."""

from collections.abc import Sequence

import pytest

from trainer.doctor.findings import Finding
from trainer.doctor.size import Size, check, sized
from trainer.recipe import load as configs


def found(recipe: str, size: Size, words: Sequence[str] = ()) -> Finding:
    """The only finding."""
    (finding,) = check(configs.load(recipe, words), size)
    return finding


@pytest.mark.parametrize(
    ("recipe", "size", "words", "cause", "fix"),
    [
        # 256 ranks in pairs, 64 rows.
        ("sft_4b", Size(64, 4), (), "leaves 64 of 128", "--nodes=32, or train.batch_size=128"),
        ("sft_4b", Size(9, 4), ("train.batch_size=17",), "leaves 1 of 18", "--nodes=8, or"),
        ("tiny", Size(3, 3), ("train.batch_size=8",), "leaves 1 of 9", "--nodes=2, or"),
        ("sft_4b", Size(3, 1), (), "does not divide 3 ranks (3 x 1)", "train.sequence_parallel=1"),
        ("sft_4b", Size(3, 2), ("train.sequence_parallel=4",), "not divide 6", "parallel=3"),
        ("qlora_gsm8k_4b", Size(1, 2), (), "one GPU, not on 2 ranks", "--ntasks-per-node=1"),
        ("qlora_tiny", Size(4, 4), (), "one GPU, not on 16 ranks", "--nodes=1 --ntasks-per-node=1"),
        ("sft_4b", Size(4, 4, 2), (), "4 ranks per node on 2 GPUs", "--gpus-per-node=4, or"),
        ("sft_4b", Size(4, 4, 0), (), "4 ranks per node on 0 GPUs", "--ntasks-per-node=1"),
        ("sft_4b", Size(4, 2, 8), (), "2 of 8 GPUs per node", "--ntasks-per-node=8"),
        ("qlora_gsm8k_4b", Size(1, 1, 4), (), "1 of 4 GPUs", "--gpus-per-node=1"),
        ("sft_4b", Size(32, 4), (), "balance 0.27; ranks wait 73%", "--nodes=8"),
    ],
)
def test_a_job_that_would_fail_or_waste_most_of_it(
    recipe: str, size: Size, words: tuple[str, ...], cause: str, fix: str
) -> None:
    finding = found(recipe, size, words)
    assert (finding.level, finding.what) == ("fatal", "size")
    assert cause in finding.cause and fix in finding.fix


@pytest.mark.parametrize(
    ("size", "words", "cause", "fix"),
    [
        (Size(16, 4), (), "balance 0.54", "train.sequence_parallel=4"),
        (Size(8, 4), ("train.sequence_parallel=1",), "balance 0.54", "--nodes=4"),
        (Size(4, 4, 6), (), "4 of 6 GPUs per node have a rank", "--ntasks-per-node=6"),
    ],
)
def test_a_job_that_wastes_much_of_it(
    size: Size, words: tuple[str, ...], cause: str, fix: str
) -> None:
    finding = found("sft_4b", size, words)
    assert finding.level == "warning" and cause in finding.cause and fix in finding.fix


@pytest.mark.parametrize(
    ("recipe", "size", "words"),
    [
        ("sft_4b", Size(4, 4, 4), ()),
        ("sft_4b", Size(4, 4), ("cluster.nodes=64",)),  # the recipe's cluster does not count
        ("sft_4b", Size(64, 4), ("train.batch_size=1024",)),
        ("qlora_gsm8k_4b", Size(1, 1, 1), ()),
        ("tiny", Size(2, 2, 8), ()),  # on CPUs, GPUs do not count
    ],
)
def test_a_job_of_the_right_size(recipe: str, size: Size, words: tuple[str, ...]) -> None:
    assert found(recipe, size, words).level == "ok"


def test_only_the_gpus_of_a_whole_node_are_no_fault_of_a_job() -> None:
    """Asked for they are, and so is a balance that wastes most of the time."""
    assert found("qlora_gsm8k_4b", Size(1, 1, 4), ()).level == "fatal"
    assert found("qlora_gsm8k_4b", Size(1, 1, 4, granted=True), ()).level == "warning"
    assert found("sft_4b", Size(64, 4, granted=True), ()).level == "fatal"


def test_a_recipe_plans_a_size_and_a_job_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Size.of(configs.load("sft_4b", ["cluster.nodes=3"])) == Size(3, 4)
    assert Size.of(configs.load("tiny", ["cluster.nodes=3"])) == Size(1, 2)
    config = sized(configs.load("sft_4b"), Size(5, 6, 7))
    assert (config.cluster.nodes, config.cluster.gpus_per_node) == (5, 6)
    for name, value in {"JOB_NUM_NODES": "2", "NTASKS": "9", "GPUS_ON_NODE": "4"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    assert Size.here() == Size(2, 5, 4, granted=True)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    assert Size.here() == Size(2, 4, 4, granted=True)
