"""The head atlas: what is kept of a screen, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...cards._card import Control, OperatorKind
from ...manifolds._files import replacing, write_bytes
from ._figure import draw_atlas
from ._score import HeadScores


@dataclass(frozen=True)
class HeadRow:
    """One head: its name as published (``L2H5``, from 0), place and scores; see ``HeadScores``."""

    name: str
    layer: int
    head: int
    rank: int
    residual: float
    residual_sd: float
    raw: float
    raw_sd: float
    in_sample: float
    top_1: float
    top_3: float


@dataclass(frozen=True, eq=False)
class HeadAtlas:
    """Every attention head of a model, scored by itself.

    Attributes
    ----------
    model, model_digest
        Name of the model and SHA-256 of its files.
    panel_digest, ruler, ruler_version
        What it was held against.
    kind
        Operator of a head.
    control
        What was destroyed on purpose, if anything.
    n_layers, n_heads, n_anchors, n_genes, n_cells, n_splits, seed
        Size of the screen; cells are 0 for kinds that need none.
    stability
        Spearman correlation of the ranking between two halves of the splits.
    heads
        One row a head, layer by layer.
    """

    model: str
    model_digest: str
    panel_digest: str
    ruler: str
    ruler_version: str
    kind: OperatorKind
    control: Control | None
    n_layers: int
    n_heads: int
    n_anchors: int
    n_genes: int
    n_cells: int
    n_splits: int
    seed: int
    stability: float
    heads: tuple[HeadRow, ...]

    def to_table(self) -> pd.DataFrame:
        """Return a data frame with one row a head, in the order of layers."""
        return pd.DataFrame([asdict(head) for head in self.heads])

    def to_json(self) -> dict[str, Any]:
        """Return a document that JSON can hold, numbers that it cannot as null."""
        fields = {name: value for name, value in vars(self).items() if name not in ("heads", "control")}
        heads = [asdict(head) for head in self.heads]
        control = None if self.control is None else self.control.model_dump(mode="json")
        return {
            **{name: _finite(value) for name, value in fields.items()},
            "control": control,
            "heads": [{name: _finite(value) for name, value in head.items()} for head in heads],
        }

    def write(self, folder: Path | str) -> Path:
        """Write ``heads.tsv``, ``heads.json`` and the heat map ``heads.png`` into a folder, making it if need be.

        Raises
        ------
        StoreError
            If the folder cannot be written.
        """
        folder = Path(folder)
        write_bytes(folder / "heads.tsv", self.to_table().to_csv(sep="\t", index=False).encode())
        document = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        write_bytes(folder / "heads.json", document.encode())
        with replacing(folder / "heads.png") as part:
            self.draw(part)
        return folder

    def draw(self, path: Path | str) -> None:
        """Draw the heat map as a PNG."""
        scores = np.full((self.n_layers, self.n_heads), np.nan)
        for head in self.heads:
            scores[head.layer, head.head] = head.residual
        best = [(head.layer, head.head) for head in sorted(self.heads, key=lambda h: h.rank) if 1 <= head.rank <= 3]
        what = self.kind if self.control is None else f"{self.kind}, control {self.control.kind}"
        draw_atlas(scores, best, f"{self.model}: {what}", Path(path))


def head_rows(scores: HeadScores) -> tuple[HeadRow, ...]:
    """Turn the arrays of a screen into rows."""
    names = ("residual", "residual_sd", "raw", "raw_sd", "in_sample", "top_1", "top_3")
    return tuple(
        HeadRow(
            name=f"L{layer}H{head}",
            layer=layer,
            head=head,
            rank=int(scores.rank[layer, head]),
            **{name: float(getattr(scores, name)[layer, head]) for name in names},
        )
        for layer, head in np.ndindex(*scores.residual.shape)
    )


def _finite(value: Any) -> Any:
    """The value, or ``None`` for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
