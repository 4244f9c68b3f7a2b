"""What a rehearsal's log says about a failure."""

import pytest

from common.errors import StageFailed, UserError
from trainer.rehearsal.failure import Failure, one_line


def test_the_first_failure_of_a_labelled_log_counts() -> None:
    first = Failure.of("12", "nid001", "RuntimeError: no kernel image (sm_80)")
    log = f"12: Traceback\n12: {first.line}\n 3: {Failure.of('3', 'nid000', 'peer').line}\n"
    assert Failure.first(log) == first
    assert first.text == "rank 12 on nid001: RuntimeError: no kernel image (sm_80)"
    assert Failure.first("12: Traceback") is None
    assert Failure(None, "srun ended with exit code 1").text == "srun ended with exit code 1"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a\nb"), "ValueError: a"),
        (ValueError(), "ValueError"),
        (
            RuntimeError("backend='inductor' raised:\n\nKeyError: 3\nmore"),
            "RuntimeError: backend='inductor' raised: KeyError: 3",
        ),
        (UserError("liger-kernel is not installed"), "liger-kernel is not installed"),
        (StageFailed("step 1: the loss is nan"), "step 1: the loss is nan"),
    ],
)
def test_an_error_is_told_in_one_line(error: Exception, said: str) -> None:
    assert one_line(error) == said
