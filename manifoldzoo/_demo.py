"""The demo: the whole path on bundled real cells, offline."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad

from ._demo_shown import GROUPBY, Shown, draw, names_at_hand, told
from ._demo_shown import render as render_shown
from ._output import table
from .cards._errors import BadInputError
from .cards._evidence import EvidenceRun, rung_reached
from .extractors._extract import extract, reference_checkpoint
from .gates._ladder import validate
from .manifolds._files import write_bytes
from .manifolds._manifold import Manifold
from .manifolds.demo import demo_path
from .registry._publish import Publication, publish
from .registry._resolve import load

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, int, int], None]
MINE = "hematopoietic-marrow-demo"


@dataclass(frozen=True)
class DemoResult:
    """What the demo did, as one document and as a table."""

    document: dict[str, Any]

    def render(self, console: Console) -> None:
        """Print the table."""
        gates = table("manifold", "gate", ">statistic", "needed", "status")
        for manifold in self.document["manifolds"]:
            for record in manifold["gates"]:
                gates.add_row(
                    manifold["reference"], record["gate"], record["statistic"], record["needed"], record["status"]
                )
            gates.add_section()
        console.print(gates)
        console.print()
        verdicts = table("manifold", "verdict", "published")
        for manifold in self.document["manifolds"]:
            verdicts.add_row(manifold["reference"], manifold["verdict"], manifold["published"])
        console.print(verdicts)
        console.print()
        steps = table("step", ">seconds")
        for step, seconds in self.document["seconds"].items():
            steps.add_row(step, f"{seconds:.2f}")
        console.print(steps)
        console.print()
        render_shown(self.document["shown"], console)
        figures = [figure for shown in self.document["shown"] for figure in shown["figures"]]
        lines = [*(f"figure {figure}" for figure in figures), f"cells  {self.document['cells']}"]
        console.print("\n" + "\n".join(lines), markup=False)


def run_demo(output: Path, *, progress: Progress | None = None) -> DemoResult:
    """Use the bundled manifolds on the bundled cells, then extract, validate, publish and load one of one's own.

    Parameters
    ----------
    output
        Folder for the figures, the transformed cells, the extracted artifact and the store it is published to;
        what an earlier demo left there is replaced.
    progress
        Called as ``progress(step, done, total)``.

    Returns
    -------
    Gates, verdicts, what the cells say of each manifold, places and timings.

    Raises
    ------
    MissingExtraError
        If the extra ``[extract]`` is not installed.
    BadInputError
        If the folder holds folders of the same names that no demo made.
    StoreError
        If the folder cannot be written.
    """
    seconds: dict[str, float] = {}
    artifact, store = output / MINE, output / "zoo"
    _clear(output, (artifact, store))
    cells, shown = ad.read_h5ad(demo_path()), []
    for name in names_at_hand():
        with _timed(seconds, f"load {name}"):
            shown.append(Shown(load(name)))
        with _timed(seconds, f"transform {cells.n_obs} cells with {name}, distances between groups"):
            shown[-1].manifold.transform(cells, scale="counts", groupby=GROUPBY)
    manifold = shown[0].manifold
    with _timed(seconds, f"validate {manifold.name} through rung 3"):
        run = validate(manifold, through=3, progress=progress)
    with _timed(seconds, "extract a manifold from the reference checkpoint and these cells"):
        mine = extract(MINE, checkpoint=reference_checkpoint(), cells=[demo_path()], progress=progress)
        mine.save(artifact)
    with _store(store), _timed(seconds, "validate and publish it to a local store"):
        published = publish(
            artifact,
            "local",
            allow_below="a demo on one study: what its gates say is shown as it is",
            progress=progress,
        )
    with _store(store), _timed(seconds, "load it back and transform"):
        load(MINE).transform(cells, scale="counts")
    for each in shown:
        with _timed(seconds, f"draw {each.manifold.name}"):
            draw(each, cells, output)
    cells.write_h5ad(output / "cells.h5ad")
    document = {
        "manifolds": [
            _summary(manifold, run, "bundled with the package"),
            _summary(mine, published.evidence, _where(published)),
        ],
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
        "shown": [told(each, cells) for each in shown],
        "cells": str(output / "cells.h5ad"),
    }
    result = DemoResult(document)
    write_bytes(output / "demo.txt", _as_text(result).encode())
    return result


def _clear(output: Path, folders: tuple[Path, ...]) -> None:
    """Remove what an earlier demo left, and nothing that another hand made."""
    marker = output / ".manifoldzoo-demo"
    for folder in folders:
        if folder.exists() and not marker.exists():
            raise BadInputError(f"{str(folder)!r} exists and no demo made it.", "Choose another --output.")
        shutil.rmtree(folder, ignore_errors=True)
    write_bytes(marker, b"written by `manifoldzoo demo`, which replaces its own folders beside this file\n")


def _summary(manifold: Manifold, run: EvidenceRun, published: str) -> dict[str, Any]:
    """Gates and verdict of one manifold."""
    reached = rung_reached(run.rungs)
    failed = next((result for result in run.rungs if result.status != "pass"), None)
    verdict = f"rung {reached} of 6 reached" + (
        f"; rung {failed.rung} {failed.status}" if failed else "; 4 to 6 not run"
    )
    return {
        "reference": f"{manifold.name}@{manifold.version}",
        "digest": manifold.digest,
        "rung": reached,
        "verdict": verdict,
        "published": published,
        "gates": [
            {
                "gate": f"{result.rung} {record.gate}",
                "statistic": "" if record.statistic is None else f"{record.statistic:.4g}",
                "needed": "" if record.threshold is None else f"{record.direction} {record.threshold:g}",
                "status": record.status,
            }
            for result in run.rungs
            for record in result.records
            if record.decides
        ],
    }


def _where(published: Publication) -> str:
    """Place of a publication, as short as it can be told."""
    return f"{published.location}" + (" (below rung 3, reason recorded)" if published.evidence.allowed_below else "")


def _as_text(result: DemoResult) -> str:
    """The table as plain text."""
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    result.render(Console(file=text, width=160))
    return text.getvalue()


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Add the time of a step."""
    started = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - started


@contextmanager
def _store(folder: Path) -> Iterator[None]:
    """Publish to and load from a store of the demo's own, so that it can be run again."""
    before = os.environ.get("MANIFOLDZOO_HOME")
    os.environ["MANIFOLDZOO_HOME"] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ["MANIFOLDZOO_HOME"]
        else:
            os.environ["MANIFOLDZOO_HOME"] = before
