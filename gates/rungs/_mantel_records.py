"""Mantel tests of the head as shipped against the ruler: shown beside the refitted test, never deciding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...cards._evidence import Record, judge
from ...manifolds._heads import HeadSettings
from .._gate_data import GateData
from ..nulls._mantel import MantelResult, mantel, partial_mantel
from ..nulls._permutation import null_summary
from ..refits._refits import distances_under, reads_ruler

WARNING = (
    "the head was fitted to these labels and is not refitted under permutation, so that it reaches a small p even for "
    "noise; shown for comparison only"
)
WITHOUT_RULER = (
    "the head does not read the ruler, so that nothing was fitted to these labels; its places of the anchors that it "
    "was laid out from are held against them, where the deciding test takes places of anchors held out"
)
_KIND = "latent {} permuted within study x donor x tissue, head not refitted"


def mantel_records(
    data: GateData,
    latent: NDArray[np.floating],
    *,
    seed: int,
    settings: HeadSettings | None = None,
    threshold: float = 0.001,
    n_permutations: int = 9999,
) -> list[Record]:
    """Hold the distances of the shipped head against the ruler, with and without what study, donor and tissue explain.

    Parameters
    ----------
    data
        The extraction panel.
    latent
        Coordinates of its anchors under the shipped head, shape (n, d).
    seed
        Each test gets its own child of this seed.
    settings
        As of ``geometry_records``.
    threshold
        On p, that of the refitted test.
    n_permutations
        Within study x donor x tissue.

    Returns
    -------
    Two records, ``mantel`` and ``partial_mantel``; neither decides.

    Raises
    ------
    BadInputError
        If a latent has no direction.

    Notes
    -----
    Spearman correlations, as everywhere on the ladder (our choice). The partial test holds fixed whether two anchors
    come from different studies, donors and tissues, as far as that varies; such distances stay as they are under the
    permutations, so that it makes no difference which matrix is permuted, see ``partial_mantel``.
    """
    simple_rng, partial_rng = np.random.default_rng(seed).spawn(2)
    apart = distances_under(np.asarray(latent, dtype=np.float64), settings)
    fitted = settings is None or reads_ruler(settings)
    told = (_KIND.format("angles" if fitted else "distances"), WARNING if fitted else WITHOUT_RULER)
    ruler, blocks, held = np.asarray(data.distances), data.blocks, _apart(data)

    def simple() -> MantelResult:
        return mantel(apart, ruler, blocks=blocks, method="spearman", n_permutations=n_permutations, rng=simple_rng)

    def partial() -> MantelResult:
        z = list(held.values())
        if not z:
            raise BadInputError("Study, donor and tissue are alike, or all different, for every pair of anchors.")
        return partial_mantel(
            apart, ruler, z, blocks=blocks, method="spearman", n_permutations=n_permutations, rng=partial_rng
        )

    return [
        _record("mantel", simple, threshold, seed, len(apart), {}, told),
        _record("partial_mantel", partial, threshold, seed, len(apart), {"held_fixed": ", ".join(held)}, told),
    ]


def _apart(data: GateData) -> dict[str, NDArray[np.float64]]:
    """Whether two anchors differ in study, donor and tissue, each where that varies, shape (n, n)."""
    labels: dict[str, Sequence[str]] = {"study": data.study, "donor": data.donor_ids, "tissue": data.tissue}
    found = {}
    for name, column in labels.items():
        label = np.asarray(column)
        differ = (label[:, None] != label[None, :]).astype(np.float64)
        if np.ptp(differ[np.triu_indices(len(label), 1)]) > 0:
            found[name] = differ
    return found


def _record(
    gate: str,
    test: Callable[[], MantelResult],
    threshold: float,
    seed: int,
    n: int,
    details: dict[str, float | int | str | bool | None],
    told: tuple[str, str],
) -> Record:
    """Make the record of a test that decides nothing; told is what its null exchanges, and the warning."""
    try:
        result = test()
    except BadInputError as error:
        return _open(gate, str(error), seed, n, details)
    kind, warning = told
    summary = null_summary(kind, result.null, result.log10_arrangements)
    shown = {
        "observed": result.statistic,
        "log10_arrangements": result.log10_arrangements,
        **details,
        "warning": warning,
    }
    reason = result.undecidable(threshold)
    if reason:
        return _open(gate, reason, seed, n, shown).model_copy(update={"null": summary})
    return judge(gate, result.p_value, "<=", threshold, n=n, seed=seed, null=summary, decides=False, details=shown)


def _open(gate: str, reason: str, seed: int, n: int, details: dict[str, float | int | str | bool | None]) -> Record:
    """Make the record of a test that cannot decide, and would not."""
    return Record(gate=gate, status="cannot decide", reason=reason, n=n, seed=seed, decides=False, details=details)
