"""The planner: memory against real steps, time against what is known of it, and what the command
says.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from common.records import Tokens
from data_prep.output.folder import dataset_folder, token_file
from tests.bench.bench_balance import choose_degree
from tests.conftest import ROOT
from tests.token_rows import write_tokens
from tests.trainer.planning import footprint
from tools import limits_page
from trainer.planning import memory, work
from trainer.planning.cluster import Cluster
from trainer.planning.hardware import GPUS
from trainer.planning.memory import Setup
from trainer.planning.planner import Planner, eligible, recommend
from trainer.planning.step_time import LAUNCH_SECONDS, StepTime, Timing, step_time
from trainer.planning.workload import KNOWN, assumed_lengths
from trainer.recipe import load as configs
from warmstart import cli

QWEN3_4B = KNOWN["Qwen/Qwen3-4B-Base"]
A100S = Cluster(GPUS["a100-40"], nodes=4, gpus_per_node=4, network=25e9)


def planned(*overrides: str, recipe: str = "sft_4b") -> Planner:
    config = configs.load(recipe, overrides)
    return Planner(config, assumed_lengths(config))


def printed(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of the command."""
    return cli.main(["plan", *arguments]), *capsys.readouterr()


def test_memory_forecast_is_within_a_tenth_of_the_measured_peak(tmp_path: Path) -> None:
    for f in footprint.compare(tmp_path):
        print(
            f"{f.case.name:<30} forecast {f.forecast / 1e6:.2f} MB, tensors {f.peak / 1e6:.2f}, "
            f"rss {f.rss / 1e6:.0f}"
        )
        assert f.forecast == pytest.approx(f.peak, rel=0.1), f.case.name


def test_the_loss_chunk_is_the_losss_own() -> None:
    from trainer.engine.loss import CHUNK_BYTES

    assert memory.LOSS_CHUNK == CHUNK_BYTES


def test_memory_follows_from_the_layout() -> None:
    def needed(**changes: Any) -> float:
        setup: dict[str, Any] = {
            "ranks": 16,
            "sequence_parallel": 1,
            "tokens": 20_480,
            "checkpointing": "full",
        } | changes
        return sum(memory.peak(QWEN3_4B, Setup(**setup)).values())

    assert (
        needed(checkpointing="full")
        < needed(checkpointing="selective")
        < needed(checkpointing="none")
    )
    assert needed(tokens=10_240) < needed() < needed(ranks=8) < needed(ranks=1)
    # All 16 bytes a parameter leave the GPU, and nothing else changes.
    assert needed() - needed(offload=True) == QWEN3_4B.parameters
    assert needed(sequence_parallel=4) == pytest.approx(needed(), rel=0.02)


def test_step_time_is_never_below_the_arithmetic_nor_the_links() -> None:
    planner = planned()
    own = planner.own()
    assert own is not None
    ideal = planner.flops / A100S.ranks / A100S.gpu.peak(2)
    assert own.step.compute > ideal / own.balance
    slow = planned("cluster.network_gbits=10").own()
    fast = planned("cluster.network_gbits=800").own()
    assert slow is not None and fast is not None
    assert fast.step.waiting < own.step.waiting < slow.step.waiting
    assert fast.step.compute == own.step.compute == slow.step.compute
    # Three times over the network: gathered twice in bf16, reduced once in float32.
    assert slow.step.total > 8 * QWEN3_4B.parameters / (10e9 / 8)


def test_one_rank_communicates_nothing() -> None:
    alone = Cluster(GPUS["h200-141"], 1, 1, 25e9)
    step = step_time(
        QWEN3_4B, Setup(1, 1, 20_480, "full"), alone, [[[0], [1]]], {0: 20_000, 1: 15_000}
    )
    assert (step.waiting, step.exchange) == (0, 0)


