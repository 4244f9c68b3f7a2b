"""The model card: the report's figures, honest about what is missing, readable by the hub."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from common.records import Row
from data_prep.answers.answer_is import stated
from data_prep.tokenizer import chat
from data_prep.tokenizer.prompt import BARE
from eval.card import card, usage
from eval.generation import rollout_files
from eval.generation.settings import SamplingSettings
from eval.report import report
from eval.results.evaluation import RL_POOL
from tests.eval.card.card_runs import STEP, evaluated, made, metadata, write_rows
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made(tmp_path)


def test_a_card_has_the_reports_table_and_the_hub_reads_its_metadata(run: Run) -> None:
    evaluated(run, BASE, 0)
    evaluated(run, ModelLabel(STEP), 3, cut=1)
    (path,) = card.refresh(run)
    text = path.read_text()
    headline = report.headline(run, configs.read(run.config))
    assert headline in text
    assert (
        "| aime2025 (30 problems) | 0.00 % [0.0, 11.6]† | 75.00 % [66.3, 77.9]† | +75.00"
        in headline
    )
    assert (
        "| 0.00 % → 75.00 % | 1.46 % | 22.10 % |" in headline and "| at 16,384 tokens |" in headline
    )
    assert "measured by its authors, not by this run" in text
    assert "9.60 %" not in headline  # which is of a hundred problems
    data = metadata(text)
    assert (data.base_model, data.license, data.library_name) == (
        "Qwen/Qwen3-4B-Base",
        "apache-2.0",
        "transformers",
    )
    assert data.base_model_relation == "finetune" and "full-parameter" in data.tags
    assert (data.datasets, data.pipeline_tag) == (["open-r1/OpenR1-Math-220k"], "text-generation")
    results = {(r.dataset_name, r.metric_type): r.metric_value for r in data.eval_results}
    assert results[("aime2025", "pass@1")] == results[("amc2023", "pass@1")] == 75.0
    for expected in (
        "all its 4.02B parameters on 900 rows of [open-r1/OpenR1-Math-220k]",
        "| training | 4 GPU-hours | 2 optimizer steps on 2 ranks",
        "| evaluation of base (aime2025+amc2023) |",
        "aime2024 0, math500 2",
        "25.00 % of its rollouts hit the budget of 32,768 tokens",
        "aime2025 has only 30 problems",
        "| git commit | `c0ffee` |",
        'messages = [{"role": "user", "content": "What is \\\\sqrt{4}?"}]',
        "temperature=0.6, top_p=0.95",
    ):
        assert expected in text
    for false in ("negative number as its answer", "has not been evaluated", "QLoRA"):
        assert false not in text  # a row's answer is -3
    assert "not compared with the problems of aime2025, amc2023, so they may contain" in text
    assert "It was evaluated on" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = [line.count("|") for line in tables]
    assert len(tables) > 30 and set(widths) <= {3, 4, 8}  # nothing in a cell ends it
    assert "Pending" not in text and str(run.root) not in text
    assert (run.export(STEP) / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_not_evaluated_is_pending_and_an_evaluation_being_written_is_left_alone(
    run: Run,
) -> None:
    (path,) = card.refresh(run)
    assert "- base: not evaluated yet\n- step_2: not evaluated yet" in path.read_text()
    assert metadata(path.read_text()).eval_results is None
    folder = evaluated(run, BASE, 0)
    shutil.copytree(folder, begun := folder.with_name(folder.name.replace("base", f"step_{STEP}")))
    (begun / "manifest.json").unlink()
    with (begun / rollout_files.ROLLOUTS).open("a") as f:
        f.write('{"key": ["torn')
    before = (begun / rollout_files.ROLLOUTS).read_bytes()
    text = card.refresh(run)[0].read_text()
    assert f"Pending:\n- step_2: `{begun.name}` is not finished" in text
    assert "| 0.00 % [0.0, 11.6]† | not evaluated |" in text
    assert (begun / rollout_files.ROLLOUTS).read_bytes() == before


def test_the_rl_pools_evaluation_is_not_pending(run: Run) -> None:
    evaluated(run, BASE, 0)
    evaluated(run, ModelLabel(STEP), 3)
    (run.root / "evals" / f"{RL_POOL}@step_{STEP}-abc12345").mkdir()
    assert "Pending" not in card.refresh(run)[0].read_text()
    (run.root / "evals" / f"aime2024@step_{STEP}-abc12345").mkdir()
    assert (
        f"Pending:\n- step_2: `aime2024@step_{STEP}-abc12345` is not finished"
        in card.refresh(run)[0].read_text()
    )


def test_a_problem_with_a_fence_of_its_own_stays_inside_the_cards(run: Run) -> None:
    problem = "Run\n````\n# No heading\n```\nwhat?"
    write_rows(Path(configs.read(run.config).data.dir) / "sft_4b", problem, ["1"])
    text = card.refresh(run)[0].read_text()
    solution = "<think>\nI count.\n</think>\n\n\\boxed{2}"
    example = Row("", "", "", 0, problem, solution, "2")
    assert f"\n\n`````\n{chat.render(example, BARE)}\n`````\n\n" in text


def test_another_build_of_the_dataset_is_not_described(run: Run) -> None:
    config: DictConfig = configs.read(run.config)
    (Path(config.data.dir) / "sft_4b" / "manifest.json").write_text('{"another": "build"}')
    text = card.refresh(run)[0].read_text()
    assert "was not available" in text and "900 rows" not in text


def test_the_python_in_a_card_is_python(run: Run) -> None:
    text = card.write(run, run.export(STEP), "someone/model").read_text()
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        compile(program, "card", "exec")
        assert '"someone/model"' in program


def test_the_extraction_in_a_card_is_the_graders() -> None:
    module: dict[str, Any] = {}
    exec(usage.extraction(), module)
    path = Path(__file__).parents[2] / "data_prep" / "answers" / "stated_outputs.jsonl"
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    texts += [f"<think>{text}" for text in texts] + [f"a</think>b<think>{t}" for t in texts]
    assert len({module["extract_answer"](text) for text in texts}) > 10
    assert [module["extract_answer"](text) for text in texts] == [stated(text) for text in texts]


def test_greedy_programs_do_not_sample_and_4_bits_are_shown() -> None:
    greedy = SamplingSettings(1, 0.0, 1.0, 100, 0)
    texts = [
        program("m", "p", greedy, dtype)
        for program in (usage.transformers, usage.vllm)
        for dtype in ("auto", "nf4")
    ]
    assert ["do_sample=False" in text for text in texts] == [True, True, False, False]
    assert ["temperature=0.0" in text for text in texts] == [False, False, True, True]
    assert not any("top_p" in text or "do_sample=True" in text for text in texts)
    assert ["bitsandbytes" in text for text in texts] == [False, False, False, True]
