"""A manifold: a frozen operator, a learned head, small readouts, and the card that says what they are."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..cards._card import Card, Readout
from ..cards._errors import BadInputError, FormatError
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
from ._landmarks import Landmarks, stored_landmarks
from ._readouts import read_out
from ._ruler_interface import Ruler
from ._shapes import cell_id_names, check_shapes
from ._shapes import expected_shapes as expected_shapes
from ._shapes import stores_operator as stores_operator
from ._stored_ruler import stored_ruler

if TYPE_CHECKING:
    from anndata import AnnData

    from ._group_distances import GroupDistances

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
        folded, of a geodesic head ``(n_genes, r)`` and ``(r,)``, followed by ``head.landmarks`` ``(m, r)``,
        ``head.geodesics`` ``(m, m)`` and ``head.coordinates`` ``(m, d)``; ``operator`` ``(k, n_genes, n_features)``,
        see also the property; ``adaptor.*``;
        ``readout.<task>.weights`` ``(n_classes, d)`` and ``.bias`` ``(n_classes,)``, see ``readout_shapes``;
        ``panel.anchors`` ``(n_anchors, n_genes)``, those of other panels ``panel.<name>.anchors``; ``comparator.*``;
        of an interaction ruler ``ruler.distances``, ``ruler.directed`` and ``ruler.nulls``, see ``ruler_tensors``.
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
        check_shapes(self)
        # made here so that a broken ruler is met on loading, not in the middle of a gate
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
        return self.card.extraction.adaptor.n_components

    @cached_property
    def landmarks(self) -> Landmarks | None:
        """What a geodesic head places cells by, after the projection; ``None`` of other heads, which are linear."""
        return stored_landmarks(self.tensors, self.card.extraction.adaptor)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the readouts."""
        return tuple(readout.task for readout in self.card.extraction.readouts)

    @cached_property
    def ruler(self) -> Ruler:
        """The target distances: a ``StageRuler``, or an ``InteractionRuler`` as the card says."""
        return stored_ruler(self.card, self.tensors)

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
        """Place cells on the manifold: ``z = x P + o``, which a geodesic head places by its landmarks.

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
        projected = np.asarray(values @ self.tensors["projection"] + self.tensors["offset"], dtype=np.float32)
        return projected if self.landmarks is None else self.landmarks.place(projected).astype(np.float32)

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
        groupby: str | None = None,
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
        groupby
            Column of ``obs`` whose groups of cells are told how far apart the ruler would put them; by default, of
            manifolds with a ruler of interactions only, the most probable stage.
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
            Reference, digest, coverage, scale, class names and thresholds; of groups ``groups``, ``group_sizes`` and
            ``group_distances`` ``(n_groups, n_groups)``, see ``predicted_distances``.

        Raises
        ------
        GeneError, LowCoverageError
            If genes cannot be matched, or too few are there.
        ScaleError
            If values are negative, not finite, or on another scale than announced.
        BadInputError
            If there are no cells, no such layer or column, or no groups.

        Warns
        -----
        CoverageWarning, ScaleWarning
            See ``check_coverage`` and ``decide_scale``.
        """
        from ._transform import transform

        options: dict[str, Any] = {"key_added": key_added, "layer": layer, "gene_column": gene_column}
        return transform(self, adata, **options, scale=scale, groupby=groupby, copy=copy)

    def predicted_distances(self, latent: NDArray[np.floating], groups: Any) -> GroupDistances:
        """Predict the ruler distances between groups of cells from their mean coordinates: see ``group_distances``.

        Parameters
        ----------
        latent
            Coordinates ``(n_cells, d)``, as ``transform`` writes them to ``obsm``.
        groups
            Group of each cell, ``(n_cells,)``; cells without one are left out.
        """
        from ._group_distances import group_distances, head_distance

        adaptor = self.card.extraction.adaptor
        return group_distances(latent, groups, head_distance(adaptor.kind), adaptor.beta)

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
        ids = cell_id_names(card)
        tensors = {name: array for name, array in tensors.items() if name not in ids}
    contents = encode(card, manifold.genes, tensors, manifold.vectors, version)
    digest = Manifest.of(contents, version).digest
    return replace(manifold, card=card, tensors=tensors, digest=digest, format_version=version)
