"""What would fail does not reach the queue."""

from pathlib import Path

import pytest

from tests.slurm.commands.conftest import DATA, SFT, call, submitted


@pytest.mark.parametrize(
    ("site", "words", "code", "message"),
    [
        ("", ("train.lr=1", "--node=2"), 2, "did you mean --nodes?"),
        ("", ("train.lrr=1",), 2, "did you mean train.lr?"),
        ("", ("tain.lr",), 2, "'tain.lr' is not an override"),
        ("", ("run.name=s-%a",), 2, "add --array=1-3"),
        ("", ("-N", "2-4"), 2, "--nodes=2-4: give a single number"),
        ("", ("-A", "your-account"), 2, "in place of your-account"),
        ("export SBATCH_ACCOUNT=your-account", (), 2, "slurm/site.env, line 2: put your own"),
        ("OVERRIDES=(train.lrr=1)", (), 2, "(slurm/site.env has train.lrr=1)"),
        ("", ("-N64",), 3, "leaves 64 of 128 data-parallel groups without rows"),
        ("", ("recipe=qlora_gsm8k_8b",), 3, "a QLoRA trains on one GPU, not on 16 ranks"),
        ("", ("-N1", "train.max_tokens_per_gpu=99000"), 3, "does not fit"),
    ],
)
def test_what_would_fail_does_not_reach_the_queue(
    checkout: Path, site: str, words: tuple[str, ...], code: int, message: str
) -> None:
    done = call(checkout, site, SFT, *words)
    assert (done.returncode, submitted(checkout)) == (code, None), done.stderr
    assert message in done.stderr and (code == 3 or len(done.stderr.splitlines()) == 1)
    if code == 3:
        done = call(checkout, site, SFT, *words, "--dry-run")
        assert (done.returncode, submitted(checkout)) == (3, None)
        assert message in done.stdout


def test_a_list_of_the_site_that_is_a_text_is_refused(checkout: Path) -> None:
    done = call(checkout, "TRAIN_OPTIONS='--nodes=2 --time=1'", SFT)
    assert (done.returncode, submitted(checkout)) == (2, None)
    assert "TRAIN_OPTIONS must be a list of OPTION: write TRAIN_OPTIONS=(" in done.stderr
    done = call(checkout, "IMAGE=/scratch/w.sif", SFT)
    assert (done.returncode, submitted(checkout)) == (2, None)
    assert "CONTAINER=(apptainer exec --nv /scratch/w.sif)" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "usage: slurm/data.sh [OPTION ...] RECIPE"),
        (("tiny", "data.rowss=1"), "did you mean"),
        (("nowhere",), "nowhere"),
    ],
)
def test_a_wrong_dataset_does_not_reach_the_queue(
    checkout: Path, words: tuple[str, ...], message: str
) -> None:
    done = call(checkout, "", DATA, *words)
    assert (done.returncode, submitted(checkout)) == (2, None)
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
