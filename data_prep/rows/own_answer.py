"""The answer that a solution ends with, to compare with the answer that its record states."""

from __future__ import annotations

import re

from data_prep.answers.answer_is import NUMBER
from data_prep.answers.boxed import grade_state, is_exact, visible
from data_prep.answers.normalise import normalise

ENDING = 200
"""Characters at the end of a solution in which it may state its answer without a box."""

_STATED = re.compile(
    rf"(?:\banswer\s{{0,3}}(?:is|:)[\s:*]{{0,5}}|(?:^|\n)####\s{{0,3}}){NUMBER}[\s.*$%]*$",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def contradicts(solution: str, answer: str) -> bool:
    """Returns whether the last box in the visible part of a solution is not the answer or, without
    a box, whether the number stated at its end as ``answer is N`` or ``#### N`` is not the answer.
    """
    box = grade_state(solution, "stop")[1]
    if box is not None:
        return not is_exact(box, answer)
    if not _PLAIN.fullmatch(normalise(answer)):
        return False
    found = _STATED.search((visible(solution) or "").rstrip()[-ENDING:])
    return found is not None and not is_exact(found[1], answer)
