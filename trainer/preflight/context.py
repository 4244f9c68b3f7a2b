"""Checks whether the longest prompt and the answer's budget fit into the model's context, from the
files that exist before anything starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from common.errors import UserError
from common.records import Problem
from data_prep.tokenizer import chat
from data_prep.tokenizer.prompt import Prompt
from data_prep.tokenizer.tokenizers import TOKENIZER_FILE
from trainer.preflight import model_source


def prompt_of(config: DictConfig) -> Prompt:
    """Returns the prompt of the recipe's evaluation: that of training, unless ``eval`` has another
    one.
    """
    data, values = config.data, config.eval
    return Prompt(
        data.prompt if values.prompt is None else values.prompt,
        data.system if values.system is None else values.system,
        values.prefill,
    )


def room(prompts: Mapping[tuple[str, str], int], limit: int) -> tuple[int, str]:
    """Returns the tokens that the longest prompt leaves in a context of ``limit`` tokens, and a
    description of that prompt. ``prompts`` is (set, id) -> tokens.
    """
    (name, problem), longest = max(prompts.items(), key=lambda item: item[1])
    return limit - longest, f"the longest prompt ({name} {problem}, {longest} tokens)"


def length(prompts: Mapping[tuple[str, str], int], max_tokens: int, limit: int) -> int:
    """Returns the context, in tokens, that the longest prompt and the budget need.

    ``prompts`` is (set, id) -> tokens; ``limit`` is the model's context. Raises UserError when they
    do not fit: prompts are never truncated.
    """
    left, longest = room(prompts, limit)
    needed = limit - left + max_tokens
    if needed > limit:
        fix = f"set eval.max_tokens={left} or less" if left > 0 else "leave that problem out"
        raise UserError(
            f"{longest} and eval.max_tokens={max_tokens} need a context of {needed} tokens, but "
            f"the model has {limit}: {fix}"
        )
    return needed


def lengths(
    config: DictConfig, problems: Sequence[Problem], tokenizer: Path
) -> dict[tuple[str, str], int]:
    """Returns the tokens of each problem's prompt, by (set, id), in the words of the recipe's
    evaluation.
    """
    from tokenizers import Tokenizer

    encoder, prompt = Tokenizer.from_file(str(tokenizer / TOKENIZER_FILE)), prompt_of(config)
    encoder.no_truncation()
    return {(p.set, p.id): len(chat.encode_prompt(encoder, p, prompt)) for p in problems}


def check(config: DictConfig, problems: Sequence[Problem]) -> None:
    """Raises UserError when ``eval.max_tokens`` and the longest prompt do not fit the model. As
    long as there is no tokenizer, or there are no problems, a prompt counts as one token; a model
    whose context is not known yet is not checked.
    """
    limit = model_source.context(config)
    if limit is None:
        return
    if folder := _tokenizer(config) if problems else None:
        length(lengths(config, problems, folder), config.eval.max_tokens, limit)
    elif config.eval.max_tokens >= limit:
        raise UserError(
            f"eval.max_tokens={config.eval.max_tokens} and a prompt do not fit the model, whose "
            f"context is {limit} tokens: set eval.max_tokens to less"
        )


def _tokenizer(config: DictConfig) -> Path | None:
    """Returns the folder of the dataset's tokenizer, or before it is built that of the model that
    it will be taken from.
    """
    folders = [Path(config.verl.model.tokenizer_path)]
    if config.model.tokenizer == "model":
        folders.append(Path(config.model.path))
    return next((folder for folder in folders if (folder / TOKENIZER_FILE).exists()), None)
