"""The exported chat template against the one of training, and on what servers and trainers send."""

from typing import Any

import pytest

from common.records import Row
from data_prep.tokenizer import chat
from data_prep.tokenizer.prompt import Prompt

ROW = Row("r", "s", "u", 0, "2 + 2?", "<think>\nTwo and two.\n</think>\n\nIt is \\boxed{4}.", "4")
SYSTEM = 'Say "no" \\n twice,\nthen {{ 1 }} %} ünï 🙂 \\'
PROMPTS = [
    Prompt(),
    Prompt("{problem}\nPut it in \\boxed{}.\n"),
    Prompt(system=SYSTEM),
    Prompt("Q: {problem}", system="Be brief."),
]


@pytest.fixture(scope="module")
def words(qwen3: Any) -> Any:
    """Another tokenizer object, whose template a test may set."""
    import copy

    return copy.deepcopy(qwen3)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_export_renders_what_training_saw(words: Any, prompt: Prompt) -> None:
    words.chat_template = chat.export_template(prompt.system)
    user = prompt.messages(ROW)[-1:]
    asked = words.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
    assert asked == chat.render_prompt(ROW, prompt)
    told = [*user, {"role": "assistant", "content": ROW.solution}]
    assert words.apply_chat_template(told, tokenize=False) == chat.render(ROW, prompt) + "\n"


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_assistants_mask_is_our_loss_mask(words: Any, prompt: Prompt) -> None:
    words.chat_template = chat.export_template(prompt.system)
    told = [*prompt.messages(ROW), {"role": "assistant", "content": ROW.solution}]
    theirs = words.apply_chat_template(told, return_dict=True, return_assistant_tokens_mask=True)
    (ours,) = chat.encode(words, [ROW], prompt)
    marked = [i for i, bit in enumerate(theirs["assistant_masks"]) if bit]
    assert marked == list(range(ours.prompt_len, ours.length))
    assert theirs["input_ids"][: ours.length] == ours.input_ids.tolist()


def test_it_takes_what_servers_send(words: Any) -> None:
    words.chat_template = chat.export_template("Be brief.")

    def render(*turns: dict[str, Any], **options: Any) -> str:
        return words.apply_chat_template(list(turns), tokenize=False, **options)

    parts = [{"type": "text", "text": "2 "}, {"type": "text", "text": "+ 2?"}]
    user = "<|im_start|>user\n2 + 2?<|im_end|>\n"
    brief = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert render({"role": "user", "content": parts}) == brief + user
    assert render({"role": "system", "content": ""}, {"role": "user", "content": "2 + 2?"}) == (
        "<|im_start|>system\n<|im_end|>\n" + user
    )
    answer = {"role": "assistant", "content": None}
    assert render({"role": "user", "content": "2 + 2?"}, answer).endswith(
        user + "<|im_start|>assistant\n<|im_end|>\n"
    )
    thought = {"role": "assistant", "content": "4", "reasoning_content": "Two and two.\n"}
    assert render({"role": "user", "content": "2 + 2?"}, thought).endswith(
        "<|im_start|>assistant\n<think>\nTwo and two.\n</think>\n\n4<|im_end|>\n"
    )
    with pytest.raises(Exception, match="text only, not image_url"):
        render({"role": "user", "content": [{"type": "image_url"}]})
