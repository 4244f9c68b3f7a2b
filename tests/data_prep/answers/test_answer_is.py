"""The answer style answer_is: numbers that are stated in words."""

import json
from pathlib import Path

from common.records import Problem, Rollout
from eval.grading.grade import grade

STATED = {
    "<think>It is 5.</think>The answer is 72.": ("stated", True),
    "Answer: **72**": ("stated", True),
    "The answer is 72, since there are 9.": ("stated", True),
    r"The answer is \$72, of 100.": ("stated", True),
    "The answer is $-72$.": ("stated", False),
    "So 3, then 72, that is all.": ("last_number", True),
    "<think>The answer is 72.</think>I think 71, no, 70": ("last_number", False),
    "<think>x</think>$70 and then 72": ("last_number", True),
    "<think>The answer is 72": ("no_number", False),
    "<think>x</think>No idea. \\boxed{}": ("no_number", False),
}


def test_the_other_answer_style_reads_stated_numbers() -> None:
    problems = [Problem("p", "?", "72", "s")]
    rollouts = [
        Rollout(("s", "p", k), 0, text, 9, "stop", "e", 1.0) for k, text in enumerate(STATED)
    ]
    judged = grade(rollouts, problems, "answer_is")
    assert [(g.state, g.exact) for g in judged] == list(STATED.values())
    assert not any(g.exact for g in grade(rollouts, problems))
    cut = Rollout(("s", "p", 0), 0, "<think>x</think>so 72", 9, "length", "e", 1.0)
    assert [(g.state, g.extracted) for g in grade([cut], problems, "answer_is")] == [
        ("truncated", None)
    ]


def test_what_a_model_said_is_labelled_as_a_reader_does() -> None:
    """Rollouts of ``qlora_tiny``, its sums in the style ``answer_is``, after a third of its
    training, read by eye.
    """
    path = Path(__file__).with_name("stated_outputs.jsonl")
    said = [json.loads(line) for line in path.read_text().splitlines()]
    problems = [Problem(str(i), "?", line["answer"], "s") for i, line in enumerate(said)]
    rollouts = [
        Rollout(("s", str(i), 0), 0, line["text"], 9, "stop", "e", 1.0)
        for i, line in enumerate(said)
    ]
    found = [(g.state, g.extracted, g.exact) for g in grade(rollouts, problems, "answer_is")]
    assert found == [(line["state"], line["number"], line["right"]) for line in said]
    assert {state for state, *_ in found} == {"stated", "last_number", "no_number"}
