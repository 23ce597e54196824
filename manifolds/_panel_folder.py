"""The panels of a specification as a folder: of each the anchors, and a manifest that people can read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cards._errors import BadInputError, PanelError, PermissionDeniedError, StoreError, ZooError
from ._expression_blocks import Progress
from ._panel_file import panel_header, write_panel
from ._panel_overlap import Role
from ._panel_spec import BuiltPanel, PanelSet, build_panels, bundled_tables
from ._ruler import EDGES, STAGES, StageRuler, read_stage_ruler
from ._ruler_interface import Ruler


@dataclass(frozen=True)
class PanelSummary:
    """One panel in numbers.

    Attributes
    ----------
    name, role
        Of the panel.
    files
        Names of the files it was built from.
    n_genes, n_anchors, n_stages
        Size of the matrix of anchors, and stages that have one.
    n_donors, n_cells
        Donors and labelled cells, also of groups too small for an anchor.
    n_shared_cells, n_shared_donors
        Those that the extraction panel has too, by id; ``None`` for the extraction panel itself, and where the
        specification has none.
    digest
        Of the anchors, as a card gives it.
    """

    name: str
    role: Role
    files: tuple[str, ...]
    n_genes: int
    n_anchors: int
    n_stages: int
    n_donors: int
    n_cells: int
    n_shared_cells: int | None
    n_shared_donors: int | None
    digest: str


def write_panels(
    spec: PanelSet,
    folder: str | Path,
    *,
    data: Path | None = None,
    genes: Sequence[str] | None = None,
    ruler: Ruler | None = None,
    progress: Progress | None = None,
) -> list[PanelSummary]:
    """Build the panels of a specification and write them to a new or empty folder, all of them or none.

    Parameters
    ----------
    spec
        Which panels.
    folder
        Gets ``<panel>.h5ad``, which ``read_panel`` reads, and ``<panel>.json``, its header: what was asked for, ruler,
        labels, missing genes, and the manifest with the digests of files and cell ids.
    data, genes, progress
        As ``build_panels``.
    ruler
        By default the one that ``find_ruler`` finds.

    Returns
    -------
    Each panel in numbers, in the order of the specification.

    Raises
    ------
    BadInputError
        If the folder holds something already.
    PanelError, FormatError, ScaleError
        As ``build_panels`` and ``find_ruler``; overlap is refused before a count is read.
    PermissionDeniedError, StoreError
        If the folder cannot be written.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInputError(f"{str(target)!r} is not an empty folder.", "Choose a new folder.")
    ruler = find_ruler(spec) if ruler is None else ruler
    built = build_panels(spec, data=data, genes=genes, ruler=ruler, progress=progress)
    headers = {name: panel_header(panel) for name, panel in built.items()}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as part:
            staged = Path(part) / "panels"
            staged.mkdir()
            for name, panel in built.items():
                write_panel(panel, staged / f"{name}.h5ad")
                said = headers[name].model_dump(mode="json")
                text = json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False)
                (staged / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            staged.rename(target)
    except ZooError:
        # some of ours are OSErrors too
        raise
    except PermissionError as error:
        raise PermissionDeniedError(f"{target} cannot be written: {error.strerror}.") from error
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror or error}.") from error
    return summarise_panels(built, {name: header.manifest.digest for name, header in headers.items()})


def find_ruler(spec: PanelSet) -> StageRuler:
    """Find the ruler whose stages a specification means.

    Returns
    -------
    The one beside the specification, ``stages.tsv`` and ``edges.tsv``; else that of the bundled recipe whose labels
    its panels name.

    Raises
    ------
    PanelError
        If there is none, or panels name the labels of several recipes.
    FormatError
        As ``read_stage_ruler``.
    """
    if (spec.folder / STAGES).is_file():
        return _read_ruler(spec.folder)
    named = sorted({panel.labels for panel in spec.panels if panel.labels and not Path(panel.labels).suffix})
    if len(named) != 1:
        said = f"name those of {' and '.join(named)}" if named else "name no bundled recipe's"
        raise PanelError(
            f"The panels do not say of which ruler their stages are: their labels {said}, and there is no {STAGES} "
            "beside the specification.",
            f"Put {STAGES} and {EDGES} there, or name an artifact with that ruler with --like REF.",
        )
    return _read_ruler(bundled_tables(named[0]))


def _read_ruler(folder: Path) -> StageRuler:
    """The stage graph of a folder; a ruler of interactions is computed, and cannot be read."""
    if not (folder / EDGES).is_file():
        raise PanelError(
            f"{folder / STAGES} has no {EDGES} beside it: the distances between its stages are computed from "
            "expression when a manifold is extracted.",
            "Name an artifact with that ruler with --like REF.",
        )
    return read_stage_ruler(folder)


def summarise_panels(panels: Mapping[str, BuiltPanel], digests: Mapping[str, str]) -> list[PanelSummary]:
    """Count what panels hold, and what they share with the extraction panel.

    Parameters
    ----------
    panels
        By name; of several of role ``extraction``, what is shared with any of them counts.
    digests
        Of the anchors of each.
    """
    fitted = [panel.members for panel in panels.values() if panel.role == "extraction"]
    cells = {name for members in fitted for name in members.cell_ids}
    donors = {name for members in fitted for name in members.donors}
    return [
        PanelSummary(
            name=name,
            role=built.role,
            files=tuple(file.name for file in built.panel.files),
            n_genes=len(built.panel.genes),
            n_anchors=len(built.panel.anchors),
            n_stages=len(set(built.panel.stage)),
            n_donors=len(built.members.donors),
            n_cells=len(built.members.ids),
            n_shared_cells=len(cells & set(built.members.cell_ids)) if fitted and built.role != "extraction" else None,
            n_shared_donors=len(donors & built.members.donors) if fitted and built.role != "extraction" else None,
            digest=digests[name],
        )
        for name, built in panels.items()
    ]
