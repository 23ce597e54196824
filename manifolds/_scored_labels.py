"""Labels by gene scores: each cell has the stage whose published genes lead in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..cards._errors import BadInputError, PanelError
from ..cards._names import canonical_json, sha256_bytes
from ..cards._programs import GeneProgram, ScoredLabels, ScoredStudy
from ._count_file import PanelReading, list_cells, opened_counts
from ._expression_blocks import expression_blocks
from ._gene_scores import ABOVE, MARGIN, N_BINS, N_CONTROLS, NOT_EXPRESSED, UNCLEAR, ScoreWeights, leading_program
from ._labels import LEFT_OUT
from ._stage_labels import LabelRow

FEWEST_GENES = 5
"""Genes of a program that a study must measure; our choice."""
NOT_ASKED = -3
"""In place of a program: a cell type that does not take part."""
METHOD = (
    "mean log1p of the genes of each program less that of control genes of like expression (Tirosh et al. 2016, as "
    "scanpy.tl.score_genes), standardised per program within the study; the highest gives the stage, where it lies "
    "above its control genes and leads"
)


@dataclass(frozen=True, eq=False)
class CellScores:
    """Scores of the cells of files.

    Attributes
    ----------
    cells
        ``dataset``, ``cell_type``, ``file`` and ``row`` of each.
    scores
        Of each program above its controls, ``(n_cells, n_programs)``; NaN where the cell type does not take part.
    errors
        Standard errors of the scores.
    leading
        Index of the program that leads, or one of ``NOT_EXPRESSED``, ``UNCLEAR`` and ``NOT_ASKED``, ``(n_cells,)``.
    measured
        Genes of each program that each study measures.
    """

    cells: pd.DataFrame
    scores: NDArray[np.float64]
    errors: NDArray[np.float64]
    leading: NDArray[np.intp]
    measured: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class GeneScoreLabels:
    """Labels of cells by the gene program that leads in them.

    Attributes
    ----------
    programs
        One of each stage that is scored, named like the stage.
    margin, above
        Standard deviations by which the best score must lead the second, and standard errors by which it must lie above
        the control genes; see ``leading_program``.
    exclude_genes
        Whether the genes of the programs are kept from the gene axis.
    n_controls, n_bins, seed
        Of the control genes, see ``control_genes``.
    cell_types
        Cell types that take part, by data set; of data sets that are not named all do.
    path
        File the programs were read from, for messages.

    Notes
    -----
    Of a file two passes are made, in pieces: one for the mean of every gene, one for the genes of the programs and
    their controls. Genes are compared by name; where a study has several files, those that all of them measure count.
    """

    programs: tuple[GeneProgram, ...]
    margin: float = MARGIN
    above: float = ABOVE
    exclude_genes: bool = True
    n_controls: int = N_CONTROLS
    n_bins: int = N_BINS
    seed: int = 0
    cell_types: Mapping[str, Sequence[str]] = field(default_factory=dict)
    path: str = "programs.tsv"
    # files are read once, not for every question that an extraction asks
    _known: dict[str, CellScores] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, entry: ScoredLabels, path: str = "the card") -> GeneScoreLabels:
        """Read what a card says of them."""
        return cls(tuple(entry.programs), cell_types=entry.cell_types, path=path, **entry.parameters)  # type: ignore[arg-type]

    @property
    def entry(self) -> ScoredLabels:
        """What a card says of them, before any cell is counted."""
        names = ("margin", "above", "exclude_genes", "n_controls", "n_bins", "seed")
        return ScoredLabels(
            method=METHOD,
            programs=list(self.programs),
            n_excluded_genes=0,
            parameters={name: getattr(self, name) for name in names},
            cell_types={study: list(names) for study, names in self.cell_types.items()},
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of programs and parameters."""
        return sha256_bytes(canonical_json(self.entry.model_dump(mode="json")))

    @property
    def excluded_genes(self) -> frozenset[str]:
        """Genes of the programs, where they are to be kept from the gene axis."""
        return frozenset(gene for program in self.programs for gene in program.genes if self.exclude_genes)

    @property
    def rows(self) -> list[LabelRow]:
        """None: cells of one type have several stages."""
        return []

    def stages_of(self, cells: pd.DataFrame, paths: Sequence[Path], reading: PanelReading) -> list[str]:
        """Return the stage of each cell, ``"-"`` where no program leads.

        Raises
        ------
        PanelError
            If a study measures too few genes of a program, or lacks a cell type that is named.
        ScaleError
            If a file does not hold raw counts.
        """
        leading = self.score(cells, paths, reading).leading
        return [self.programs[index].name if index >= 0 else LEFT_OUT for index in leading]

    def counted(self, paths: Sequence[Path], reading: PanelReading) -> ScoredLabels:
        """Say what became of the cells of files, study by study."""
        scored = self.score(list_cells(paths, reading), paths, reading)
        studies = []
        for study in sorted(scored.measured):
            leading = scored.leading[(scored.cells["dataset"] == study).to_numpy()]
            studies.append(
                ScoredStudy(
                    study=study,
                    n_cells=int((leading != NOT_ASKED).sum()),
                    n_not_expressed=int((leading == NOT_EXPRESSED).sum()),
                    n_unclear=int((leading == UNCLEAR).sum()),
                    n_leading={one.name: int((leading == place).sum()) for place, one in enumerate(self.programs)},
                    n_measured_genes={
                        one.name: n for one, n in zip(self.programs, scored.measured[study], strict=True)
                    },
                )
            )
        return self.entry.model_copy(update={"studies": studies})

    def score(self, cells: pd.DataFrame, paths: Sequence[Path], reading: PanelReading) -> CellScores:
        """Score cells; parameters and errors are those of ``stages_of``."""
        stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        key = repr((stamps, reading, len(cells)))
        if key not in self._known:
            self._known[key] = self._score(cells, paths, reading)
        return self._known[key]

    def _score(self, cells: pd.DataFrame, paths: Sequence[Path], reading: PanelReading) -> CellScores:
        """Score cells, every study by itself."""
        cells = cells[["dataset", "cell_type", "file", "row"]].reset_index(drop=True)
        asked = self._asked(cells)
        sums = [
            _sums(path, cells[asked & (cells["file"] == number).to_numpy()], reading)
            for number, path in enumerate(paths)
        ]
        weights, measured = {}, {}
        for study, rows in cells[asked].groupby("dataset", sort=True):
            there = [sums[number][study] for number in sorted(rows["file"].unique())]
            pool = there[0].index[np.logical_and.reduce([there[0].index.isin(one.index) for one in there])]
            mean = np.sum([one[pool].to_numpy() for one in there], axis=0) / len(rows)
            places = [np.sort(pool.get_indexer(list(one.genes))) for one in self.programs]
            places = [place[place >= 0] for place in places]
            self._check(str(study), [len(place) for place in places])
            weights[str(study)] = self._weights(str(study), pool, mean, places)
            measured[str(study)] = tuple(len(place) for place in places)
        scores, errors = np.full((2, len(cells), len(self.programs)), np.nan)
        for number, path in enumerate(paths):
            here = np.flatnonzero(asked & (cells["file"] == number).to_numpy())
            if len(here):
                scores[here], errors[here] = _scores(path, cells.iloc[here], weights, reading)
        leading = np.full(len(cells), NOT_ASKED)
        for _, rows in cells[asked].groupby("dataset", sort=True):
            place = rows.index.to_numpy()
            leading[place] = leading_program(scores[place], errors[place], margin=self.margin, above=self.above)
        return CellScores(cells, scores, errors, leading, measured)

    def _asked(self, cells: pd.DataFrame) -> NDArray[np.bool_]:
        """Which cells are of a type that takes part."""
        asked = np.ones(len(cells), dtype=bool)
        for study, names in self.cell_types.items():
            here = cells["dataset"] == study
            there = set(cells["cell_type"][here])
            unknown = sorted(set(names) - there)
            if there and unknown:
                raise PanelError(
                    f"No cell of the data set {study!r} is of the type {unknown[0]!r}, which its labels name.",
                    f"Its types are {', '.join(sorted(there))}.",
                )
            asked &= (~here | cells["cell_type"].isin(names)).to_numpy()
        return asked

    def _check(self, study: str, measured: Sequence[int]) -> None:
        """Refuse a study that measures too few genes of a program."""
        for program, n in zip(self.programs, measured, strict=True):
            if n < FEWEST_GENES:
                raise PanelError(
                    f"The study {study!r} measures {n} of the {len(program.genes)} genes of the program "
                    f"{program.name!r} in {self.path}, expected {FEWEST_GENES} or more.",
                    "Are its genes named like those of the programs? A column of var with their names can be chosen.",
                )

    def _weights(
        self, study: str, pool: pd.Index, mean: NDArray[np.float64], places: Sequence[NDArray[np.intp]]
    ) -> _StudyWeights:
        """Weights of the scores of a study, only of genes that have any."""
        options = {"n_controls": self.n_controls, "n_bins": self.n_bins, "seed": self.seed}
        try:
            weights = ScoreWeights.of(mean, places, **options)
        except BadInputError as error:
            raise PanelError(f"The study {study!r} cannot be scored: {error.message}", error.hint) from error
        used = (weights.program + weights.control).any(axis=1)
        return _StudyWeights(pool[used], ScoreWeights(weights.program[used], weights.control[used]))


