"""``warmstart doctor``: runs every check, on this machine or on all nodes of a job.

On a login node one process checks that node. Under srun every task takes part: the first task of
each node checks its node; rank 0 also checks what the job shares, and is the only one to report.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from functools import partial

from omegaconf import DictConfig

from common import provenance
from common.errors import Mistakes, UserError
from trainer.doctor import binding, devices, disk, health, incidents, inputs, nodes, slurm
from trainer.doctor.findings import (
    FATAL,
    NOT_HERE,
    OK,
    Finding,
    Located,
    carrying,
    merge,
    this_node,
)
from trainer.doctor.forecast import look
from trainer.doctor.size import Size, sized
from trainer.doctor.size import check as check_size
from trainer.process import process_group
from trainer.recipe import load as configs
from trainer.run import frozen_config
from trainer.run.folder import Run

HERE = ""


def examine(
    recipe: str, overrides: Sequence[str], asked: Size | None = None, usual: Size | None = None
) -> list[Located]:
    """Returns the findings, worst first; empty on a task that does not report.

    ``asked`` is what the job will ask for, ``usual`` what its script asks for where GPUs train (a
    recipe on CPUs is for this machine); without them the recipe's cluster counts, in a job its
    allocation. The commands that fix findings carry the overrides.
    """
    words = list(overrides)
    under_slurm = process_group.under_slurm(os.environ)
    leads_node = not under_slurm or os.environ["SLURM_LOCALID"] == "0"
    fix = "recipes/base.yaml lists every key"
    try:
        words, config = frozen_config.choose(partial(configs.load, recipe), overrides)
        fix = "run.name=NAME, or the run's own values"
        run = frozen_config.check(config)
    except UserError as e:
        if not leads_node:
            return []
        told = e.faults if isinstance(e, Mistakes) else [str(e)]
        return merge({_host(): [Finding(FATAL, "recipe", fault, fix) for fault in told]})
    again = shlex.join([recipe, *words])
    if asked is None and "SLURM_JOB_ID" in os.environ:
        # A shell or a notebook in an allocation trains as one machine does.
        asked = Size.here(None if under_slurm else config.train.ranks)
    size = asked or (usual if config.device == "cuda" else None) or Size.of(config)
    config = sized(config, size)
    if under_slurm:
        return [carrying(f, config.name, again) for f in _with_peers(config, run, leads_node, size)]
    alone = Finding(
        NOT_HERE, "peers", "no srun step: nodes, port, clocks and all-reduce are checked in the job"
    )
    found = merge({HERE: [*_local(config, run, True, size), alone]})
    return [carrying(f, config.name, again) for f in found]


def _local(config: DictConfig, run: Run, leads: bool, size: Size) -> Iterator[Finding]:
    """Yields this node's findings; ``leads`` adds those that are the same for all nodes."""
    outlook, findings = look(config, run)
    yield from inputs.check(config, leads)
    yield from devices.check(config)
    yield from health.check(config)
    yield from binding.cores()
    for finding in disk.check(config, run, outlook):
        if leads or finding.what != "disk space":
            yield finding
    if leads:
        yield Finding(OK, "recipe", f"{config.name} is valid, its run is {run.root}")
        yield from check_size(config, size)
        yield from findings
        yield from slurm.check(config, outlook, size.options)


def _with_peers(config: DictConfig, run: Run, leads_node: bool, size: Size) -> list[Located]:
    place = process_group.slurm_environment(os.environ)
    os.environ.update(place)
    meeting = nodes.Meeting.of(place, config.train.hang_minutes)
    leads = meeting.rank == 0
    store = meeting.open() if meeting.world > 1 else None
    own = list(_local(config, run, leads, size)) if leads_node else []
    if isinstance(store, Finding):
        return merge({_host(): [*own, store]})
    if store is None:
        incidents.record(run, {_host(): own})
        return merge({_host(): own})
    facts = _facts(config) if leads_node else {}
    note = nodes.Note(meeting.rank, this_node(), facts, own, binding.gpu(config))
    notes, absent, able = meeting.exchange(store, note)
    shared, seconds = meeting.measure(store, config) if able and not absent else ([], [])
    meeting.leave(store, meeting.world - len(absent))
    if not leads:
        return []
    located = binding.slowest(seconds, notes, config.device)
    if absent:
        expected = binding.ranks_by_node(os.environ)
        located = nodes.missing(absent, meeting.world, notes, meeting.timeout, expected)
    else:
        shared.append(binding.network(meeting.address, meeting.port))
    by_node: dict[str, list[Finding]] = {}
    for n in notes:
        by_node.setdefault(n.host, []).extend(f for f in n.findings if n.rank == 0 or f.level != OK)
    for node, finding in located.items():
        by_node.setdefault(node, []).append(finding)
    if fault := binding.sharing(notes):
        shared.append(fault)
    by_node[HERE] = [*by_node.get(HERE, []), *shared, *nodes.compare(notes)]
    incidents.record(run, by_node)
    return merge(by_node)


def _facts(config: DictConfig) -> dict[str, str]:
    """Returns the facts that must be the same on every node."""
    found = {**provenance.versions(), "git": provenance.git_commit(), **devices.facts(config)}
    try:
        return found | inputs.identity(config)
    except UserError:  # already reported as a finding
        return found


def _host() -> str:
    return this_node() if "SLURM_JOB_ID" in os.environ else HERE
