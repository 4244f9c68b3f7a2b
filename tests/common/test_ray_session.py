"""A local Ray instance starts on a busy machine too."""

import inspect
from typing import Any

import pytest
import ray
from ray._private import node

from common.ray_session import SLOW_START, STARTS, ray_session


def test_ray_says_a_slow_start_in_these_words() -> None:
    assert SLOW_START in " ".join(inspect.getsource(node).replace('"', "").split())


@pytest.mark.parametrize(
    ("slow", "words", "starts"),
    [(STARTS - 1, SLOW_START, True), (STARTS, SLOW_START, False), (1, "no port", False)],
)
def test_a_slow_start_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, slow: int, words: str, starts: bool
) -> None:
    failures = [Exception(words)] * slow

    def init(*args: Any, **values: Any) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if starts:
        with ray_session(1):
            assert not failures
    else:
        with pytest.raises(Exception, match=words), ray_session(1):
            pass
