"""Real vLLM engines whose cache is too small for what they have in flight."""

from pathlib import Path
from typing import Any

from data_prep.ray_session import ray_session
from eval import engine
from eval.fleet import creator
from tests.conftest import Line

ROLLOUTS, TOKENS, PROMPT = 8, 250, [5] * 8


def test_what_waits_for_room_says_the_same_and_the_most_urgent_never_waits(line: Line, tmp_path: Path) -> None:
    from transformers import AutoConfig

    model = line.export()
    arguments = engine.arguments(
        AutoConfig.from_pretrained(model), model=str(model), revision=None, tokenizer=model, dtype="float32",
        device="cpu", tensor_parallel=1, concurrency=ROLLOUTS, context=TOKENS + len(PROMPT),
    )  # fmt: skip
    sampling = {"temperature": 1.0, "max_tokens": TOKENS, "ignore_eos": True}
    room = arguments["kv_cache_memory_bytes"]
    answers: list[list[dict[str, Any]]] = []
    with ray_session(cpus=2) as ray:
        actors = [
            creator(
                ray, "cpu", 1, 1, lambda name: tmp_path / name, arguments | {"kv_cache_memory_bytes": size}, sampling
            )(f"engine-{size}")
            for size in (room, room * 2 // 5)
        ]
        capacities = ray.get([actor.start.remote() for actor in actors])
        assert capacities[1] < ROLLOUTS * (len(PROMPT) + TOKENS) < capacities[0]
        for actor in actors:
            asked = [actor.generate.remote(("s", "p", k), PROMPT, k, -k) for k in range(ROLLOUTS)]
            answers.append(ray.get(asked))
    ample, tight = answers
    assert [answer["text"] for answer in tight] == [answer["text"] for answer in ample]
    assert len({answer["text"] for answer in ample}) == ROLLOUTS
    seconds = [answer["seconds"] for answer in tight]
    assert max(seconds[-3:]) < min(seconds[:3])
