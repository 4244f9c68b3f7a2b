"""Checks that the token ids of a recipe's dataset mean the same tokens to the model that is trained
on it, from the files that exist before anything starts.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from common.errors import UserError
from data_prep.tokenizer import tokenizers
from data_prep.tokenizer.tokenizers import TOKENIZER_FILE
from trainer.run.base_model import is_random


def check(config: DictConfig) -> None:
    """Raises UserError when ``model.init`` would make a random model in the folder of another one,
    or the dataset has, or would get, other tokens than the model of ``model.path``. A model without
    files on this machine is not checked.
    """
    model, folder = config.model, Path(config.model.path)
    built = Path(config.verl.model.tokenizer_path) / TOKENIZER_FILE
    if model.init is not None:
        if folder.is_dir() and not is_random(folder):
            raise UserError(
                f"model.path={folder} holds a model, and model.init asks for a random one there: "
                "set model.init=null and model.tokenizer=model to train the one that is there, or "
                "another model.path"
            )
    elif built.exists():
        own = folder / TOKENIZER_FILE
        if own.exists() and not _has_tokens(own, built):
            raise UserError(
                f"the dataset's tokenizer ({built.parent}) has other token ids than that of the "
                f"model in {folder}: build the dataset with model.tokenizer=model under a new "
                "data.name"
            )
    elif model.tokenizer == "trained":
        raise UserError(
            f"model.tokenizer=trained makes new tokens, which the model in {folder} does not know: "
            "set model.tokenizer=model"
        )
    elif model.tokenizer == "model" and folder.is_dir():
        tokenizers.check_there(folder)


def _has_tokens(own: Path, built: Path) -> bool:
    """Returns whether every token of the tokenizer in ``built`` has the same id in ``own``."""
    from tokenizers import Tokenizer

    if own.read_bytes() == built.read_bytes():
        return True
    ours, theirs = (Tokenizer.from_file(str(file)).get_vocab() for file in (built, own))
    return ours.items() <= theirs.items()
