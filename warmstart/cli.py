"""The command: its verbs, their arguments, its exit codes.

warmstart run tiny                      every stage, on this machine warmstart train sft_4b
train.lr=2e-5    one stage, with an override
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

from common.exit_codes import reported
from warmstart import commands, views
from warmstart.usage import Parser, check_options, check_verb

_KEY = re.compile(r"[+~]*[A-Za-z_][\w.@]*=")
"""Beginning of a word that is key=value."""
Argument = tuple[tuple[str, ...], dict[str, Any]]


def _argument(*names: str, **options: Any) -> Argument:
    return names, options


OVERRIDES = _argument("overrides", nargs="*", default=[], metavar="key=value")
RECIPE = (_argument("recipe", metavar="RECIPE"), OVERRIDES)
RUN = _argument("run", metavar="RUN")
PARTIAL = _argument(
    "--partial",
    action="store_true",
    help="use the evaluations that exist so far; the output marks what is missing",
)
PUSH = _argument(
    "--push",
    dest="repo",
    metavar="REPO",
    help="also upload to the private hub repository OWNER/NAME; needs HF_TOKEN",
)
JSON = _argument("--json", dest="as_json", action="store_true", help="print JSON, for scripts")

VERBS: dict[str, tuple[Callable[..., int], tuple[Argument, ...]]] = {
    "data": (commands.data, (*RECIPE, PUSH)),
    "inspect": (
        views.inspect,
        (
            *RECIPE,
            _argument("--row", type=int, default=0, help="index of the row (default 0)"),
            _argument(
                "--split",
                choices=("train", "test"),
                default="train",
                help="training or held-out rows (default train)",
            ),
        ),
    ),
    "doctor": (
        commands.doctor,
        (
            *RECIPE,
            JSON,
            _argument("-N", "--nodes", metavar="N", help="nodes of the job, as for sbatch"),
            _argument("--ntasks-per-node", metavar="N", help="ranks per node"),
            _argument("--gpus-per-node", metavar="N", help="GPUs per node"),
        ),
    ),
    "prefetch": (commands.prefetch, RECIPE),
    "plan": (
        commands.plan,
        (
            *RECIPE,
            _argument(
                "--rl",
                action="store_true",
                help="forecast GRPO with verl instead, on several clusters; RECIPE may be a RUN, "
                "whose rollouts give the lengths",
            ),
        ),
    ),
    "train": (commands.train, RECIPE),
    "export": (
        commands.export,
        (
            RUN,
            _argument(
                "step",
                metavar="STEP|avg-NAME|rl-N",
                nargs="?",
                help="rl-N: step N of RL; default: the newest checkpoint of SFT",
            ),
            OVERRIDES,
            PUSH,
            _argument(
                "--average",
                dest="members",
                metavar="STEPS",
                help="the mean of steps: 704,1056,1408, or with weights 704:1,1056:2,1408:4",
            ),
            _argument(
                "--toward",
                metavar="base=SHARE",
                help="move STEP or the average towards the base model: base=0.3 takes 0.3 of it",
            ),
            _argument(
                "--name",
                metavar="NAME",
                help="call the average avg-NAME; default: a name from its steps and shares",
            ),
        ),
    ),
    "eval": (
        commands.evaluate,
        (
            _argument("target", metavar="RUN|MODEL"),
            _argument(
                "label",
                metavar="base|STEP|avg-NAME|rl-N",
                nargs="?",
                help="avg-NAME: an average; rl-N: step N of RL; default: the newest export of SFT",
            ),
            OVERRIDES,
        ),
    ),
    "grade": (
        commands.grade,
        (
            _argument("target", metavar="FILE|DIR"),
            _argument(
                "--style",
                help="answer style of a FILE: boxed (default), answer_is or gsm8k_synth",
            ),
        ),
    ),
    "report": (commands.report, (RUN, PARTIAL)),
    "compare": (
        views.compare,
        (
            _argument(
                "targets",
                nargs="+",
                metavar="RUN|RUN@base|RUN@STEP|RUN@avg-NAME|RUN@rl-N|DIR",
                help="with commas, RUN_A,RUN_B,RUN_C: a group of runs that differ only in "
                "train.seed",
            ),
            PARTIAL,
            _argument(
                "--across-prompts",
                action="store_true",
                help="compare evaluations that asked the problems in different words",
            ),
        ),
    ),
    "choose": (views.choose, (_argument("run", metavar="RUN[,RUN...]"),)),
    "rl": (
        commands.rl,
        (
            RUN,
            _argument(
                "label",
                metavar="STEP",
                nargs="?",
                help="default: what choose recommends, or the newest export if fewer than two "
                "are evaluated",
            ),
            OVERRIDES,
            _argument(
                "--pool",
                metavar="FILE",
                help="JSONL file with your own problems: one {id, problem, answer} per line",
            ),
            _argument("--problems", metavar="N", type=int, help="number of problems in the pool"),
        ),
    ),
    "status": (views.status, (RUN, JSON)),
    "watch": (
        commands.watch,
        (
            RUN,
            OVERRIDES,
            _argument(
                "--once", action="store_true", help="submit the missing evaluations once, then exit"
            ),
        ),
    ),
    "run": (commands.line, RECIPE),
    "recipes": (views.recipes, ()),
    "runs": (
        views.runs,
        (
            _argument("roots", nargs="*", default=[], metavar="ROOT"),
            _argument("--page", metavar="FILE", help="also write the table as a page of HTML"),
            JSON,
        ),
    ),
}


def _parse(words: list[str]) -> tuple[Callable[..., int], dict[str, Any]]:
    """Returns the verb's function and its arguments. Options, key=value and the rest may come in
    any order. Raises UserError for unknown verbs, options and arguments.
    """
    parser, verbs = _parsers()
    if not words or words[0] not in verbs:
        check_verb(words, list(verbs), parser.options)
        parser.parse_args(words)
    verb, sub, (function, arguments) = words[0], verbs[words[0]], VERBS[words[0]]
    words, keyed = words[1:], []
    options = [(names, how) for names, how in arguments if names[0].startswith("-")]
    valued = {name for names, how in options for name in names if "action" not in how}
    check_options(verb, words, [name for names, _ in options for name in names], valued)
    if OVERRIDES in arguments:
        pairs = list(zip(["", *words], words, strict=False))
        keyed = [word for before, word in pairs if _KEY.match(word) and before not in valued]
        words = [word for before, word in pairs if not _KEY.match(word) or before in valued]
    parsed = vars(sub.parse_intermixed_args(words))
    if OVERRIDES in arguments:
        parsed["overrides"] = [*parsed["overrides"], *keyed]
    return function, parsed


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    """Returns the command's parser and those of its verbs."""
    parser = Parser(
        prog="warmstart",
        description=(
            "Turns a base model into a reasoning warm-start for RL: data, SFT, evaluation, report."
        ),
        epilog=(
            "RECIPE is a name in recipes/ or the path of a YAML file. RUN is a folder or a name "
            "under runs/. key=value overrides a value of the recipe."
        ),
    )
    version = f"%(prog)s {metadata.version('warmstart')}"
    parser.add_argument("--version", action="version", version=version)
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (function, arguments) in VERBS.items():
        sub = subparsers.add_parser(name, help=function.__doc__, description=function.__doc__)
        for names, options in arguments:
            sub.add_argument(*names, **options)
    return parser, subparsers.choices


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns 0 done, 1 failed, 2 usage or configuration, 3 preflight, 75 stopped on
    purpose.
    """

    def work() -> int:
        function, options = _parse(sys.argv[1:] if arguments is None else list(arguments))
        return function(**options)

    return reported(work)
