"""The card's examples: programs that ask a model one problem with the evaluation's prompt and
sampling.
"""

from __future__ import annotations

import json

from eval.generation.settings import SamplingSettings

PATTERN = "<think>\n... reasoning ...\n</think>\n... the steps in short ... \\boxed{answer}"


def quoted(text: str) -> str:
    """Returns ``text`` as a Python string literal."""
    return json.dumps(text, ensure_ascii=False)


def transformers(model: str, problem: str, sampling: SamplingSettings) -> str:
    """Returns a program that uses transformers."""
    how = "do_sample=False"
    if sampling.temperature:
        how = f"do_sample=True, temperature={sampling.temperature}, top_p={sampling.top_p}, top_k=0"
    return f"""\
from transformers import AutoModelForCausalLM, AutoTokenizer

model_name = {quoted(model)}
tokenizer = AutoTokenizer.from_pretrained(model_name)
model = AutoModelForCausalLM.from_pretrained(model_name, dtype="auto", device_map="auto")

messages = [{{"role": "user", "content": {quoted(problem)}}}]
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
).to(model.device)
output = model.generate(
    **prompt, max_new_tokens={sampling.max_tokens},
    {how},
)
print(tokenizer.decode(output[0, prompt["input_ids"].shape[1] :]))
"""


def vllm(model: str, problem: str, sampling: SamplingSettings) -> str:
    """Returns a program that uses vLLM."""
    return f"""\
from vllm import LLM, SamplingParams

llm = LLM({quoted(model)})
sampling = SamplingParams(
    n={sampling.rollouts}, max_tokens={sampling.max_tokens},
    temperature={sampling.temperature}, top_p={sampling.top_p},
)
messages = [{{"role": "user", "content": {quoted(problem)}}}]
for rollout in llm.chat(messages, sampling)[0].outputs:
    print(rollout.text)
"""
