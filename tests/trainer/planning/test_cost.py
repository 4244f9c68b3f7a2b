"""What a recipe will cost: evaluations counted as they will be submitted, hours as a sum over
decode steps and as a simulation gives them, money only where there is a price.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from tests.bench import decode
from tests.trainer.planning.test_planner import planned
from trainer.doctor.forecast import look
from trainer.planning.cluster import MEMORY_SHARE
from trainer.planning.cost import START_SECONDS, Evaluations, cost, no_room
from trainer.planning.memory import Setup
from trainer.planning.planner import Planner
from trainer.planning.rl_memory import RlSetup, cache_bytes, cache_tokens, rollout_weights
from trainer.planning.rl_time import DECODE_OVERHEAD, RlLoad, decode_seconds, generation
from trainer.recipe import load as configs
from trainer.run.folder import Run
from warmstart import cli

T0 = 30 + 30 + 40
ALONE = RlSetup(Setup(1, 1, 20_480, "none"), 0, 1, 0.92)


def evaluations(planner: Planner) -> Evaluations:
    own = planner.own()
    assert own is not None
    return cost(planner, own).evaluations


def test_evaluations_are_those_that_will_be_submitted() -> None:
    planner = planned("train.save_every=100")
    own = planner.own()
    assert own is not None and planner.total_steps == 1408
    found = cost(planner, own).evaluations
    # One of the base model, one per checkpoint: steps 100 to 1,400, and the last.
    assert (found.count, found.rollouts) == (1 + 15, 16 * T0)
    twice = cost(planned("train.save_every=100", "eval.rollouts=32"), own).evaluations
    assert twice.rollouts == 2 * found.rollouts and 1.7 < twice.hours / found.hours < 2.1
    limited = cost(planned("eval.limit=10"), own).evaluations
    assert limited.rollouts == 16 * 30


def test_the_hours_are_those_of_decode_steps_with_a_full_cache() -> None:
    planner = planned()
    own = planner.own()
    assert own is not None
    found = cost(planner, own).evaluations
    setup = RlSetup(Setup(4, 1, 20_480, "none"), 0, 1, 0.92)
    held = cache_tokens(planner.shape, setup, planner.cluster.gpu.memory)
    # On average a rollout holds its prompt and half of itself.
    flying = min(64, held / (512 + found.tokens))
    step = decode_seconds(planner.shape, setup, planner.cluster, round(flying), held * 0.6)
    seconds = found.rollouts / 4 * found.tokens / flying * step + START_SECONDS
    # The last, long rollouts end in a cache that is no longer full.
    assert 1 < found.hours / (4 * seconds / 3600) < 1.3


def test_lengths_pass_through_the_published_points() -> None:
    planner = planned("eval.max_tokens=16384")
    own = planner.own()
    assert own is not None
    capped = cost(planner, own).evaluations
    # Between the published median of a lognormal and its cap, where 37 % are.
    assert 0.37 * 16_384 + 0.5 * 5_000 < capped.tokens < 11_600
    assert cost(planned(), own).evaluations.tokens > capped.tokens


def test_the_price_is_shown_where_it_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "sft_4b"]) == 0
    text = capsys.readouterr().out
    assert "\ncost, GPU-hours (saves" in text and "USD" not in text
    assert cli.main(["plan", "sft_4b", "cluster.usd_per_gpu_hour=2"]) == 0
    total = next(
        x for x in capsys.readouterr().out.splitlines() if x.startswith("  total   ") and "USD" in x
    )
    hours, usd = (float(word.replace(",", "")) for word in total.split()[1:3])
    assert usd == pytest.approx(2 * hours, abs=1)


def test_doctor_and_dry_run_have_it_in_one_line(tmp_path: Path) -> None:
    config = configs.load("sft_4b", ["cluster.usd_per_gpu_hour=2"])
    found = {f.what: f.cause for f in look(config, Run(tmp_path))[1]}
    assert "GPU-hours, " in found["cost"] and " USD: training " in found["cost"]
    assert "5 evaluations of 1,600 rollouts" in found["cost"]


def test_a_set_of_unknown_size_is_named(tmp_path: Path) -> None:
    planner = planned("eval.sets=[mine]", f"eval.benchmarks={tmp_path}")
    own = planner.own()
    assert own is not None
    with pytest.raises(UserError, match=r"mine\.jsonl does not exist, so its evaluations are not"):
        cost(planner, own)


def test_time_and_tail_are_those_of_every_decode_step() -> None:
    planner = planned()
    lengths = np.random.default_rng(1).integers(1, 2_000, 40)
    load = RlLoad(100, 2_000, lengths, "")
    cluster = replace(planner.cluster, nodes=1, gpus_per_node=2)
    for most in (5, 512):
        seconds, tail = generation(planner.shape, ALONE, cluster, load, most)
        mine = np.sort(lengths)[::-1][::2]
        waiting = [int(n) for n in np.random.default_rng(0).permutation(mine)]
        holds = cache_tokens(planner.shape, ALONE, cluster.gpu.memory)
        slots = min(most, int(holds / (100 + lengths.mean())))
        running: list[list[int]] = []  # tokens so far and at the end
        spent = lost = 0.0
        while waiting or running:
            while waiting and len(running) < slots:
                running.append([0, waiting.pop()])
            held = sum(100 + made + 0.5 for made, _ in running)
            step = decode_seconds(planner.shape, ALONE, cluster, len(running), held)
            spent += step
            lost += step * (slots - len(running)) / slots
            running = [[made + 1, end] for made, end in running if made + 1 < end]
        assert (seconds, tail) == (pytest.approx(spent, rel=1e-6), pytest.approx(lost, rel=1e-6))


@pytest.mark.parametrize(("problems", "engines"), [(25, 4), (100, 16), (100, 64)])
def test_the_time_is_that_of_a_simulation_which_preempts(problems: int, engines: int) -> None:
    planner = planned("cluster.gpu=h100-80")
    lengths = decode.trace(problems, 16, 0.75, 5)
    load = RlLoad(decode.PROMPT, 16_384, np.array([*lengths.values()]), "")
    gpu, shape = planner.cluster.gpu, planner.shape
    read = 1 / (gpu.memory_bandwidth * MEMORY_SHARE)
    simulated = decode.Gpu(
        "as forecast",
        step=rollout_weights(shape) * read + DECODE_OVERHEAD,
        sequence=0.0,
        read=cache_bytes(shape) * read,
        prefill=2 * shape.parameters / (gpu.bf16_flops * gpu.matmul_share),
        cache=int(cache_tokens(shape, ALONE, gpu.memory)),
    )
    cluster = replace(planner.cluster, nodes=1, gpus_per_node=engines)
    seconds, _ = generation(shape, ALONE, cluster, load, 512)
    assert seconds == pytest.approx(decode.replay(lengths, engines, simulated), rel=0.15)


def test_more_gpus_end_earlier_and_take_more_gpu_hours() -> None:
    planner = planned("cluster.nodes=2")
    found = evaluations(planner)
    few, some, many = found.scales
    assert (few.gpus, some.gpus, many.gpus) == (4, 16, 64)
    assert few.gpus * few.hours == pytest.approx(found.hours)  # a node has four
    assert few.hours > some.hours > many.hours > START_SECONDS / 3600
    assert few.gpus * few.hours < some.gpus * some.hours < many.gpus * many.hours
    assert 0 < few.tail < some.tail < many.tail < 1
    at_once = evaluations(planned("eval.max_tokens=1"))
    assert all(of.hours * 3600 == pytest.approx(START_SECONDS, abs=2) for of in at_once.scales)
    longest = 32_768 * decode_seconds(planner.shape, ALONE, planner.cluster, 1, 512)
    assert many.hours > (longest + START_SECONDS) / 3600


def test_null_forecasts_what_the_cache_holds_up_to_512() -> None:
    def hours(concurrency: str) -> float:
        words = ("cluster.gpu=h200-141", "eval.max_tokens=300", "eval.rollouts=256")
        return evaluations(planned(*words, f"eval.concurrency={concurrency}")).hours

    assert hours("64") > hours("256") > hours("512") == hours("null") > hours("1000")


def test_a_number_of_gpus_per_engine_is_named_where_it_is_faster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, two = evaluations(planned()), evaluations(planned("eval.tensor_parallel=2"))
    assert one.faster == (2, pytest.approx(two.hours / one.hours)) and two.faster is None
    assert evaluations(planned("cluster.gpu=h100-80")).faster is None
    assert cli.main(["plan", "sft_4b"]) == 0
    text = capsys.readouterr().out
    assert f"\n  eval.tensor_parallel=2 takes {one.faster[1]:.2f} of the time on one node" in text
    assert f"\n      16{one.scales[1].hours:>9.2f}" in text
    # An engine with more GPUs than a node is forecast on its own; the dtype decides what it holds.
    assert [of.gpus for of in evaluations(planned("eval.tensor_parallel=8")).scales] == [16, 64]
    assert evaluations(planned("eval.max_tokens=999999", "eval.dtype=nf4")).faster is None


def test_a_rollout_that_no_engines_cache_holds_is_told_with_the_gpus_it_takes(
    tmp_path: Path,
) -> None:
    planner = planned("eval.max_tokens=250000")
    fault = no_room(planner)
    assert fault is not None and fault[1] == "eval.tensor_parallel=2"
    assert "holds 194,828 tokens on a100-40, and one rollout may need 250,512" in fault[0]
    with pytest.raises(UserError, match=r"may need 250,512: eval\.tensor_parallel=2"):
        evaluations(planner)
    findings = look(configs.load("sft_4b", ["eval.max_tokens=250000"]), Run(tmp_path))[1]
    (found,) = (f for f in findings if f.what == "evaluation")
    assert (found.level, found.fix) == ("warning", "eval.tensor_parallel=2")
    assert no_room(planned("eval.max_tokens=250000", "eval.tensor_parallel=2")) is None
    assert no_room(planned("eval.max_tokens=250000", "eval.dtype=nf4")) is None
    never = no_room(planned("eval.max_tokens=9999999"))
    assert never is not None and never[1].startswith("a lower eval.max_tokens")
    assert no_room(planned()) is no_room(planned(recipe="sft_8b")) is None
