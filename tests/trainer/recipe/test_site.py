"""The site file's choices, as bash reads them, and the placeholders left in it."""

from pathlib import Path

import pytest

from common.errors import UserError
from trainer.recipe import site


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "slurm").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEAM", "red")
    return tmp_path


def write(text: str) -> None:
    site.FILE.write_text(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("OVERRIDES=()\n", []),
        (
            "OVERRIDES=(run.root=/big/$TEAM/runs 'run.name=a b')",
            ["run.root=/big/red/runs", "run.name=a b"],
        ),
        (
            "OVERRIDES=(\n  # ours\n  train.lr=1e-5\n)\nOVERRIDES+=(data.dir=/d)",
            ["train.lr=1e-5", "data.dir=/d"],
        ),
        ("if [[ $TEAM == red ]]; then OVERRIDES=(eval.limit=7); fi", ["eval.limit=7"]),
        (
            "module load CUDA || exit 9\nml GCC\necho loaded\nOVERRIDES=(run.root=r)\nfalse",
            ["run.root=r"],
        ),
        (
            "cat\nOVERRIDES=('data.prompt=\\boxed{} \"{problem}\"')",
            ['data.prompt=\\boxed{} "{problem}"'],
        ),
    ],
)
def test_overrides_are_what_bash_makes_of_them(text: str, words: list[str]) -> None:
    write(text)
    assert site.overrides() == words


def test_no_file_no_choices_and_another_lists_words_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OVERRIDES", "run.root=/elsewhere")
    assert (site.overrides(), site.runs()) == ([], Path("runs"))
    write("VENV=x")
    assert (site.overrides(), site.runs()) == ([], Path("runs"))
    write("OVERRIDES=(run.root=/a run.name=x \"run.root='/b c'\")")
    assert site.runs() == Path("/b c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OVERRIDES='run.root=/a data.dir=/b'", r"must be a list of key=value: write OVERRIDES=\("),
        ("OVERRIDES=run.root=/a", "must be a list of key=value: write"),
        ("OVERRIDES=(run.root = /a)", "not 'run.root'"),
        ("OVERRIDES=('run root=/a')", "not 'run root=/a'"),
        ("OVERRIDES=(run.root=/a", "line 1: .*: bash -x slurm/site.env"),
        ("exit 0", "it exits"),
    ],
)
def test_a_file_that_says_nothing_clear_is_refused(text: str, message: str) -> None:
    write(text)
    with pytest.raises(UserError, match=message) as e:
        site.overrides()
    assert str(e.value).startswith("slurm/site.env") and "\n" not in str(e.value)


def test_a_list_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRUN_OPTIONS", "--mpi=pmix")
    assert site.words("SRUN_OPTIONS") == []
    write("SRUN_OPTIONS=(--mpi=none '--comment=a b')\nOVERRIDES=(train.lr=1)")
    assert site.words("SRUN_OPTIONS") == ["--mpi=none", "--comment=a b"]
    assert site.words("CONTAINER") == []
    write("SRUN_OPTIONS=--mpi=none")
    with pytest.raises(UserError, match="SRUN_OPTIONS must be a list of WORD: write"):
        site.words("SRUN_OPTIONS")


@pytest.mark.parametrize(
    "value",
    ["your-account", "YOUR_PROJECT", "<account>", "change-me", "CHANGEME", "p2xxxxx", "my-account",
     "project-name", "/data/your-project/runs", "TODO"],
)  # fmt: skip
def test_what_is_left_to_fill_in_is_told_with_its_line(value: str) -> None:
    write(f"# put your-account here\nX=1\nexport SBATCH_ACCOUNT='{value}'\n")
    assert "slurm/site.env, line 3: put your own value" in str(site.placeholder({}))
    write("")
    assert f"--account={value}: put" in str(site.placeholder({"account": value}))


@pytest.mark.parametrize(
    "value", ["p200321", "math-rl", "euro24_hpc", "gpu:todos", "exxact", "yours"]
)
def test_a_real_account_is_no_placeholder(value: str) -> None:
    write(f"export SBATCH_ACCOUNT={value} # your-account\nX=$YOUR_SCRATCH/a; cat <(echo) <<<x")
    assert site.placeholder({"account": value, "job-name": "your-run"}) is None
