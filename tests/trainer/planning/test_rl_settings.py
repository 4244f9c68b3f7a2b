"""The time of a GRPO step by hand, the settings chosen for a cluster, and the page."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from common.errors import UserError
from trainer.batching.flops import Shape, training_flops
from trainer.planning import rl_memory, rl_time
from trainer.planning.cluster import MEMORY_SHARE, Cluster
from trainer.planning.hardware import GPUS
from trainer.planning.memory import GIB, Setup
from trainer.planning.rl_memory import RESERVE, RlSetup
from trainer.planning.rl_page import EXAMPLE, EXAMPLE_VALUES, RlPlan, page
from trainer.planning.rl_settings import RlForecast, choose
from trainer.planning.rl_time import DECODE_OVERHEAD, RlLoad
from trainer.planning.workload import KNOWN

QWEN3_4B, QWEN3_8B = KNOWN["Qwen/Qwen3-4B"], KNOWN["Qwen/Qwen3-8B"]


def cluster(kind: str = "a100-40", nodes: int = 4) -> Cluster:
    return Cluster(GPUS[kind], nodes, 4, 25e9)


def load(limit: int = 20_480, rollouts: int = 128) -> RlLoad:
    return RlLoad.of(512, limit, range(limit + 1), rollouts, "made up")


def setup(tokens: int = 21_504, **changes: object) -> RlSetup:
    base = RlSetup(Setup(16, 1, tokens, "full"), tokens, 1, 0.8)
    return replace(base, **changes)


def test_lengths_keep_their_distribution_and_end_at_the_limit() -> None:
    made = RlLoad.of(10, 100, [*range(50), 500], 1000, "made up")
    assert len(made.responses) == 1000 and made.responses.max() == 100
    assert np.median(made.responses) == pytest.approx(25, abs=1)
    assert (made.responses == 100).mean() == pytest.approx(1 / 51, abs=0.02)
    assert made.context == 110


def test_a_decode_step_reads_weights_and_cache() -> None:
    gpu = cluster().gpu
    seconds = rl_time.decode_seconds(QWEN3_4B, setup(), cluster(), 4, 40_000)
    read = 2 * QWEN3_4B.parameters + 40_000 * 147_456
    by_hand = read / (gpu.memory_bandwidth * MEMORY_SHARE)
    assert seconds == pytest.approx(by_hand + DECODE_OVERHEAD)
    # Many short rollouts are bound by arithmetic instead.
    many = rl_time.decode_seconds(QWEN3_4B, setup(), cluster(), 4000, 0)
    assert many > 2 * 3.6e9 * 4000 / gpu.bf16_flops


def test_rollouts_take_as_long_as_their_longest_or_their_turns() -> None:
    """Alone in its cache, each engine's rollout takes its own number of decode steps; with room for
    one, rollouts take turns.
    """
    alone = RlLoad(0, 1000, np.full(16, 1000), "made up")
    one = rl_time.rollout_seconds(QWEN3_4B, setup(), cluster(), alone)
    step = rl_time.decode_seconds(QWEN3_4B, setup(), cluster(), 1, 500)
    assert one == pytest.approx(1000 * step)
    crowded = RlLoad(0, 1000, np.full(48, 1000), "made up")
    room = rl_memory.rollout_weights(QWEN3_4B) + rl_memory.VLLM_WORKING + 1500 * 147_456
    narrow = setup(utilization=room / cluster().gpu.memory)
    turns = rl_time.rollout_seconds(QWEN3_4B, narrow, cluster(), crowded)
    assert turns == pytest.approx(3 * one, rel=1e-6)
    together = rl_time.rollout_seconds(QWEN3_4B, setup(), cluster(), crowded)
    assert one < together < 1.2 * one


def test_every_row_is_in_one_micro_batch_of_at_most_the_budget() -> None:
    made = load(2000, 100)
    micro_batches, lengths = rl_time.packed(made, 3, 4000)
    rows = [row for group in micro_batches for bins in group for row in bins]
    assert sorted(rows) == list(range(100)) and len({len(group) for group in micro_batches}) == 1
    assert max(sum(lengths[row] for row in bins) for g in micro_batches for bins in g) <= 4000
    totals = [sum(lengths[row] for bins in group for row in bins) for group in micro_batches]
    assert max(totals) - min(totals) <= 2512


def test_update_and_old_log_probabilities_are_near_their_flops() -> None:
    """At the shares of the peak that matmuls and attention reach, recomputation counted as a
    forward; other kernels and communication add less than the same again.
    """
    step, here = load(), cluster(nodes=1)
    one = setup(training=Setup(4, 1, 21_504, "full"))
    flops = training_flops(QWEN3_4B, step.responses + step.prompt).sum() / 4
    forward = flops / 3 / (here.gpu.bf16_flops * here.gpu.matmul_share)
    passed = rl_time.log_prob_seconds(QWEN3_4B, one, here, step)
    update = rl_time.update_seconds(QWEN3_4B, one, here, step)
    assert forward < passed < 2 * forward
    assert 4 * forward < update < 2 * 4 * forward
    wide = replace(one, log_prob_tokens=2 * 21_504)
    assert rl_time.log_prob_seconds(QWEN3_4B, wide, here, step) == pytest.approx(passed, rel=0.1)


def test_offloaded_state_crosses_pcie() -> None:
    def seconds(**changes: bool) -> float:
        return rl_time.weight_seconds(QWEN3_4B, setup(**changes), cluster())

    crossing = 4 * QWEN3_4B.parameters / 16 / 25e9
    assert seconds(param_offload=True) - seconds() == pytest.approx(5 * crossing)
    assert seconds(optimizer_offload=True) - seconds() == pytest.approx(4 * crossing)


def check(chosen: RlForecast, here: Cluster, step: RlLoad) -> None:
    memory = here.gpu.memory
    assert sum(chosen.trainer.values()) + RESERVE <= memory
    assert sum(chosen.generation.values()) + RESERVE <= memory
    assert chosen.cache >= step.context
    degree = chosen.setup.training.sequence_parallel
    assert min(chosen.setup.training.tokens, chosen.setup.log_prob_tokens) * degree >= step.context
    assert chosen.setup.chunked_entropy


@pytest.mark.parametrize("kind", ["a100-40", "a100-80", "h100-80", "h200-141"])
@pytest.mark.parametrize("nodes", [1, 4])
def test_what_is_chosen_fits(kind: str, nodes: int) -> None:
    here, step = cluster(kind, nodes), load()
    for shape in (QWEN3_4B, QWEN3_8B):
        check(choose(shape, here, step), here, step)


def test_the_4b_recipe_needs_no_offload_and_a_share_of_eight_tenths() -> None:
    chosen = choose(QWEN3_4B, cluster(), load())
    found = chosen.setup
    assert found.utilization == 0.8
    assert not (found.param_offload or found.optimizer_offload or found.training.offload)


def test_8b_on_four_small_gpus_keeps_its_state_on_the_host() -> None:
    here, step = cluster(nodes=1), load()
    chosen = choose(QWEN3_8B, here, step)
    assert chosen.setup.training.offload
    check(chosen, here, step)


def test_a_temperature_other_than_one_takes_memory() -> None:
    here, step = cluster("a100-80"), load()
    plain, scaled = (choose(QWEN3_4B, here, step, t).setup for t in (1.0, 0.6))
    assert scaled.scaled_logits and not plain.scaled_logits


def test_nothing_fits_a_small_gpu() -> None:
    with pytest.raises(UserError, match=r"GRPO does not fit: .* on 1 GPUs .*cluster\.nodes"):
        choose(QWEN3_8B, Cluster(GPUS["rtx4090-24"], 1, 1, 25e9), load())


def printed(
    own: Cluster, name: str = "a100-40", shape: Shape = QWEN3_4B
) -> tuple[Sequence[str], bool]:
    text, fits = page(RlPlan("a run", shape, own, name, load(), 8, 1.0))
    return text.splitlines(), fits


def test_the_page_has_a_row_per_cluster_and_verls_example() -> None:
    lines, fits = printed(cluster())
    rows = [line for line in lines if " x 4 " in line and ":" not in line]
    assert fits and len(rows) == 8 and [r for r in rows if r.startswith("*")] == [rows[1]]
    chosen = choose(QWEN3_4B, cluster(), load())
    cells = rows[1].split()
    assert cells[5:8] == [str(chosen.setup.tensor_parallel), "0.80", "no"]
    assert float(cells[11]) == round(sum(chosen.trainer.values()) / GIB, 1)
    assert cells[-1] == f"{chosen.time.total:,.0f}"
    example = EXAMPLE.format(*EXAMPLE_VALUES).splitlines()[0]
    assert example in lines
    # Columns end where their heads do.
    head = next(line for line in lines if line.startswith("cluster "))
    assert len(head) == len(rows[1])


def test_a_cluster_of_its_own_has_the_first_row_and_may_not_fit() -> None:
    lines, fits = printed(Cluster(GPUS["rtx4090-24"], 1, 1, 25e9), "rtx4090-24", QWEN3_8B)
    rows = [line for line in lines if " x 1 " in line and ":" not in line]
    assert not fits and rows[0].startswith("* 1 x 1 rtx4090-24") and "does not fit" in rows[0]
    assert lines[-1].startswith("NOTHING FITS on the recipe's cluster. GRPO does not fit")
