"""A built panel as one .h5ad file: anchors as rows, and a header that says what they are and binds every number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
from pydantic import ValidationError, model_validator

from ..cards._card import AnchorEntry, PanelFileEntry, PanelManifest
from ..cards._errors import FormatError, FutureFormatError, IntegrityError
from ..cards._frozen import Frozen, Sha256
from ..cards._names import canonical_json, sha256_bytes
from ..cards._programs import ScoredLabels
from ..cards._text import Text
from ._digests import anchors_digest
from ._files import replacing
from ._labels import LabelTable
from ._panel import Panel, PanelFile
from ._panel_overlap import PanelMembers
from ._panel_spec import BuiltPanel, PanelSpec
from ._scored_labels import GeneScoreLabels
from ._stage_labels import StageLabels

PANEL_FORMAT = 1
KEY = "manifoldzoo_panel"
_DESCRIBED = ("study", "donor", "tissue", "cell_type", "stage", "branch")


class PanelHeader(Frozen):
    """What a panel file says of itself, kept as canonical JSON with its SHA-256 beside it."""

    format_version: Literal[1] = 1
    spec: PanelSpec
    """Without the paths of files."""
    spec_digest: Sha256
    ruler: Text
    ruler_digest: Sha256
    labels: list[tuple[Text, Text, Text, str]]
    """Study, cell type, stage and ontology id, as used; empty where cells were scored."""
    scored: ScoredLabels | None = None
    """How cells were scored, where no table of cell types gave their stages."""
    labels_file: Text
    labels_digest: Sha256
    members_digest: Sha256
    missing_genes: list[list[Text]]
    """Of each file."""
    manifest: PanelManifest

    @model_validator(mode="after")
    def _files_fit(self) -> PanelHeader:
        said, listed = [file.n_missing_genes for file in self.manifest.files], [len(m) for m in self.missing_genes]
        if said != listed:
            raise ValueError(f"missing_genes lists {listed} genes of the files, the manifest says {said}")
        return self


def panel_manifest(panel: Panel, min_cells: int) -> PanelManifest:
    """Describe a panel, with the digest of its anchors.

    Parameters
    ----------
    panel
        The panel.
    min_cells
        Groups of fewer cells made no anchor.
    """
    entries = [
        AnchorEntry(**dict(zip(_DESCRIBED, described, strict=True)), n_cells=int(n))
        for *described, n in zip(*(getattr(panel, name) for name in _DESCRIBED), panel.n_cells, strict=True)
    ]
    return PanelManifest(
        digest=anchors_digest(panel.anchors, [entry.model_dump(mode="json") for entry in entries], panel.genes),
        min_cells=min_cells,
        files=[
            PanelFileEntry(
                name=file.name,
                sha256=file.sha256,
                n_cells=file.n_cells,
                cells_digest=file.cells_digest,
                n_missing_genes=len(file.missing_genes),
                source=file.source,
            )
            for file in panel.files
        ],
        anchors=entries,
    )


def panel_header(panel: BuiltPanel) -> PanelHeader:
    """Say all that a panel file says of itself: what was asked for, ruler, labels and members, and the manifest."""
    built, spec = panel.panel, panel.spec.portable
    return PanelHeader(
        spec=spec,
        spec_digest=spec.digest,
        ruler=panel.ruler,
        ruler_digest=panel.ruler_digest,
        labels=panel.labels.rows,
        scored=panel.labels.entry,
        labels_file=Path(panel.labels.path).name,
        labels_digest=panel.labels.digest,
        members_digest=panel.members.digest,
        missing_genes=[list(file.missing_genes) for file in built.files],
        manifest=panel_manifest(built, panel.spec.min_cells),
    )


def write_panel(panel: BuiltPanel, path: Path) -> None:
    """Write a panel to one ``.h5ad`` file, whole or not at all.

    Parameters
    ----------
    panel
        A built panel. ``X`` gets the anchors, ``log1p`` of counts per 10,000, float32 ``(n_anchors, n_genes)``; ``obs``
        what each is; ``uns['manifoldzoo_panel']`` the header, its SHA-256, and the cells and donors behind the anchors.
    path
        The file; it is replaced.

    Raises
    ------
    PermissionDeniedError, StoreError
        If it cannot be written.

    Notes
    -----
    Equal panels make equal bytes, with the same versions of anndata and HDF5.
    """
    built, said = panel.panel, canonical_json(panel_header(panel).model_dump(mode="json"))
    obs = pd.DataFrame(
        {name: pd.Categorical(getattr(built, name)) for name in _DESCRIBED} | {"n_cells": built.n_cells},
        index=[str(number) for number in range(len(built.anchors))],
    )
    members = panel.members
    cells = pd.DataFrame(
        {"study": pd.Categorical(members.study), "donor": pd.Categorical(members.donor)},
        index=pd.Index(members.ids, dtype=object),
    )
    table = ad.AnnData(built.anchors, obs=obs, var=pd.DataFrame(index=pd.Index(built.genes, dtype=object)))
    table.uns[KEY] = {"header": said.decode(), "sha256": sha256_bytes(said), "cells": cells}
    with replacing(path) as part:
        table.write_h5ad(part, compression="gzip")
        read_panel(part)


def read_panel(path: Path) -> BuiltPanel:
    """Read what ``write_panel`` wrote.

    Returns
    -------
    The panel, equal in every number and name; its specification and label table name files without their folders.

    Raises
    ------
    FormatError
        If the file is not a panel.
    FutureFormatError
        If a newer version wrote it.
    IntegrityError
        If an anchor, a name or the header was changed since it was written.
    """
    try:
        table = ad.read_h5ad(path)
    # whatever the reader stumbles over lies in the user's file; its error class is private
    except Exception as error:
        raise FormatError(f"{str(path)!r} is not a readable .h5ad file: {error}.") from error
    kept = table.uns.get(KEY)
    if not isinstance(kept, Mapping) or not {"header", "sha256", "cells"} <= set(kept):
        raise FormatError(
            f"{str(path)!r} is not a panel: it lacks uns[{KEY!r}].",
            "Build one from a specification with `build_panels` and write it with `write_panel`.",
        )
    header = _read_header(str(kept["header"]), str(kept["sha256"]), path)
    try:
        panel, members = _read_table(table, kept["cells"], header)
        digest = panel_manifest(panel, header.manifest.min_cells).digest
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{str(path)!r} is not a panel any more: {' '.join(str(error).split())}.") from error
    labels = _read_labels(header)
    _check("anchors", digest, header.manifest.digest, path)
    _check("cells", members.digest, header.members_digest, path)
    _check("labels", labels.digest, header.labels_digest, path)
    _check("specification", header.spec.digest, header.spec_digest, path)
    return BuiltPanel(header.spec, panel, members, header.ruler, header.ruler_digest, labels)


def _read_table(table: ad.AnnData, cells: pd.DataFrame, header: PanelHeader) -> tuple[Panel, PanelMembers]:
    """Anchors and members as the file has them, not checked yet."""
    panel = Panel(
        genes=tuple(table.var_names.astype(str)),
        anchors=np.ascontiguousarray(table.X, dtype=np.float32),
        n_cells=table.obs["n_cells"].to_numpy(dtype=np.int64),
        files=tuple(
            PanelFile(file.name, file.sha256, file.n_cells, file.cells_digest, tuple(missing), file.source)
            for file, missing in zip(header.manifest.files, header.missing_genes, strict=True)
        ),
        **{name: tuple(table.obs[name].astype(str)) for name in _DESCRIBED},
    )
    return panel, PanelMembers(*(tuple(map(str, names)) for names in (cells["study"], cells["donor"], cells.index)))


def _read_labels(header: PanelHeader) -> StageLabels:
    """What gave the cells their stages."""
    if header.scored is not None:
        return GeneScoreLabels.of(header.scored, header.labels_file)
    return LabelTable(
        {(study, cell_type): stage for study, cell_type, stage, _ in header.labels},
        header.labels_file,
        {(study, cell_type): identifier for study, cell_type, _, identifier in header.labels if identifier},
    )


def _read_header(text: str, sha256: str, path: Path) -> PanelHeader:
    """Read a header, its version first."""
    try:
        document: Any = json.loads(text)
        version = document["format_version"]
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(f"{str(path)!r} has a header that is not one: {text[:40]!r}.") from error
    if isinstance(version, int) and version > PANEL_FORMAT:
        raise FutureFormatError(
            f"{str(path)!r} has panel format {version}, this version reads up to {PANEL_FORMAT}.",
            "pip install --upgrade manifoldzoo",
        )
    _check("header", sha256_bytes(text.encode()), sha256, path)
    try:
        return PanelHeader.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the header"
        raise FormatError(f"{str(path)!r} has a header that fails at {field!r}: {first['msg']}.") from error


def _check(what: str, found: str, said: str, path: Path) -> None:
    """Refuse what does not have the digest that was written with it."""
    if found != said:
        raise IntegrityError(
            f"{str(path)!r} was changed after it was written: its {what} have the SHA-256 {found[:12]}, the file says "
            f"{said[:12]}.",
            "Build it again from its specification.",
            files=(path.name,),
        )
