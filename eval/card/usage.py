"""The card's examples: programs that ask a model one problem with the evaluation's prompt and
sampling, and read its answer.
"""

from __future__ import annotations

import json

from data_prep.answers import answer_is
from eval.generation.settings import SamplingSettings
from eval.generation.vllm_actor import NF4

PATTERNS = {
    "boxed": "<think>\n... reasoning ...\n</think>\n\n... the steps in short ... \\boxed{answer}",
    "answer_is": "<think>\n... reasoning ...\n</think>\n\nThe answer is N.",
}
"""Answer style -> the form of an answer."""


def quoted(text: str) -> str:
    """Returns ``text`` as a Python string literal."""
    return json.dumps(text, ensure_ascii=False)


def how(sampling: SamplingSettings) -> str:
    """Returns the evaluation's sampling as text."""
    if not sampling.temperature:
        return "greedy decoding"
    return f"temperature {sampling.temperature}, top-p {sampling.top_p}"


def transformers(model: str, problem: str, sampling: SamplingSettings, dtype: str) -> str:
    """Returns a program that uses transformers; ``dtype`` is the evaluation's."""
    drawn = "do_sample=False"
    if sampling.temperature:
        drawn = (
            f"do_sample=True, temperature={sampling.temperature}, top_p={sampling.top_p}, top_k=0"
        )
    return f"""\
from transformers import AutoModelForCausalLM, AutoTokenizer

model_name = {quoted(model)}
tokenizer = AutoTokenizer.from_pretrained(model_name)
model = AutoModelForCausalLM.from_pretrained(
    model_name, dtype={quoted(_stored(dtype))}, device_map="auto"
)

messages = [{{"role": "user", "content": {quoted(problem)}}}]
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
).to(model.device)
output = model.generate(
    **prompt, max_new_tokens={sampling.max_tokens},
    {drawn},
)
print(tokenizer.decode(output[0, prompt["input_ids"].shape[1] :]))
"""


def vllm(model: str, problem: str, sampling: SamplingSettings, dtype: str) -> str:
    """Returns a program that uses vLLM; ``dtype`` is the evaluation's."""
    loaded = f"dtype={quoted(_stored(dtype))}"
    if dtype == NF4:
        loaded = 'dtype="bfloat16", quantization="bitsandbytes"'
    drawn = f"temperature={sampling.temperature}"
    if sampling.temperature:
        drawn += f", top_p={sampling.top_p}"
    return f"""\
from vllm import LLM, SamplingParams

llm = LLM({quoted(model)}, {loaded})
sampling = SamplingParams(
    n={sampling.rollouts}, max_tokens={sampling.max_tokens},
    {drawn},
)
messages = [{{"role": "user", "content": {quoted(problem)}}}]
for rollout in llm.chat(messages, sampling)[0].outputs:
    print(rollout.text)
"""


def extraction() -> str:
    """Returns a program that finds the answer of a text as the grader of the style ``answer_is``
    does (``answer_is.stated``).
    """
    return f"""\
import re

NUMBER = r"{answer_is.NUMBER}"
STATED = re.compile(r"{answer_is.STATED}".replace("NUMBER", NUMBER), re.IGNORECASE)
ANY = re.compile(r"{answer_is.ANY}".replace("NUMBER", NUMBER))


def extract_answer(text):
    before, closed, after = text.rpartition("</think>")
    if not closed and "<think>" in text:
        return None  # the reasoning never ended
    visible = after.partition("<think>")[0] if closed else text
    if found := STATED.search(visible):
        return found[1]
    numbers = ANY.findall(visible)
    return numbers[-1] if numbers else None
"""


def _stored(dtype: str) -> str:
    return "auto" if dtype == NF4 else dtype
