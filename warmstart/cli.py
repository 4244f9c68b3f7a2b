"""The command: its verbs, their arguments, its exit codes.

warmstart run tiny                      the whole line, on this machine
warmstart train sft_4b train.lr=2e-5    one stage, with an override
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from common.errors import StageFailed, UserError
from common.exit_codes import FAILED, STOPPED, USAGE
from warmstart import commands

Argument = tuple[tuple[str, ...], dict[str, Any]]


def _argument(*names: str, **options: Any) -> Argument:
    return names, options


OVERRIDES = _argument("overrides", nargs="*", metavar="key=value")
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
        commands.inspect,
        (
            *RECIPE,
            _argument("--row", type=int, default=0, help="index of the row (default 0)"),
            _argument("--split", choices=("train", "test"), default="train"),
        ),
    ),
    "doctor": (
        commands.doctor,
        (
            *RECIPE,
            JSON,
            _argument("-N", "--nodes", metavar="N", help="as for sbatch: what the job asks for"),
            _argument("--ntasks-per-node", metavar="N", help="ranks per node"),
            _argument("--gpus-per-node", metavar="N", help="GPUs per node"),
        ),
    ),
    "prefetch": (commands.prefetch, RECIPE),
    "plan": (commands.plan, RECIPE),
    "train": (commands.train, RECIPE),
    "export": (
        commands.export,
        (
            RUN,
            _argument("step", metavar="STEP", nargs="?", help="default: the newest checkpoint"),
            OVERRIDES,
            PUSH,
        ),
    ),
    "eval": (
        commands.evaluate,
        (
            _argument("target", metavar="RUN|MODEL"),
            _argument("label", metavar="base|STEP", nargs="?", help="default: the newest export"),
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
        commands.compare,
        (
            _argument("targets", nargs="+", metavar="RUN|RUN@base|RUN@STEP|DIR"),
            PARTIAL,
            _argument(
                "--across-prompts",
                action="store_true",
                help="compare evaluations that asked the problems in different words",
            ),
        ),
    ),
    "rl": (
        commands.rl,
        (
            RUN,
            _argument("label", metavar="STEP", nargs="?", help="default: the newest export"),
            OVERRIDES,
            _argument(
                "--pool",
                metavar="FILE",
                help="JSONL file with your own problems: one {id, problem, answer} per line",
            ),
            _argument("--problems", metavar="N", type=int, help="number of problems in the pool"),
        ),
    ),
    "status": (commands.status, (RUN, JSON)),
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
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="warmstart",
        description=(
            "Turns a base model into a reasoning warm-start for RL: data, SFT, evaluation, report."
        ),
        epilog=(
            "RECIPE is a name in recipes/. RUN is a folder or a name under runs/. key=value "
            "overrides a value of the recipe."
        ),
    )
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (function, arguments) in VERBS.items():
        sub = subparsers.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(function=function)
        for names, options in arguments:
            sub.add_argument(*names, **options)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns 0 done, 1 failed, 2 usage or configuration, 3 preflight, 75 stopped on
    purpose.
    """
    options = vars(_parser().parse_args(arguments))
    function = options.pop("function")
    del options["verb"]
    try:
        return function(**options)
    except UserError as e:
        print(f"warmstart: {e}", file=sys.stderr)
        return USAGE
    except StageFailed as e:
        print(f"warmstart: {e}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("warmstart: interrupted; run the same command again to continue", file=sys.stderr)
        return STOPPED
