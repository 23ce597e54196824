"""Whether an extractor keeps what the front door, the gates and the card rely on."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...cards._card import Control, ControlKind
from ...cards._errors import ZooWarning
from ...cards._evidence import RungResult
from ...cards._names import sha256_file
from ...gates.rungs._intact import reproduces, valid
from ...manifolds._manifold import Manifold
from .._interface import Extractor, Job
from ._cells import nothing_global_changes
from ._conformance import Check, Mismatch, named, run

Steps = list[tuple[str, int, int]]


def check_extractor(
    extractor: Extractor, job: Job, *, controls: Sequence[ControlKind] = (), uses_chance: bool = True
) -> None:
    """Check that an extractor makes manifolds that others can load, check and make again.

    Parameters
    ----------
    extractor
        What an entry point under ``manifoldzoo.extractors`` returns when it is called.
    job
        A small one: it is extracted some ten times. Its seed, control, work folder and progress are replaced.
    controls
        Kinds of control that the extractor says it knows.
    uses_chance
        Whether the seed decides numbers; ``False`` for an extractor without any chance in it.

    Raises
    ------
    ConformanceError
        Of the first check that fails: its name, what was found and what was expected.

    See Also
    --------
    extractor_checks : The same one by one, to parametrise tests.

    Notes
    -----
    An extractor that is interrupted is interrupted in its calls of ``progress``, so one that never calls it is not
    interrupted at all. Whether a manifold means anything is for rung 3 and above of the ladder to say.
    """
    run(extractor, extractor_checks(job, controls=controls, uses_chance=uses_chance))


def extractor_checks(
    job: Job, *, controls: Sequence[ControlKind] = (), uses_chance: bool = True
) -> Iterator[tuple[str, Check[Extractor]]]:
    """Yield the checks of ``check_extractor``, each a name and a function of an extractor.

    Parameters are those of ``check_extractor``. The manifold that most checks start from is extracted once.
    """
    trial = _Trial(replace(job, control=None, work=None, progress=None), uses_chance=uses_chance)
    yield named("card", trial.card)
    yield named("intact", trial.intact)
    yield named("repeatable", trial.repeatable)
    yield named("other_seed", trial.other_seed)
    yield named("progress", trial.progress)
    yield named("resumed", trial.resumed)
    yield named("stale_work", trial.stale_work)
    yield named("no_traces", trial.no_traces)
    for kind in controls:
        yield named(f"control {kind}", trial.control(kind))


class _Trial:
    """A job, the manifold that an extractor made of it, and the steps that it reported on the way."""

    def __init__(self, job: Job, *, uses_chance: bool) -> None:
        self.job = job
        self.uses_chance = uses_chance
        self._made: tuple[Extractor, Manifold, Steps] | None = None

    def made(self, extractor: Extractor) -> tuple[Manifold, Steps]:
        """Extract with the job's own seed, once for each extractor."""
        if self._made is None or self._made[0] is not extractor:
            steps: Steps = []
            manifold = extractor.extract(replace(self.job, progress=lambda *call: steps.append(call)))
            if not isinstance(manifold, Manifold):
                raise Mismatch(f"a {type(manifold).__name__}", "a Manifold")
            self._made = extractor, manifold, steps
        return self._made[1:]

    def card(self, extractor: Extractor) -> None:
        """The card says what the job was."""
        card, job = self.made(extractor)[0].card, self.job
        for what, found, expected in (
            ("extractor", card.extraction.extractor, extractor.name),
            ("recipe", card.extraction.recipe, job.recipe.name),
            ("name", card.name, job.recipe.name),
            ("version", card.version, job.recipe.version),
            ("licence", card.licence, job.recipe.licence),
            ("seed", card.extraction.seed, job.seed),
            ("control", card.extraction.control, None),
            ("plan of the evidence", card.evidence, job.recipe.evidence),
            ("digest of the source model", card.source_model.digest, job.checkpoint.digest),
            ("digest of the ruler", card.ruler.digest, job.ruler.digest),
            ("SHA-256 of the cells", [file.sha256 for file in card.panel.files], [*map(sha256_file, job.cells)]),
            ("tasks", [made.task for made in card.extraction.readouts], [asked.task for asked in job.recipe.readouts]),
        ):
            if found != expected:
                raise Mismatch(f"{what} {found!r} on the card", f"{expected!r}")
        unstated = [limit for limit in job.recipe.limits if limit not in card.limits]
        if unstated:
            raise Mismatch(f"a card without the recipe's limit {unstated[0]!r}", "every limit of the recipe")

    def intact(self, extractor: Extractor) -> None:
        """Rungs 1 and 2 pass, before the manifold is saved and after it was read back."""
        manifold = self.made(extractor)[0]
        _passes(valid(manifold), reproduces(manifold))
        with tempfile.TemporaryDirectory() as folder:
            again = Manifold.read(manifold.save(Path(folder) / "artifact"))
            _passes(valid(again), reproduces(again))

    def repeatable(self, extractor: Extractor) -> None:
        """Equal input and seed give equal bytes."""
        first, again = self.made(extractor)[0], extractor.extract(self.job)
        _same_bytes(again, first, "in a second run")

    def other_seed(self, extractor: Extractor) -> None:
        """Another seed is on the card, and decides numbers where chance has a part."""
        first, other = self.made(extractor)[0], extractor.extract(replace(self.job, seed=self.job.seed + 1))
        if other.card.extraction.seed != self.job.seed + 1 or other.digest == first.digest:
            raise Mismatch(f"seed {other.card.extraction.seed} on the card", f"{self.job.seed + 1}, the seed given")
        differ = bool(_different(first, other))
        if self.uses_chance and not differ:
            raise Mismatch("the same tensors for another seed", "others, or `uses_chance=False`")
        if differ and not self.uses_chance:
            raise Mismatch("other tensors for another seed", "the same ones, or `uses_chance=True`")

    def progress(self, extractor: Extractor) -> None:
        """Each step counts up to a total that it reaches."""
        reached: dict[str, tuple[int, int]] = {}
        for step, done, total in self.made(extractor)[1]:
            before, whole = reached.get(step, (0, total))
            if not step or total != whole or not before <= done <= total:
                raise Mismatch(
                    f"progress {done} of {total} after {before} of {whole} in the step {step!r}",
                    "a named step that counts up to one total",
                )
            reached[step] = done, total
        short = [f"{step!r} {done} of {total}" for step, (done, total) in reached.items() if done != total]
        if short:
            raise Mismatch(f"a step that ends at {short[0]}", "its total reached")

    def resumed(self, extractor: Extractor) -> None:
        """What was interrupted goes on to the same bytes."""
        manifold, steps = self.made(extractor)
        with tempfile.TemporaryDirectory() as folder:
            for stop in sorted({len(steps) // 2, max(0, len(steps) - 1)}) if steps else []:
                self._interrupt(extractor, replace(self.job, work=Path(folder) / f"work{stop}"), stop)
                again = self._go_on(extractor, replace(self.job, work=Path(folder) / f"work{stop}"))
                _same_bytes(again, manifold, f"after an interruption at {steps[stop]}")
            unbroken = self._go_on(extractor, replace(self.job, work=Path(folder) / "unbroken"))
            _same_bytes(unbroken, manifold, "with a folder for unfinished work")

    def stale_work(self, extractor: Extractor) -> None:
        """The unfinished work of another model is not gone on with."""
        manifold, steps = self.made(extractor)
        other = replace(self.job, checkpoint=self.job.checkpoint.random_initialisation(self.job.seed))
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder) / "work"
            self._interrupt(extractor, replace(other, work=work), max(0, len(steps) - 1))
            _same_bytes(self._go_on(extractor, replace(self.job, work=work)), manifold, "over work of another model")

    def no_traces(self, extractor: Extractor) -> None:
        """Without a work folder nothing is written, and nothing drawn from random states of the process."""
        files = tuple(path.resolve() for path in (self.job.labels, *self.job.cells))
        job = replace(self.job, labels=files[0], cells=files[1:])
        before = [_stamp(path) for path in files]
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            with nothing_global_changes():
                extractor.extract(job)
            left = sorted(path.name for path in Path(folder).iterdir())
        if left:
            raise Mismatch(f"{left[0]!r} written to the working directory", "nothing kept without `work`")
        if [_stamp(path) for path in files] != before:
            raise Mismatch("labels or cells written to", "files left as they are")

    def control(self, kind: ControlKind) -> Callable[[Extractor], None]:
        """Return the check of one control: destroyed, recorded, and all the rest alike."""

        def body(extractor: Extractor) -> None:
            real = self.made(extractor)[0]
            first, again, other = (extractor.extract(self._controlled(kind, seed)) for seed in (1, 1, 2))
            recorded = first.card.extraction.control
            if recorded != Control(kind=kind, seed=1):
                raise Mismatch(f"control {recorded!r} on the card", f"{Control(kind=kind, seed=1)!r}")
            _passes(valid(first), reproduces(first))
            _same_bytes(again, first, "for the same seed of the control")
            if first.card.panel != real.card.panel or first.genes.symbols != real.genes.symbols:
                raise Mismatch("another panel or other genes", "nothing else destroyed")
            for unlike, whose in ((real, "the real one"), (other, "another seed of the control")):
                if "operator" not in _different(first, unlike):
                    raise Mismatch(f"the operator of {whose}", "one of its own")

        return body

    def _controlled(self, kind: ControlKind, seed: int) -> Job:
        """The job as ``extract`` hands it over with a control."""
        source = self.job.checkpoint
        if kind == "random-init":
            source = source.random_initialisation(seed)
        elif kind == "shuffled-weights":
            source = source.shuffled_weights(seed)
        return replace(self.job, checkpoint=source, control=Control(kind=kind, seed=seed))

    def _interrupt(self, extractor: Extractor, job: Job, stop: int) -> None:
        """Interrupt an extraction in one of its calls of ``progress``, if it makes so many."""
        calls = 0

        def interrupt(_step: str, _done: int, _total: int) -> None:
            nonlocal calls
            calls += 1
            if calls > stop:
                raise KeyboardInterrupt

        try:
            extractor.extract(replace(job, progress=interrupt))
        except KeyboardInterrupt:
            return
        if calls > stop:
            raise Mismatch("that it goes on after KeyboardInterrupt", "the interruption passed on")

    def _go_on(self, extractor: Extractor, job: Job) -> Manifold:
        """Extract over what lies in the work folder; a warning that it is of no use is fine."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZooWarning)
            return extractor.extract(job)


def _passes(*rungs: RungResult) -> None:
    """Refuse a rung that does not pass, with the record that says why."""
    for rung in rungs:
        if rung.status != "pass":
            record = next((record for record in rung.records if record.status != "pass"), rung.records[0])
            why = record.reason or f"{record.statistic:.3g}, needed {record.direction} {record.threshold:g}"
            raise Mismatch(f"rung {rung.rung}, {rung.status} at {record.gate}: {why}", "rungs 1 and 2 passed")


def _different(one: Manifold, other: Manifold) -> list[str]:
    """Names of tensors that two manifolds do not share."""
    names = sorted(one.tensors.keys() | other.tensors.keys())
    held = one.tensors.keys() & other.tensors.keys()
    return [name for name in names if name not in held or not np.array_equal(one.tensors[name], other.tensors[name])]


def _same_bytes(found: Manifold, expected: Manifold, when: str) -> None:
    """Refuse another digest, naming a tensor that differs."""
    if found.digest != expected.digest:
        differ = _different(found, expected)
        raise Mismatch(f"another {differ[0] if differ else 'card, gene table or test vector'} {when}", "equal bytes")


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file."""
    return path.stat().st_size, path.stat().st_mtime_ns