def test_the_largest_degree_does_not_win() -> None:
    """Even rows gain nothing from sharing; uneven ones do, but not across nodes."""
    even = dict.fromkeys(range(64), 8192)
    uneven = dict(
        enumerate(
            np.random.default_rng(0).lognormal(8.7, 0.8, 64).clip(1, 16_384).astype(int).tolist()
        )
    )
    assert choose_degree(QWEN3_4B, A100S, [even], 16_384) == 1
    assert choose_degree(QWEN3_4B, A100S, [uneven], 16_384) in (2, 4)
    with pytest.raises(UserError, match="2048 ranks are too many for batches of 16 rows"):
        choose_degree(
            QWEN3_4B,
            Cluster(GPUS["a100-40"], 512, 4, 25e9),
            [dict.fromkeys(range(16), 8192)],
            16_384,
        )


@pytest.mark.parametrize(
    ("layouts", "wanted"),
    [
        ({"short": (1.0, 0.80), "balanced": (1.09, 0.99)}, {"balanced"}),
        ({"short": (1.0, 0.80), "balanced": (1.2, 0.99)}, {"short"}),
        ({"short": (1.0, 0.98), "better": (1.09, 1.0)}, {"short", "better"}),
        ({"short": (1.0, 0.80), "better": (1.05, 0.90)}, {"better"}),
    ],
)
def test_balance_decides_between_steps_that_are_close(
    layouts: dict[str, tuple[float, float]], wanted: set[str]
) -> None:
    timings = {
        name: Timing(StepTime(seconds, 0, 0, 0), balance)
        for name, (seconds, balance) in layouts.items()
    }
    chosen = eligible(list(timings.values()))
    assert {name for name, timing in timings.items() if timing in chosen} == wanted


def test_a_recommended_layout_fits_and_is_a_valid_recipe() -> None:
    for recipe in ("sft_4b", "sft_8b"):
        planner = planned(recipe=recipe)
        best, own = recommend(list(planner.layouts())), planner.own()
        assert best is not None and own is not None
        assert best.fits and best.step.total <= own.step.total
        config = configs.load(recipe, best.overrides.split())
        again = Planner(config, planner.lengths).own()
        assert again is not None
        assert (again.needed, again.step) == (best.needed, best.step)


def test_compiling_saves_traffic_and_launches_alone() -> None:
    """As much as the difference in bytes takes to move; where the micro-batch is small, a step
    takes as long as its launches.
    """
    alone, rows = Cluster(GPUS["a100-40"], 1, 1, 25e9), {0: 15_000, 1: 5_000}
    eager, compiled = (Setup(1, 1, 20_480, "selective", compiled=on) for on in (False, True))

    def compute(setup: Setup, lengths: dict[int, int]) -> float:
        return step_time(QWEN3_4B, setup, alone, [[list(lengths)]], lengths).compute

    tokens, pairs = np.array([20_000.0]), np.array([1.0])
    moved = [
        QWEN3_4B.layers
        * (
            work.forward(QWEN3_4B, setup, tokens, pairs).traffic
            + work.backward(QWEN3_4B, setup, tokens, pairs).traffic
        )
        + work.loss(QWEN3_4B, setup, tokens).traffic
        for setup in (eager, compiled)
    ]
    saved = compute(eager, rows) - compute(compiled, rows)
    assert saved == pytest.approx((moved[0] - moved[1])[0] / (0.8 * 1555e9), rel=1e-9)
    small = {0: 50}
    kernels = sum(work.KERNELS["eager"]) + work.KERNELS["eager"][0]
    assert compute(eager, small) > QWEN3_4B.layers * kernels * LAUNCH_SECONDS
    assert compute(compiled, small) < compute(eager, small) / 2


def test_the_command_shows_each_setting_changed(capsys: pytest.CaptureFixture[str]) -> None:
    code, shown, _ = printed(capsys, ["sft_4b"])
    *_, table = shown.partition("with one setting changed")
    lines = [line.split() for line in table.splitlines()[1:4]]
    assert code == 0
    assert [line[0] for line in lines[1:]] == ["train.compile=false", "train.fused_optimizer=false"]
    seconds = [float(line[-2]) for line in lines]
    assert seconds[1] > 1.2 * seconds[0] and seconds[2] > seconds[0]
    _, shown, _ = printed(capsys, ["sft_4b", "train.compile=false"])
    own, compiled, _, liger = shown.partition("as it is")[2].splitlines()[:4]
    assert f"{seconds[1]:>7.2f}" in own
    assert compiled.split()[:2] == ["train.compile=true", f"{float(compiled.split()[1]):.2f}"]
    assert liger.startswith("  train.liger=true ")


