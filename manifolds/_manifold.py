"""A manifold: a frozen operator, a learned head, small readouts, and the card that says what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..cards._card import Card, Extraction, Readout
from ..cards._errors import BadInputError, FormatError
from ._cell_ids import KINDS, CellIds
from ._files import Tensors, decode_tensors, encode_tensors, write_bytes
from ._format import (
    CARD,
    CRITICAL,
    FORMAT_VERSION,
    GENES,
    MANIFEST,
    TENSORS,
    VECTORS,
    WITH_CELL_IDS,
    Manifest,
    card_as_of,
    decode_card,
    read_verified,
    written_as,
)
from ._genes import GeneTable
from ._readouts import read_out, readout_shapes, vector_of
from ._ruler import Edge, Stage, StageRuler

if TYPE_CHECKING:
    from anndata import AnnData

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Manifold:
    """A loaded manifold.

    Attributes
    ----------
    card
        What it is, from what and how it was made.
    genes
        The gene axis, ``n_genes`` rows.
    tensors
        Every stored tensor by name: ``projection`` ``(n_genes, d)`` and ``offset`` ``(d,)`` are stages 1 and 2
        folded; ``operator`` ``(k, n_genes, n_features)``, see also the property; ``adaptor.*``;
        ``readout.<task>.weights`` ``(n_classes, d)`` and ``.bias`` ``(n_classes,)``, see ``readout_shapes``;
        ``panel.anchors`` ``(n_anchors, n_genes)``, those of other panels ``panel.<name>.anchors``; ``comparator.*``.
        All float32 or float64. Of each panel there may be ``cells`` and ``barcodes``, uint64, see ``CellIds``.
    vectors
        Test vectors: ``input`` ``(n, n_genes)``, ``latent`` ``(n, d)``, ``proba.<task>`` ``(n, n_classes)``, and
        ``value.<task>`` ``(n,)`` for tasks without classes.
    digest
        SHA-256 of the manifest: the artifact's identity.
    reference
        How it was found; the name and version if it has no other.
    format_version
        Of the files; an artifact of format 2 is saved as one, with the same digest.
    """

    card: Card
    genes: GeneTable
    tensors: Tensors
    vectors: Tensors
    digest: str
    reference: str = ""
    path: Path | None = field(default=None, repr=False)
    links_into: Path | None = field(default=None, repr=False)
    format_version: int = field(default=FORMAT_VERSION, repr=False)

    def __post_init__(self) -> None:
        _check_shapes(self)
        # made here so that a broken stage graph is met on loading, not in the middle of a gate
        _ = self.ruler

    def __repr__(self) -> str:
        return (
            f"<Manifold {self.card.name}@{self.card.version}: {len(self.genes)} genes -> {self.n_components} "
            f"coordinates, tasks {', '.join(self.tasks)}, digest {self.digest[:12]}>"
        )

    @property
    def name(self) -> str:
        """Name of the manifold."""
        return self.card.name

    @property
    def version(self) -> str:
        """Semantic version."""
        return self.card.version

    @property
    def n_components(self) -> int:
        """Number of latent coordinates ``d``."""
        return int(self.tensors["projection"].shape[1])

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the readouts."""
        return tuple(readout.task for readout in self.card.extraction.readouts)

    @cached_property
    def ruler(self) -> StageRuler:
        """The stage graph of the card."""
        return StageRuler(
            name=self.card.ruler.name,
            version=self.card.ruler.version,
            stages=tuple(Stage(s.id, s.label, s.ontology_id, s.branch) for s in self.card.ruler.stages),
            edges=tuple(Edge(e.child, e.parent, e.source) for e in self.card.ruler.edges),
            root=self.card.ruler.root,
        )

    def classes(self, task: str) -> list[str]:
        """Class names of a readout; empty for one that gives a number.

        Raises
        ------
        BadInputError
            If the manifold has no such task.
        """
        return self._readout(task).classes

    @property
    def operator(self) -> NDArray[np.floating]:
        """Stage 1, ``(k, n_genes, n_features)``; the identity, which is not stored, where features are expression."""
        stored = self.tensors.get("operator")
        return np.eye(len(self.genes), dtype=np.float32)[None] if stored is None else stored

    @property
    def anchor_stages(self) -> list[str]:
        """Stage of each anchor of the panel, ``(n_anchors,)``."""
        return [anchor.stage for anchor in self.card.panel.anchors]

    def project(self, values: Any) -> Array:
        """Place cells on the manifold: ``z = x P + o``.

        Parameters
        ----------
        values
            ``log1p`` of counts per 10,000, genes in the manifold's order, dense or sparse ``(n_cells, n_genes)``.

        Returns
        -------
        Latent coordinates ``(n_cells, d)``, float32.
        """
        if values.shape[1] != len(self.genes):
            raise BadInputError(f"Expected {len(self.genes)} genes in the manifold's order, got {values.shape[1]}.")
        return np.asarray(values @ self.tensors["projection"] + self.tensors["offset"], dtype=np.float32)

    def read_out(self, latent: Array, task: str) -> Array:
        """Read a task out of coordinates.

        Parameters
        ----------
        latent
            ``(n_cells, d)``.

        Returns
        -------
        Probabilities ``(n_cells, n_classes)``, float32, rows sum to 1, columns as ``classes(task)``; or, for a task
        without classes, values ``(n_cells,)``.

        Raises
        ------
        BadInputError
            If the manifold has no such task.
        """
        told = self._readout(task)
        if told.of is not None:
            values = self.tensors[f"readout.{task}.values"].astype(np.float32, copy=False)
            return np.asarray(self.read_out(latent, told.of) @ values)
        return read_out(latent, told, self.tensors)

    def _readout(self, task: str) -> Readout:
        """Entry of a task in the card."""
        for readout in self.card.extraction.readouts:
            if readout.task == task:
                return readout
        raise BadInputError(f"{self.name!r} has no task {task!r}.", f"Its tasks are {', '.join(self.tasks)}.")

    def transform(
        self,
        adata: AnnData,
        *,
        key_added: str | None = None,
        layer: str | None = None,
        gene_column: str | None = None,
        scale: Literal["auto", "log1p", "counts"] = "auto",
        copy: bool = False,
    ) -> AnnData | None:
        """Place cells on the manifold and read the tasks out.

        Works on dense, CSR and CSC matrices, on backed files in pieces, and on Dask arrays.

        Parameters
        ----------
        adata
            Cells by genes, human symbols or Ensembl ids.
        key_added
            Stem of the keys written; the manifold's name by default.
        layer
            Layer to read instead of ``X``.
        gene_column
            Column of ``var`` with symbols or Ensembl ids; ``var_names`` by default.
        scale
            Scale of the values. ``"auto"`` takes whole numbers for counts, with a warning.
        copy
            Return a changed copy instead of changing ``adata``.

        Returns
        -------
        ``None``, or the copy. Sets the following fields:

        ``adata.obsm['X_<name>']`` : float32 ``(n_obs, d)``
            Latent coordinates.
        ``adata.obs['<name>_<task>']`` : categorical, or float32 for tasks without classes
            Most probable class of each task; missing where a task is about some stages only and the stage readout
            gives them less than half of its probability.
        ``adata.obsm['<name>_<task>_proba']`` : float32 ``(n_obs, n_classes)``
            Class probabilities.
        ``adata.obs['<name>_familiarity']``, ``adata.obs['<name>_familiarity_scaled']`` : float32
            How much a cell looks like those of the panel, -1 to 1, as it was measured and with genes standardised,
            which depends less on the platform; only of manifolds with thresholds for it.
        ``adata.obs['<name>_unfamiliar']`` : bool
            Whether the first score lies below its threshold: an unfamiliar cell or platform.
        ``adata.uns['<name>']`` : dict
            Reference, digest, coverage, scale, class names and thresholds.

        Raises
        ------
        GeneError, LowCoverageError
            If genes cannot be matched, or too few are there.
        ScaleError
            If values are negative, not finite, or on another scale than announced.
        BadInputError
            If there are no cells, or no such layer or column.

        Warns
        -----
        CoverageWarning, ScaleWarning
            See ``check_coverage`` and ``decide_scale``.
        """
        from ._transform import transform

        return transform(self, adata, key_added=key_added, layer=layer, gene_column=gene_column, scale=scale, copy=copy)

    def save(self, folder: str | Path) -> Path:
        """Write the artifact to a new or empty folder; the manifest comes last.

        Raises
        ------
        BadInputError
            If the folder holds something already.
        StoreError
            If it cannot be written.
        """
        target = Path(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise BadInputError(f"{str(target)!r} is not an empty folder.", "Choose a new folder.")
        contents = encode(self.card, self.genes, self.tensors, self.vectors, self.format_version)
        for name in CRITICAL:
            write_bytes(target / name, contents[name])
        write_bytes(target / MANIFEST, Manifest.of(contents, self.format_version).to_bytes())
        return target

    @classmethod
    def build(cls, card: Card, genes: GeneTable, tensors: Tensors, vectors: Tensors) -> Manifold:
        """Assemble a manifold in memory with the digest that saving it will have."""
        contents = encode(card, genes, tensors, vectors)
        return cls(card, genes, tensors, vectors, Manifest.of(contents).digest, f"{card.name}@{card.version}")

    @classmethod
    def read(cls, folder: str | Path, *, reference: str = "", links_into: Path | None = None) -> Manifold:
        """Read an artifact folder, verifying every digest first.

        Parameters
        ----------
        folder
            The artifact.
        reference
            How it was found, for messages and provenance.
        links_into
            Folder that symbolic links may lead into (the Hub cache); none by default.

        Raises
        ------
        IntegrityError, FormatError, UnsafeFileError, FutureFormatError, NotFoundError
            As ``read_verified``.
        """
        manifest, contents = read_verified(Path(folder), links_into=links_into)
        card = decode_card(contents[CARD], manifest)
        vectors = decode_tensors(contents[VECTORS], where=VECTORS)
        # without a single vector "reproduces" would hold for anything
        if not all(array.size for array in vectors.values()):
            raise FormatError(f"{VECTORS} holds no test vectors.")
        return cls(
            card=card,
            genes=GeneTable.from_tsv(contents[GENES]),
            tensors=decode_tensors(contents[TENSORS], where=TENSORS),
            vectors=vectors,
            digest=manifest.digest,
            reference=reference or f"{card.name}@{card.version}",
            path=Path(folder),
            links_into=links_into,
            format_version=written_as(manifest.format_version),
        )


def encode(
    card: Card, genes: GeneTable, tensors: Tensors, vectors: Tensors, format_version: int = FORMAT_VERSION
) -> dict[str, bytes]:
    """Encode the load-critical files; equal input gives equal bytes."""
    told = card_as_of(card.model_dump(mode="json"), format_version)
    document = json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return {
        CARD: document.encode() + b"\n",
        GENES: genes.to_tsv(),
        TENSORS: encode_tensors(tensors),
        VECTORS: encode_tensors(vectors),
    }


def in_format(manifold: Manifold, version: int) -> Manifold:
    """Return a manifold as an artifact of another format would hold it, with the digest that it has there.

    Parameters
    ----------
    manifold
        Of the current format; the plan of its evidence and its cell ids are left out for format 2.
    version
        2, 3 or the current one.

    Raises
    ------
    FormatError
        If it has what that format knows nothing of.
    """
    if version == manifold.format_version:
        return manifold
    card, tensors = manifold.card, manifold.tensors
    if version < WITH_CELL_IDS:
        card = card.model_copy(update={"evidence": None})
        ids = _cell_id_names(card)
        tensors = {name: array for name, array in tensors.items() if name not in ids}
    contents = encode(card, manifold.genes, tensors, manifold.vectors, version)
    digest = Manifest.of(contents, version).digest
    return replace(manifold, card=card, tensors=tensors, digest=digest, format_version=version)


def stores_operator(extraction: Extraction) -> bool:
    """Whether the operator is a tensor of the artifact: one that leaves expression as it is need not be."""
    return extraction.operator.kind != "expression" or extraction.control is not None


def expected_shapes(card: Card) -> dict[str, tuple[int, ...]]:
    """Tensor shapes that a card implies."""
    n_genes, d, operator = card.genes.n, card.extraction.adaptor.n_components, card.extraction.operator
    k, per_block = operator.n_blocks, operator.n_features or n_genes
    shapes: dict[str, tuple[int, ...]] = {
        "projection": (n_genes, d),
        "offset": (d,),
        "adaptor.weights": (d, k * per_block),
        "adaptor.bias": (k * per_block,),
        "adaptor.mean": (k * per_block,),
        "adaptor.scale": (k * per_block,),
        "panel.anchors": (len(card.panel.anchors), n_genes),
    }
    if stores_operator(card.extraction):
        shapes["operator"] = (k, n_genes, per_block)
    n_classes = {readout.task: len(readout.classes) for readout in card.extraction.readouts}
    for readout in card.extraction.readouts:
        shapes |= readout_shapes(readout, d, n_classes)
    n = len(card.panel.anchors)
    shapes |= {f"comparator.{other.control}.{other.seed}": (n, n) for other in card.untrained}
    return shapes | {f"panel.{p.name}.anchors": (len(p.manifest.anchors), n_genes) for p in card.panels}


def _panel_tensors(card: Card) -> list[str]:
    """Beginnings of the names of the panels' tensors."""
    return ["panel", *(f"panel.{panel.name}" for panel in card.panels)]


def _cell_id_names(card: Card) -> set[str]:
    """Names of the tensors of cell ids that there may be."""
    return {f"{panel}.{kind}" for panel in _panel_tensors(card) for kind in KINDS}


def _check_shapes(manifold: Manifold) -> None:
    """Refuse tensors that do not fit the card and each other."""
    expected = expected_shapes(manifold.card)
    for panel in _panel_tensors(manifold.card):
        CellIds.read(manifold.tensors, panel)
    ids = _cell_id_names(manifold.card)
    _compare(TENSORS, {name: array for name, array in manifold.tensors.items() if name not in ids}, expected)
    n = next(iter(manifold.vectors["input"].shape), 0) if "input" in manifold.vectors else 0
    vectors: dict[str, tuple[int, ...]] = {"input": (n, manifold.card.genes.n), "latent": (n, expected["offset"][0])}
    for readout in manifold.card.extraction.readouts:
        vectors[vector_of(readout)] = (n, len(readout.classes)) if readout.classes else (n,)
    _compare(VECTORS, manifold.vectors, vectors)
    if len(manifold.genes) != manifold.card.genes.n:
        raise FormatError(f"{GENES} has {len(manifold.genes)} genes, the card says {manifold.card.genes.n}.")


def _compare(where: str, tensors: Mapping[str, NDArray[Any]], expected: dict[str, tuple[int, ...]]) -> None:
    """Refuse missing, unknown, misshapen, non-float or non-finite tensors."""
    if set(tensors) != set(expected):
        missing, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
        raise FormatError(f"{where} lacks the tensors {missing} and has the unknown tensors {extra}.")
    for name, shape in expected.items():
        array = tensors[name]
        if array.shape != shape:
            raise FormatError(f"{where}: tensor {name!r} has the shape {array.shape}, the card implies {shape}.")
        if array.dtype not in (np.float32, np.float64) or not np.isfinite(array).all():
            raise FormatError(f"{where}: tensor {name!r} is {array.dtype} or not finite, expected finite floats.")
