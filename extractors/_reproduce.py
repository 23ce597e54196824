"""Extracting an artifact again from what its card names, and telling how far the result is the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..cards._card import Card
from ..cards._errors import BadInputError, CheckpointError, FormatError, MissingExtraError
from ..cards._evidence import Record, RungResult
from ..gates.metrics import all_pairs, angular_distances, distance_spearman
from ..gates.rungs._intact import reproduces
from ..manifolds._manifold import Manifold, in_format
from ..manifolds._panel_spec import read_panel_set

try:
    from ._extract import extract, make_job
    from ._interface import Progress
except ImportError as error:
    raise MissingExtraError(
        f"Extraction needs {error.name!r}, which is not installed.", "Run `pip install 'manifoldzoo[extract]'`."
    ) from error
from ._same_source import check_panels, match_files

Verdict = Literal["bit for bit", "within tolerance", "differs"]
_SOFTWARE = "extraction.software."
_ASKED = (
    *("title", "description", "licence", "intended_use", "limits", "citations", "ruler", "panel.min_cells", "evidence"),
    *("genes.organism", "genes.coverage_floor", "test_vectors", "extraction.extractor"),
    *(f"scored_labels.{field}" for field in ("method", "programs", "parameters", "cell_types")),
    *(f"extraction.adaptor.{field}" for field in ("kind", "n_components", "parameters")),
    *(f"extraction.operator.{field}" for field in ("kind", "combination")),
)
"""Fields of the card, or their beginnings, that are as the recipe has them."""


@dataclass(frozen=True)
class TensorDifference:
    """How far one tensor of the artifact lies from the one extracted here.

    Attributes
    ----------
    name
        Of the tensor; of a test vector ``test_vectors.<name>``.
    equal
        Whether every value is the same to the bit.
    absolute
        Largest absolute difference; ``None`` where only one has the tensor, or the shapes differ.
    relative
        The same as a part of the largest absolute value in the artifact's tensor (our choice: relative to each value
        it would be that of the values next to zero); ``None`` also where all of these are 0.
    """

    name: str
    equal: bool
    absolute: float | None
    relative: float | None


@dataclass(frozen=True)
class FieldDifference:
    """A field of the card that is not the same; ``None`` where one card lacks it."""

    field: str
    artifact: Any
    here: Any


@dataclass(frozen=True, eq=False)
class Reproduction:
    """What came of extracting an artifact again.

    Attributes
    ----------
    reference, digest
        Of the artifact.
    manifold
        What was extracted here.
    verdict
        ``bit for bit`` where the artifact digests are equal; ``within tolerance`` where they are not, and all test
        vectors come out within the card's tolerance; else ``differs``.
    tensors
        Of every tensor and test vector.
    outputs
        One record for the latent coordinates of the test vectors and one for each task: the largest deviation in
        units of the card's tolerance, which passes up to 1. Empty where genes, coordinates or tasks are others.
    angles
        Spearman correlation of the angles between the latent coordinates of the test vectors with the artifact's, and
        their largest difference in radians. A turn of the coordinates changes neither, so that these tell whether the
        geometry is the same where the coordinates are not. ``None`` where genes are others.
    card
        Fields of the card that differ, but for software.
    software
        Versions that differ, by package.
    seconds
        The extraction took.
    """

    reference: str
    digest: str
    manifold: Manifold
    verdict: Verdict
    tensors: tuple[TensorDifference, ...]
    outputs: tuple[Record, ...]
    angles: tuple[float, float] | None
    card: tuple[FieldDifference, ...]
    software: tuple[FieldDifference, ...]
    seconds: float

    @property
    def causes(self) -> list[str]:
        """What may explain that the digests differ; empty where they do not."""
        if self.verdict == "bit for bit":
            return []
        found = [f"{one.field} {one.artifact} made the artifact, here is {one.here}" for one in self.software]
        asked = [one.field for one in self.card if one.field.startswith(_ASKED)]
        if asked:
            found.append(f"the recipe here differs from that of the artifact: {', '.join(asked)}")
        if not found and not self.card and all(tensor.equal for tensor in self.tensors):
            found.append("card and tensors are the same, the files of the artifact have an older format")
        return found or ["software and recipe are the same: another processor, other threads, or a card that is wrong"]

    def to_json(self) -> dict[str, Any]:
        """Plain form that JSON can hold, without the manifold."""
        return {
            "reference": self.reference,
            "verdict": self.verdict,
            "digest": self.digest,
            "digest_here": self.manifold.digest,
            "causes": self.causes,
            "outputs": [record.model_dump(mode="json") for record in self.outputs],
            "angles": None if self.angles is None else dict(zip(("spearman", "largest"), self.angles, strict=True)),
            "tensors": [asdict(tensor) for tensor in self.tensors],
            "card": [asdict(one) for one in self.card],
            "software": [asdict(one) for one in self.software],
            "seconds": self.seconds,
        }


def reproduce(
    manifold: Manifold,
    *,
    cells: Sequence[str | Path] | None = None,
    recipe: str | Path | None = None,
    checkpoint: str | Path | None = None,
    family: str | None = None,
    panels: str | Path | None = None,
    data: str | Path | None = None,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> Reproduction:
    """Extract an artifact again from what its card names, and compare.

    Parameters
    ----------
    manifold
        The artifact.
    cells
        The files of its extraction panel, in any order; by default those of the extraction panels of ``panels``.
    recipe
        The recipe it followed; by default the bundled one of the name on the card.
    checkpoint, family
        The model, as ``extract``; a control on the card is applied to it again.
    panels, data
        Specification of the panels that travel with the artifact, and folder of their files, as ``extract``.
    work, progress
        As ``extract``.

    Returns
    -------
    The verdict and what it rests on; nothing is written.

    Raises
    ------
    PanelError
        If a file is not one that the card names, by its SHA-256, or one of these is missing; before the model is run.
    CheckpointError
        If the model is not the one that the card names.
    BadInputError
        If the recipe has another name than the card says, or the artifact was not extracted but derived from another.
    NotFoundError, FormatError, GeneError, ScaleError, PluginError
        As ``extract``.

    Notes
    -----
    Name, version, seed, control and the number of untrained models are those of the card, and so is the order of the
    files. Equal digests are to be expected on the machine, with the software and the number of threads that made the
    artifact; elsewhere sums are added up in another order.
    """
    card = manifold.card
    if card.parent is not None:
        raise BadInputError(
            f"{manifold.reference} was derived from {card.parent}, not extracted.", f"Reproduce {card.parent}."
        )
    control = card.extraction.control
    asked: dict[str, Any] = {
        "recipe": card.extraction.recipe if recipe is None else recipe,
        "checkpoint": checkpoint,
        "family": family,
        "seed": card.extraction.seed,
        "control": None if control is None else control.kind,
        "control_seed": 0 if control is None else control.seed,
        "panels": panels,
        "data": data,
        "n_untrained": len(card.untrained),
    }
    job = make_job(**asked, cells=cells)
    if job.recipe.name != card.extraction.recipe:
        raise BadInputError(
            f"The recipe is {job.recipe.name!r}, {manifold.reference} followed {card.extraction.recipe!r}.",
            "Name the folder of its recipe with --recipe ./FOLDER.",
        )
    if job.checkpoint.digest != card.source_model.digest:
        raise CheckpointError(
            f"The checkpoint has the digest {job.checkpoint.digest[:12]}, {manifold.reference} was extracted from "
            f"{card.source_model.name!r} with {card.source_model.digest[:12]}.",
            "Name the folder of that model with --checkpoint DIR.",
        )
    ordered = match_files(card.panel.files, job.cells)
    check_panels(card.panels, None if panels is None else read_panel_set(panels), None if data is None else Path(data))
    started = time.perf_counter()
    again = extract(**asked, cells=ordered, name=card.name, version=card.version, work=work, progress=progress)
    return compare(manifold, again, seconds=round(time.perf_counter() - started, 3))


def compare(manifold: Manifold, again: Manifold, *, seconds: float = 0.0) -> Reproduction:
    """Compare an artifact with one that should be the same; see ``Reproduction``.

    What the format of the artifact has no place for takes no part: compared is what would be written in that format.
    """
    again = in_format(again, manifold.format_version)
    outputs = _outputs(manifold, again)
    verdict: Verdict = "differs"
    if again.digest == manifold.digest:
        verdict = "bit for bit"
    elif outputs is not None and outputs.status == "pass":
        verdict = "within tolerance"
    fields = _card_differences(manifold.card, again.card)
    return Reproduction(
        reference=f"{manifold.name}@{manifold.version}",
        digest=manifold.digest,
        manifold=again,
        verdict=verdict,
        tensors=_tensor_differences(manifold, again),
        outputs=() if outputs is None else tuple(outputs.records),
        angles=_angles(manifold, again),
        card=tuple(one for one in fields if not one.field.startswith(_SOFTWARE)),
        software=tuple(
            FieldDifference(one.field.removeprefix(_SOFTWARE), one.artifact, one.here)
            for one in fields
            if one.field.startswith(_SOFTWARE)
        ),
        seconds=seconds,
    )


def _outputs(manifold: Manifold, again: Manifold) -> RungResult | None:
    """The artifact's test vectors by the new manifold; none where genes, coordinates or tasks are others."""
    if again.genes.symbols != manifold.genes.symbols:
        return None
    told = {readout.task: readout.classes for readout in manifold.card.extraction.readouts}
    if {readout.task: readout.classes for readout in again.card.extraction.readouts} != told:
        return None
    tolerance = again.card.model_copy(update={"test_vectors": manifold.card.test_vectors})
    try:
        return reproduces(replace(again, card=tolerance, vectors=manifold.vectors))
    except FormatError:
        return None


