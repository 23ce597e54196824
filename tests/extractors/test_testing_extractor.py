"""The conformance kit for extractors: the built-in one passes, broken ones are caught by the checks meant for them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import common_genes, write_small_cells, write_small_recipe
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.cards._evidence_plan import EvidencePlan
from manifoldzoo.extractors._extract import make_job
from manifoldzoo.extractors._operator_let import OperatorLet
from manifoldzoo.extractors.testing import ConformanceError, check_extractor, extractor_checks
from manifoldzoo.manifolds._manifold import Manifold

CONTROL = "spectrum-matched"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    cells = write_small_cells(folder / "cells.h5ad")
    model = write_tiny_scgpt(folder / "model", genes=common_genes(cells, 120), n_layers=3)
    recipe = write_small_recipe(folder / "recipe", 'kind = "attention_mean"')
    return make_job(recipe, cells=[cells], checkpoint=model)


class Remembering:
    """The built-in extractor, which makes of each job only once and tells its steps again."""

    name = OperatorLet.name

    def __init__(self) -> None:
        self._made: dict[object, tuple[Manifold, list[tuple[str, int, int]]]] = {}

    def extract(self, job):
        key = job.seed, job.control, job.checkpoint.digest
        if key not in self._made:
            steps: list[tuple[str, int, int]] = []
            made = OperatorLet().extract(replace(job, work=None, progress=lambda *call: steps.append(call)))
            self._made[key] = made, steps
        made, steps = self._made[key]
        for call in steps if job.progress is not None else ():
            job.progress(*call)
        return made


REMEMBERED = Remembering()


class Altered:
    """An extractor that does something else; a function of the remembered one and the job."""

    name = OperatorLet.name

    def __init__(self, extract) -> None:
        self._extract = extract

    def extract(self, job):
        return self._extract(REMEMBERED, job)


def rebuilt(made, *, card=None, extraction=None, tensors=None):
    """A manifold with other fields on its card, or other tensors."""
    changed = made.card.model_copy(update=card or {})
    if extraction is not None:
        changed = changed.model_copy(update={"extraction": changed.extraction.model_copy(update=extraction)})
    return Manifold.build(changed, made.genes, made.tensors | (tensors or {}), made.vectors)


def always(**changes):
    return lambda inner, job: rebuilt(inner.extract(job), **changes)


def without_projection(inner, job):
    made = inner.extract(job)
    return rebuilt(made, tensors={"projection": (1.1 * made.tensors["projection"]).astype(np.float32)})


def unlike_when(condition):
    """Other bytes in runs of some kind."""
    calls = iter(range(1_000_000))

    def extract(inner, job):
        made = inner.extract(job)
        return rebuilt(made, card={"description": f"run {next(calls)}"}) if condition(job) else made

    return extract


def with_steps(change):
    def extract(inner, job):
        if job.progress is None:
            return inner.extract(job)
        steps: list[tuple[str, int, int]] = []
        made = inner.extract(replace(job, progress=lambda *call: steps.append(call)))
        for call in change(steps):
            job.progress(*call)
        return made

    return extract


def deaf(inner, job):
    try:
        return inner.extract(job)
    except KeyboardInterrupt:
        return inner.extract(replace(job, progress=None))


def leaving(others):
    """Leaves the digest of its model when interrupted, and takes what it finds for its own."""

    def extract(inner, job):
        mark = None if job.work is None else job.work / "state"
        try:
            made = inner.extract(job)
        except KeyboardInterrupt:
            job.work.mkdir(exist_ok=True)
            mark.write_text(job.checkpoint.digest)
            raise
        if mark is not None and mark.is_file() and (mark.read_text() != job.checkpoint.digest) == others:
            return rebuilt(made, card={"description": "gone on with"})
        return made

    return extract


def first_doing(act):
    def extract(inner, job):
        act(job)
        return inner.extract(job)

    return extract


def forgetting_the_control(inner, job):
    return rebuilt(inner.extract(job), extraction={"control": None})


def recording_only(inner, job):
    return rebuilt(inner.extract(replace(job, control=None)), extraction={"control": job.control})


def without_the_controls_seed(inner, job):
    if job.control is None:
        return inner.extract(job)
    pinned = job.control.model_copy(update={"seed": 5})
    return rebuilt(inner.extract(replace(job, control=pinned)), extraction={"control": job.control})


def destroying_more(inner, job):
    made = inner.extract(job)
    return (
        made
        if job.control is None
        else rebuilt(made, card={"panel": made.card.panel.model_copy(update={"min_cells": 1})})
    )


BROKEN = {
    "another name on the card": (always(extraction={"extractor": "other"}), {"card"}),
    "another recipe on the card": (always(extraction={"recipe": "other"}), {"card"}),
    "another version": (always(card={"version": "9.0.0"}), {"card"}),
    "another plan of the evidence": (always(card={"evidence": EvidencePlan(n_starts=99)}), {"card"}),
    "limits left out": (always(card={"limits": ["None."]}), {"card"}),
    "a projection that is not the fold": (without_projection, {"intact", f"control {CONTROL}"}),
    "no manifold": (lambda inner, job: inner.extract(job).card, None),
    "other bytes in a second run": (
        unlike_when(lambda job: job.work is job.progress is job.control is None),
        {"repeatable"},
    ),
    "a seed of its own": (lambda inner, job: inner.extract(replace(job, seed=0)), {"other_seed"}),
    "no seed at all": (
        lambda inner, job: rebuilt(inner.extract(replace(job, seed=0)), extraction={"seed": job.seed}),
        {"other_seed"},
    ),
    "steps that go back": (with_steps(lambda steps: [*steps, (steps[-1][0], 0, steps[-1][2])]), {"progress"}),
    "totals that grow": (with_steps(lambda steps: [(step, done, done) for step, done, _ in steps]), {"progress"}),
    "more than all": (with_steps(lambda steps: [*steps, ("more", 3, 2)]), {"progress"}),
    "a step that stops short": (with_steps(lambda steps: steps[:-1]), {"progress"}),
    "a step without a name": (with_steps(lambda steps: [("", done, total) for _, done, total in steps]), {"progress"}),
    "deaf to interruptions": (deaf, {"resumed", "stale_work"}),
    "other bytes with a work folder": (unlike_when(lambda job: job.work is not None), {"resumed", "stale_work"}),
    "other bytes when it goes on": (leaving(others=False), {"resumed"}),
    "goes on with another's work": (leaving(others=True), {"stale_work"}),
    "draws from NumPy": (first_doing(lambda _: np.random.rand(1)), {"no_traces"}),  # noqa: NPY002
    "draws from PyTorch": (first_doing(lambda _: torch.rand(1)), {"no_traces"}),
    "writes where it stands": (
        first_doing(lambda job: job.work or Path.cwd() == CWD or Path("left.txt").write_text("x")),
        {"no_traces"},
    ),
    "touches the cells": (first_doing(lambda job: os.utime(job.cells[0])), {"no_traces"}),
    "forgets the control": (forgetting_the_control, {f"control {CONTROL}"}),
    "records the control only": (recording_only, {f"control {CONTROL}"}),
    "pins the control's seed": (without_the_controls_seed, {f"control {CONTROL}"}),
    "destroys more": (destroying_more, {f"control {CONTROL}"}),
    "other bytes with a control": (unlike_when(lambda job: job.control is not None), {f"control {CONTROL}"}),
}
CWD = Path.cwd()


def failing(extractor, job):
    found = {}
    for name, check in extractor_checks(job, controls=[CONTROL]):
        try:
            check(extractor)
        except ConformanceError as error:
            found[name] = error
    assert [error.check for error in found.values()] == list(found)
    return found


def test_the_built_in_extractor_conforms(job):
    told = []
    OperatorLet().extract(replace(job, progress=lambda *call: told.append(call)))
    # or an interruption would come when all is done
    assert len([call for call in told if call[0] == "attention"]) > 2
    check_extractor(OperatorLet(), job, controls=["shuffled-weights", "permuted-genes"])


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_extractor_is_caught_by_the_checks_meant_for_it(fault, job):
    extract, expected = BROKEN[fault]
    found = failing(Altered(extract), job)
    every = {name for name, _ in extractor_checks(job, controls=[CONTROL])}
    # nothing but what is drawn and written can be told of an extractor that makes no manifold
    assert set(found) == (every - {"no_traces"} if expected is None else expected), {
        n: str(e) for n, e in found.items()
    }


def test_every_check_of_an_extractor_can_fail(job):
    caught = set.union(*(expected for _, expected in BROKEN.values() if expected))
    assert caught == {name for name, _ in extractor_checks(job, controls=[CONTROL])}


def test_an_extractor_without_chance_says_so(job):
    pinned = Altered(lambda inner, job: rebuilt(inner.extract(replace(job, seed=0)), extraction={"seed": job.seed}))
    checks = dict(extractor_checks(job, uses_chance=False))
    checks["other_seed"](pinned)
    with pytest.raises(ConformanceError, match="other_seed: found other tensors for another seed"):
        checks["other_seed"](REMEMBERED)


def test_an_extractor_that_tells_no_steps_is_not_interrupted(job):
    silent = Altered(lambda inner, job: inner.extract(replace(job, progress=None)))
    assert failing(silent, job) == {}


def test_what_the_job_asked_for_beside_is_replaced(job, tmp_path):
    def never(*_):
        raise AssertionError("not called")

    assert failing(REMEMBERED, replace(job, work=tmp_path / "work", progress=never)) == {}
    assert not (tmp_path / "work").exists()


def test_an_interruption_from_outside_ends_the_checks(job):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_extractor(Altered(stop), job)