@dataclass(frozen=True, eq=False)
class _StudyWeights:
    """Weights of the scores of a study, and the genes that have any."""

    genes: pd.Index
    weights: ScoreWeights


def _sums(path: Path, cells: pd.DataFrame, reading: PanelReading) -> dict[str, pd.Series]:
    """Sum of every gene of a file over the cells of each study, ``log1p`` of counts per 10,000."""
    if cells.empty:
        return {}
    studies, code = np.unique(cells["dataset"].to_numpy(dtype=str), return_inverse=True)
    with opened_counts(path, reading) as counts:
        of_row = np.full(counts.matrix.shape[0], -1)
        of_row[cells["row"].to_numpy()] = code
        total = np.zeros((len(studies), len(counts.genes)))
        for rows, block, _ in expression_blocks(counts, np.flatnonzero(of_row >= 0), list(counts.genes)):
            for study in np.unique(of_row[rows]):
                total[study] += np.asarray(
                    block[np.flatnonzero(of_row[rows] == study)].sum(axis=0, dtype=np.float64)
                ).ravel()
        return {study: pd.Series(total[place], index=counts.genes) for place, study in enumerate(studies)}


def _scores(
    path: Path, cells: pd.DataFrame, weights: Mapping[str, _StudyWeights], reading: PanelReading
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the cells of a file and their standard errors, in their order."""
    studies, code = np.unique(cells["dataset"].to_numpy(dtype=str), return_inverse=True)
    genes = sorted(set().union(*(weights[study].genes for study in studies)))
    place = [np.searchsorted(genes, weights[study].genes) for study in studies]
    n_programs = weights[studies[0]].weights.program.shape[1]
    with opened_counts(path, reading) as counts:
        of_row = np.full(counts.matrix.shape[0], -1)
        of_row[cells["row"].to_numpy()] = code
        moments = np.zeros((3, len(of_row), n_programs))
        for rows, block, _ in expression_blocks(counts, np.flatnonzero(of_row >= 0), genes):
            for study in np.unique(of_row[rows]):
                here = np.flatnonzero(of_row[rows] == study)
                moments[:, rows[here]] += weights[studies[study]].weights.moments(block[here][:, place[study]])
    scores, errors = np.zeros((2, len(of_row), n_programs))
    for study, name in enumerate(studies):
        here = np.flatnonzero(of_row == study)
        scores[here], errors[here] = weights[name].weights.scores(moments[:, here])
    rows = cells["row"].to_numpy()
    return scores[rows], errors[rows]