def _angles(manifold: Manifold, again: Manifold) -> tuple[float, float] | None:
    """How far the angles between the artifact's test vectors are the same; none where genes are others."""
    if again.genes.symbols != manifold.genes.symbols:
        return None
    given = manifold.vectors["input"]
    mine, theirs = (angular_distances(one.project(given).astype(np.float64)) for one in (manifold, again))
    spearman = distance_spearman(theirs, mine, all_pairs(len(given)))
    return float(np.squeeze(spearman)), float(np.abs(theirs - mine).max())


def _tensor_differences(manifold: Manifold, again: Manifold) -> tuple[TensorDifference, ...]:
    """Differences of all tensors and test vectors that either has."""
    mine, theirs = (
        {**one.tensors, **{f"test_vectors.{name}": array for name, array in one.vectors.items()}}
        for one in (manifold, again)
    )
    return tuple(_difference(name, mine.get(name), theirs.get(name)) for name in sorted(mine.keys() | theirs.keys()))


def _difference(name: str, mine: NDArray[Any] | None, theirs: NDArray[Any] | None) -> TensorDifference:
    """Difference of two tensors, in float64."""
    if mine is None or theirs is None or mine.shape != theirs.shape:
        return TensorDifference(name, equal=False, absolute=None, relative=None)
    wide = mine.astype(np.float64)
    off = float(np.abs(theirs.astype(np.float64) - wide).max())
    size = float(np.abs(wide).max())
    same = mine.dtype == theirs.dtype and mine.tobytes() == theirs.tobytes()
    return TensorDifference(name, equal=same, absolute=off, relative=off / size if size else None)


def _card_differences(mine: Card, theirs: Card) -> list[FieldDifference]:
    """Fields of two cards that differ, in the order of the card."""
    found: list[FieldDifference] = []

    def walk(path: str, one: Any, other: Any) -> None:
        if isinstance(one, dict) and isinstance(other, dict):
            for key in dict.fromkeys([*one, *other]):
                walk(f"{path}.{key}" if path else str(key), one.get(key), other.get(key))
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            for index, (left, right) in enumerate(zip(one, other, strict=True)):
                walk(f"{path}[{index}]", left, right)
        elif one != other:
            found.append(FieldDifference(path, one, other))

    walk("", mine.model_dump(mode="json"), theirs.model_dump(mode="json"))
    return found