def test_the_command_says_what_fits(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = printed(capsys, ["sft_4b", f"data.dir={tmp_path}"])
    assert code == 0
    assert "ASSUMED" in out
    assert "recommended" in out or "own layout is as fast as any" in out


def test_offload_is_recommended_where_nothing_else_fits(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = printed(
        capsys, ["sft_8b", "cluster.nodes=1", "cluster.gpus_per_node=2", f"data.dir={tmp_path}"]
    )
    assert code == 0
    assert "the recipe's layout does NOT fit" in out
    assert "verl.engine.offload_policy=true\nEach GPU needs 61 GiB of host memory" in out


def test_the_command_says_when_nothing_fits(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    alone = [
        "cluster.nodes=1",
        "cluster.gpus_per_node=1",
        f"data.dir={tmp_path}",
        "data.max_length=81920",
    ]
    code, out, _ = printed(capsys, ["sft_8b", *alone, "train.max_tokens_per_gpu=81920"])
    assert code == 1
    assert "NOTHING FITS" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["sft_4b", "model.path=Qwen/Qwen3-0.6B-Base"],
            ["Qwen/Qwen3-0.6B-Base is unknown", "config.json"],
        ),
        (["sft_4b", "cluster.gpu=a100"], ["cluster.gpu must be one of a100-40, a100-80"]),
        (["sft_4b", "cluster.nodes=0"], ["cluster.nodes must be positive"]),
        (["sft_4b", "cluster.nodes=999"], ["3996 GPUs are too many for train.batch_size=64"]),
        (["tiny"], ["dataset tiny is not built", "warmstart data tiny"]),
    ],
)
def test_what_cannot_be_planned_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    code, _, error = printed(capsys, [*arguments, f"data.dir={tmp_path}", f"run.root={tmp_path}"])
    assert code == 2
    assert all(word in error for word in words), error


def test_a_degree_that_the_cluster_lacks_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["sft_4b", "train.sequence_parallel=16", "cluster.nodes=2", f"data.dir={tmp_path}"]
    code, out, _ = printed(capsys, arguments)
    assert code == 0
    assert "train.sequence_parallel cannot run on this cluster" in out


def test_lengths_are_the_datasets_own_where_it_is_built(tmp_path: Path) -> None:
    config = configs.load("sft_4b", [f"data.dir={tmp_path}"])
    rows = [Tokens(id=str(n), input_ids=[0] * n, prompt_len=1, length=n) for n in range(100, 300)]
    write_tokens(token_file(dataset_folder(config), "train"), rows)
    planner = Planner(config)
    assert planner.lengths.tokens.tolist() == list(range(100, 300))
    assert planner.total_steps == 2 * 4
    assert [len(step) for step in planner.steps] == [64, 64, 64]


def test_assumed_lengths_are_the_published_ones() -> None:
    lengths = assumed_lengths(
        configs.load("sft_4b", ["data.max_length=200000", "train.sequence_parallel=16"])
    ).tokens
    assert len(lengths) == 45_000
    assert np.median(lengths) == pytest.approx(12_980 / 3, rel=0.01)
    assert np.percentile(lengths, 99) == pytest.approx(50_593 / 3, rel=0.01)
    assert planned().lengths.tokens.max() <= 20_480


def test_planning_does_not_import_torch(tmp_path: Path) -> None:
    command = f"main(['plan', 'sft_4b', 'data.dir={tmp_path}'])"
    code = (
        f"import sys; from warmstart.cli import main; {command}; sys.exit('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL).returncode
        == 0
    )


def test_the_page_of_limits_is_what_the_planner_says() -> None:
    page = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    assert page == limits_page.page(), "write it anew: python -m tools.limits_page > docs/limits.md"
