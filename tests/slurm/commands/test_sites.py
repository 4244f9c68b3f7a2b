"""The site files of real clusters: they load pinned modules or refuse, and a dry run under each
prints its commands. docs/sites.md has a source for each line.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SITES = {
    path.name.split(".")[1]: path
    for path in sorted((ROOT / "slurm").glob("site.*.env"))
    if path.name != "site.example.env"
}
PAGE, CLUSTERS = ((ROOT / "docs" / name).read_text("utf-8") for name in ("sites.md", "clusters.md"))

USER = "ada"
MODULES = {
    "juwels_booster": ["Stages/2025", "GCCcore/.13.3.0", "Python/3.12.3"],
    "leonardo": ["python/3.11.7"],
    "meluxina": ["env/release/2024.1", "Python/3.12.3-GCCcore-13.3.0"],
    "perlmutter": ["python/3.12-26.1.0"],
}
OPTIONS = {
    "juwels_booster": {"SBATCH_PARTITION": "booster", "SBATCH_GRES": "gpu:4"},
    "leonardo": {
        "SBATCH_PARTITION": "boost_usr_prod",
        "SBATCH_GRES": "gpu:4",
        "SBATCH_MEM_PER_NODE": "494000",
    },
    "meluxina": {"SBATCH_PARTITION": "gpu", "SBATCH_QOS": "default"},
    "perlmutter": {
        "SBATCH_CONSTRAINT": "gpu",
        "SBATCH_QOS": "regular",
        "SBATCH_GPUS_PER_NODE": "4",
    },
}
RUNS = {
    "juwels_booster": "/p/scratch/p42/ada/runs",
    "leonardo": "/leonardo_work/p42/ada/runs",
    "meluxina": "/project/home/p42/ada/runs",
    "perlmutter": "/pscratch/sd/a/ada/runs",
}
LOADS = {"BASH_FUNC_module%%": '() { echo "$*" >>"$MODULE_LOG"; }'}
FAILS = {"BASH_FUNC_module%%": "() { return 1; }"}
# /etc/profile as it is on a cluster; this machine's own defines no module command.
PROFILE = {
    "BASH_FUNC_source%%": '() { [[ $1 != /etc/profile ]] || PROFILE_READ=1; builtin source "$@"; '
    '[[ $1 != /etc/profile ]] || module() { echo "$*" >>"$MODULE_LOG"; }; }'
}
each_site = pytest.mark.parametrize("site", SITES)


def test_there_is_a_file_for_each_cluster() -> None:
    assert set(SITES) == set(MODULES) == set(OPTIONS) == set(RUNS)


def sourced(
    site: str, folder: Path, shown: str, *flags: str, **variables: str
) -> tuple[subprocess.CompletedProcess[str], str]:
    """The shell that read a site file and then ran ``shown``, and what module was called with."""
    log = folder / "modules.log"
    log.write_text("")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "USER": USER,
        "MODULE_LOG": str(log),
    }
    # As slurm/lib.sh reads it: a failing line in it must end the shell by itself.
    script = f"source {shlex.quote(str(SITES[site]))}; {shown}"
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", *flags, "-c", script],
        env=environment | variables,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return done, log.read_text()


@each_site
def test_it_loads_its_modules_and_pins_each(site: str, tmp_path: Path) -> None:
    done, called = sourced(site, tmp_path, "echo reached", **LOADS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "reached\n", "")
    verb, *modules = called.split()
    assert verb == "load" and called.count("\n") == 1
    assert modules == MODULES[site]
    assert all(re.fullmatch(r"[\w/.-]+/\.?\d[\w.-]*", module) for module in modules)


@each_site
@pytest.mark.parametrize("job", [{}, {"SLURM_JOB_ID": "7"}], ids=["outside", "job"])
@pytest.mark.parametrize("module", [{}, FAILS], ids=["missing", "fails"])
def test_without_modules_a_script_ends_with_one_line(
    site: str, module: dict[str, str], job: dict[str, str], tmp_path: Path
) -> None:
    done, _ = sourced(site, tmp_path, "echo reached", **module, **job)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"slurm/site.env: no modules on {os.uname().nodename} (")
    assert " ".join(MODULES[site]) in done.stderr


@each_site
def test_without_modules_an_interactive_shell_goes_on(site: str, tmp_path: Path) -> None:
    """It has the variables of sbatch: where login nodes have no modules, sbatch works there."""
    shown = "echo $? $SBATCH_ACCOUNT ${#OVERRIDES[@]} $HF_HOME"
    done, _ = sourced(site, tmp_path, shown, "-i")
    home = RUNS[site].replace("p42", "your-account").replace("/runs", "/huggingface")
    assert done.stdout == f"2 your-account 2 {home}\n"
    assert done.stderr.count("slurm/site.env: no modules on ") == 1


@each_site
def test_a_job_scripts_shell_reads_what_a_login_shell_reads(site: str, tmp_path: Path) -> None:
    done, called = sourced(site, tmp_path, "echo reached $PROFILE_READ", **PROFILE)
    assert done.stdout == "reached 1\n", done.stderr
    assert called.split() == ["load", *MODULES[site]]
    # A shell that has the command, or a login shell, keeps what it has.
    done, _ = sourced(site, tmp_path, "echo reached $PROFILE_READ", **PROFILE, **LOADS)
    assert done.stdout == "reached\n", done.stderr
    done, _ = sourced(site, tmp_path, "echo reached $PROFILE_READ", "-l", **PROFILE)
    assert (done.returncode, done.stdout) == (2, "")


@each_site
def test_jobs_read_the_cache_and_see_all_gpus(site: str, tmp_path: Path) -> None:
    shown = "echo ${HF_HUB_OFFLINE:-online} ${CUDA_VISIBLE_DEVICES:-unset}"
    outside, _ = sourced(site, tmp_path, shown, **LOADS)
    assert outside.stdout == "online unset\n"
    job, _ = sourced(site, tmp_path, shown, SLURM_JOB_ID="7", **LOADS)
    psslurm = site in ("meluxina", "juwels_booster")
    assert job.stdout == f"1 {'0,1,2,3' if psslurm else 'unset'}\n"


def test_on_meluxina_an_interactive_job_downloads(tmp_path: Path) -> None:
    shown = "echo ${HF_HUB_OFFLINE:-online}"
    done, _ = sourced("meluxina", tmp_path, shown, "-i", SLURM_JOB_ID="7", **LOADS)
    assert done.stdout == "online\n"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts without a site file, beside this checkout's packages."""
    folder = tmp_path_factory.mktemp("sites")
    ignored = shutil.ignore_patterns("site.env", "__pycache__")
    shutil.copytree(ROOT / "slurm", folder / "slurm", ignore=ignored)
    for name in ("common", "data_prep", "trainer", "eval", "recipes", "warmstart"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def dry_run(
    checkout: Path, text: str, *more: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """slurm/sft_4b.sh --dry-run under a site file with this text."""
    (checkout / "slurm" / "site.env").write_text(f"VENV={shlex.quote(sys.prefix)}\n{text}")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    return subprocess.run(
        ["slurm/sft_4b.sh", "--dry-run", "--nodes=2", "train.lr=2e-5", *more],
        cwd=checkout,
        env=clean | {"USER": USER, "MODULE_LOG": os.devnull} | variables,
        capture_output=True,
        text=True,
    )


@each_site
def test_a_dry_run_prints_the_commands_with_the_sites_options(site: str, checkout: Path) -> None:
    text = SITES[site].read_text()
    assert "export SBATCH_ACCOUNT=your-account\n" in text
    done = dry_run(checkout, text.replace("your-account", "p42"), **LOADS)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(x) for x in done.stdout.splitlines() if not x.startswith("#")]
    (submission,) = [words for words in lines if "sbatch" in words]
    given = dict(word.split("=", 1) for word in submission[: submission.index("sbatch")])
    assert given == OPTIONS[site] | {"SBATCH_ACCOUNT": "p42"}
    assert submission[submission.index("sbatch") + 1 :] == [
        "--nodes=2",
        "slurm/sft_4b.sh",
        "train.lr=2e-5",
    ]
    ranks = next(words for words in lines if {"slurm.nodes.rank", "train"} <= {*words})
    assert {"srun", "--nodes=2", "--ntasks-per-node=4", f"run.root={RUNS[site]}"} <= set(ranks)
    assert f"{RUNS[site]}/sft_4b" in ranks


@each_site
def test_a_dry_run_without_modules_is_refused(site: str, checkout: Path) -> None:
    done = dry_run(checkout, SITES[site].read_text())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "no modules on" in done.stderr


def test_the_large_gpus_of_perlmutter_are_one_line_away(checkout: Path) -> None:
    text = SITES["perlmutter"].read_text()
    line = "export SBATCH_CONSTRAINT='gpu&hbm80g'"
    assert f"# {line}\n" in text
    done = dry_run(checkout, text.replace(f"# {line}", line), **LOADS)
    assert f"{line.removeprefix('export ')} " in done.stdout.splitlines()[0]


def test_a_dry_run_names_a_recipe_of_ones_own_as_typed(checkout: Path) -> None:
    (checkout / "own.yaml").write_text("defaults: [sft_4b, _self_]\ndata: {max_length: 4096}\n")
    done = dry_run(checkout, "", "recipe=own.yaml")
    assert done.returncode == 0, done.stderr
    assert "warmstart data own.yaml train.lr=2e-5" in done.stdout


SECTIONS = dict(
    zip(*[iter(re.split(r"^## (.+)\n", PAGE, flags=re.MULTILINE)[1:])] * 2, strict=True)
)
TITLES = {
    "juwels_booster": "JUWELS Booster",
    "leonardo": "Leonardo",
    "meluxina": "MeluXina",
    "perlmutter": "Perlmutter",
}
SUBJECTS = {
    "request",
    "modules",
    "network",
    "GPU binding",
    "container",
    "internet on compute nodes",
    "requeue policy",
    "file systems",
}


@each_site
def test_the_page_has_a_source_for_each_line(site: str) -> None:
    section = SECTIONS[TITLES[site]]
    assert f"Site file: `slurm/{SITES[site].name}`. Tried there: no." in section
    rows = [[c.strip() for c in x.split("|")[1:-1]] for x in section.splitlines() if x[:2] == "| "]
    header, *facts = rows
    assert header == ["subject", "what is known", "source"]
    assert {subject for subject, _, _ in facts} >= SUBJECTS
    for _, known, source in facts:
        assert "](https://" in source or "not found" in known.lower()


@each_site
def test_the_page_names_the_modules_and_options_that_the_file_has(site: str) -> None:
    section = SECTIONS[TITLES[site]]
    for module in MODULES[site]:
        name, _, version = module.partition("-GCCcore")[0].rpartition("/")
        assert name in section and version in section
    for value in OPTIONS[site].values():
        assert value in section


def test_what_the_pages_say_of_this_checkout_is_so() -> None:
    for path in re.findall(r"`(slurm/[\w.]+\.(?:env|sh))`", PAGE + CLUSTERS):
        assert path == "slurm/site.env" or "NAME" in path or (ROOT / path).exists(), path
    check = (ROOT / "tools" / "check_gpu_host.sh").read_text()
    glibc = dict(re.findall(r"(x86_64|aarch64)\) echo (\d+\.\d+) ;;", check))
    assert f"`make setup-gpu` need glibc {glibc['x86_64']} or newer" in CLUSTERS
    assert f"`make setup-gpu` needs glibc {glibc['aarch64']} or newer" in CLUSTERS
    llguidance = re.search(r"llguidance is ([0-9.]+)", CLUSTERS)
    assert llguidance
    for name in ("requirements-cpu.txt", "requirements-gpu.txt", "requirements-gpu-aarch64.txt"):
        assert f"\nllguidance=={llguidance[1]} " in (ROOT / name).read_text()
    doctor = "".join(path.read_text() for path in (ROOT / "trainer" / "doctor").glob("*.py"))
    for line in re.findall(r"doctor's line `([a-z ]+)`", " ".join(CLUSTERS.split())):
        assert f'"{line}"' in doctor, line
    assert "have the same GPU" in (ROOT / "trainer" / "process" / "gpu_binding.py").read_text()
