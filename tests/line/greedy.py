"""Greedy continuations from a vLLM engine set up as an evaluation's, for the tests to compare.

python -m tests.line.greedy MODEL < prompts.json > outputs.json      prompts: lists of token ids
"""

import json
import os
import sys
from pathlib import Path

from eval.generation import vllm_actor
from eval.generation.settings import EngineSettings, Model

TOKENS = 64


def main() -> None:
    """Prints, for every prompt, the ids up to the model's own end and the ids when no token ends
    it.
    """
    prompts, model = json.load(sys.stdin), sys.argv[1]
    stdout = os.dup(1)
    os.dup2(2, 1)  # vLLM prints
    os.environ.update(vllm_actor.environment("cpu", len(os.sched_getaffinity(0)), 1))
    from transformers import AutoConfig
    from vllm import LLM, SamplingParams

    arguments = vllm_actor.arguments(
        AutoConfig.from_pretrained(model),
        Model(model, Path(model), "float32"),
        EngineSettings("cpu", 1, tensor_parallel=1, concurrency=len(prompts)),
        context=max(map(len, prompts)) + 2 * TOKENS,
    )
    # Here the exported generation config is what is tested: it alone says where to stop.
    llm = LLM(**arguments | {"generation_config": "auto"})
    asked = [{"prompt_token_ids": ids} for ids in prompts]
    defaults = llm.get_default_sampling_params()
    defaults.temperature, defaults.max_tokens = 0, 2 * TOKENS
    ended = llm.generate(asked, defaults, use_tqdm=False)
    free = llm.generate(
        asked, SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True), use_tqdm=False
    )
    outputs = [
        {
            "ended": list(e.outputs[0].token_ids),
            "finish_reason": e.outputs[0].finish_reason,
            "free": list(f.outputs[0].token_ids),
        }
        for e, f in zip(ended, free, strict=True)
    ]
    os.write(stdout, json.dumps(outputs).encode())


if __name__ == "__main__":
    main()
