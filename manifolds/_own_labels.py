"""From the labels of somebody's own cells to stages: a table of theirs, and what the card of a manifold knows."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..cards._card import AnchorEntry, Card
from ..cards._errors import FormatError, PanelError
from ._labels import LEFT_OUT
from ._ruler_interface import Ruler

Source = Literal["own table", "cell type of the card", "stage id", "stage label", "ontology id", "gene scores"]
"""What gave a label its stage, in the order in which they are asked; ``gene scores`` by themselves."""


@dataclass(frozen=True)
class KnownLabel:
    """A label that has a stage, or that its owner leaves out.

    Attributes
    ----------
    stage
        Stage of the ruler, ``"-"`` for a label that is left out on purpose.
    by
        What said so.
    """

    stage: str
    by: Source


@dataclass(frozen=True)
class CardLabels:
    """What a card knows of labels.

    Attributes
    ----------
    cell_types
        Stages of each cell type of its panels; more than one where their studies disagree.
    stages
        Stages by their label, in lower case.
    ids
        Ids of the stages.
    ontology
        Stages by Cell Ontology id.
    """

    cell_types: Mapping[str, frozenset[str]]
    stages: Mapping[str, frozenset[str]]
    ids: frozenset[str]
    ontology: Mapping[str, frozenset[str]]

    def look_up(self, label: str) -> tuple[frozenset[str], Source] | None:
        """Stages that a label may mean, and by what; ``None`` where nothing knows it."""
        if label in self.cell_types:
            return self.cell_types[label], "cell type of the card"
        if label in self.ids:
            return frozenset([label]), "stage id"
        if label.lower() in self.stages:
            return self.stages[label.lower()], "stage label"
        found = self.ontology.get(_ontology_id(label))
        return None if found is None else (found, "ontology id")


def label_table_of(card: Card) -> CardLabels:
    """Collect what a card says of labels.

    Parameters
    ----------
    card
        Its extraction panel and the panels beside it give cell types, its ruler gives stages. Negative panels are left
        out, because their stages are drawn by lot.
    """
    manifests = [card.panel, *(panel.manifest for panel in card.panels if panel.role != "negative")]
    anchors: list[AnchorEntry] = [anchor for manifest in manifests for anchor in manifest.anchors]
    stages = card.ruler.stages
    return CardLabels(
        cell_types=_gathered((anchor.cell_type.strip(), anchor.stage) for anchor in anchors),
        stages=_gathered((stage.label.strip().lower(), stage.id) for stage in stages),
        ids=frozenset(stage.id for stage in stages),
        ontology=_gathered((stage.ontology_id, stage.id) for stage in stages if stage.ontology_id),
    )


def resolve_labels(
    labels: Mapping[str, Iterable[str]], known: CardLabels, own: Mapping[str, str], ruler: Ruler
) -> dict[str, KnownLabel | None]:
    """Give each label its stage.

    Parameters
    ----------
    labels
        Labels, each with the Cell Ontology ids that its cells carry, if any.
    known
        What the card says.
    own
        Stage by label as the owner of the cells says, ``"-"`` to leave a label out.
    ruler
        Whose stages they are.

    Returns
    -------
    For each label what it means, ``None`` where nothing knows it.

    Raises
    ------
    PanelError
        If a label may mean several stages, naming it and them.
    BadInputError
        If the owner's table names a stage that the ruler lacks, with the nearest names.

    Notes
    -----
    Asked in this order, and the first that knows the label is believed: the owner's table; the cell types of the
    card, spelt alike; ids of stages; labels of stages, in any case; Cell Ontology ids, the label itself or what its
    cells carry. Nothing is guessed from likeness. Our choice.
    """
    ruler.branch([stage for stage in own.values() if stage != LEFT_OUT])
    found: dict[str, KnownLabel | None] = {}
    ambiguous: dict[str, tuple[frozenset[str], Source]] = {}
    for label, carried in labels.items():
        said = own.get(label, own.get(label.strip()))
        if said is not None:
            found[label] = KnownLabel(said, "own table")
            continue
        meant = known.look_up(label.strip()) or _by_carried(carried, known)
        if meant is not None and len(meant[0]) > 1:
            ambiguous[label] = meant
        found[label] = None if meant is None else KnownLabel(min(meant[0]), meant[1])
    if ambiguous:
        listed = "; ".join(
            f"{label!r} by {by}: {', '.join(sorted(stages))}" for label, (stages, by) in ambiguous.items()
        )
        first, (stages, _) = next(iter(ambiguous.items()))
        raise PanelError(
            f"{len(ambiguous)} labels may mean several stages, {listed}.",
            f"Say which in a table of your own (--labels), such as the line '{first}<TAB>{min(stages)}'.",
        )
    return found


def read_own_labels(path: Path) -> dict[str, str]:
    """Read a table of labels and stages.

    Parameters
    ----------
    path
        Tab-separated. With a header that has ``cell_type`` and ``stage``, other columns are ignored, so that the
        label table of a recipe serves; without one, the first column is the label and the second the stage.

    Returns
    -------
    Stage by label; ``"-"`` leaves a label out.

    Raises
    ------
    FormatError
        If the file is missing or not UTF-8, a line has no stage, or a label has two.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise FormatError(f"The label table {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: {error}.") from error
    named = bool(rows) and {"cell_type", "stage"} <= set(rows[0])
    label_at, stage_at = (rows[0].index("cell_type"), rows[0].index("stage")) if named else (0, 1)
    table: dict[str, str] = {}
    for number, row in enumerate(rows[1:] if named else rows, start=2 if named else 1):
        if not any(field.strip() for field in row):
            continue
        label, stage = (row[at].strip() if at < len(row) else "" for at in (label_at, stage_at))
        if not label or not stage:
            raise FormatError(
                f"{path} line {number} needs a label, a tab and a stage, got {row}.", "Write '-' to leave a label out."
            )
        if table.setdefault(label, stage) != stage:
            raise FormatError(f"{path} line {number} gives {label!r} the stage {stage!r}, before {table[label]!r}.")
    if not table:
        raise FormatError(f"{path} holds no label.", "Write lines such as 'B cell<TAB>naive_b'.")
    return table


def _by_carried(carried: Iterable[str], known: CardLabels) -> tuple[frozenset[str], Source] | None:
    """Stages of the ontology ids that the cells of a label carry."""
    found = [known.ontology.get(_ontology_id(identifier)) for identifier in carried]
    stages: frozenset[str] = frozenset().union(*(each for each in found if each is not None))
    # cells of one label under several ids, of which the ruler knows some, are no single stage
    if not stages or any(each is None for each in found):
        return None
    return stages, "ontology id"


def _ontology_id(label: str) -> str:
    """A Cell Ontology id as the ruler spells it: ``CL_0000037`` is one too."""
    return re.sub(r"^CL[_:](?=\d{7}$)", "CL:", label.strip())


def _gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    """All values of each key."""
    gathered: dict[str, set[str]] = {}
    for key, value in pairs:
        gathered.setdefault(key, set()).add(value)
    return {key: frozenset(values) for key, values in gathered.items()}
