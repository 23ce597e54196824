"""Transforming a file on disk in constant memory: the matrix is read in pieces and never rewritten."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import h5py
from anndata.io import write_elem

from ..cards._errors import BadInputError, NotFoundError
from ._files import replacing
from ._keys import keys_for
from ._scale import Scale
from ._transform import Progress, transform

if TYPE_CHECKING:
    from ._manifold import Manifold


@dataclass(frozen=True)
class FileTransform:
    """What a file transform wrote.

    Attributes
    ----------
    n_cells
        Number of cells.
    obsm, obs
        Keys written.
    provenance
        As stored in ``uns``.
    """

    n_cells: int
    obsm: list[str]
    obs: list[str]
    provenance: dict[str, Any]


def transform_file(
    manifold: Manifold,
    source: str | Path,
    target: str | Path,
    *,
    key_added: str | None = None,
    layer: str | None = None,
    gene_column: str | None = None,
    scale: Scale | Literal["auto"] = "auto",
    progress: Progress | None = None,
) -> FileTransform:
    """Place the cells of an ``.h5ad`` file on a manifold and write a copy of the file with the result.

    Parameters
    ----------
    manifold
        The manifold.
    source, target
        Input and output ``.h5ad``; the output appears only when it is whole.
    key_added, layer, gene_column, scale
        As ``Manifold.transform``.
    progress
        Called with the number of cells just done.

    Returns
    -------
    What was written.

    Raises
    ------
    NotFoundError
        If there is no input.
    BadInputError
        If it is not an ``.h5ad`` file, or the output is the input.
    GeneError, LowCoverageError, ScaleError, StoreError
        As ``Manifold.transform``, and if the output cannot be written.
    """
    before, after = Path(source), Path(target)
    if not before.is_file():
        raise NotFoundError(f"There is no file {str(before)!r}.", "Check the path.")
    if after.exists() and after.samefile(before):
        raise BadInputError(f"{str(after)!r} is the input itself.", "Name another output.")
    cells = _open(before)
    try:
        transform(
            manifold,
            cells,
            key_added=key_added,
            layer=layer,
            gene_column=gene_column,
            scale=scale,
            progress=progress,
        )
    finally:
        if cells.file is not None:
            cells.file.close()
    stem = key_added or manifold.name
    base = keys_for(stem)
    tasks = [keys_for(stem, task) for task in manifold.tasks]
    obsm, obs = [base.obsm, *(k.obsm_proba for k in tasks)], [k.obs for k in tasks]
    with replacing(after) as part:
        shutil.copyfile(before, part)
        with h5py.File(part, "r+") as file:
            for key in obsm:
                _put(file, f"obsm/{key}", cells.obsm[key])
            for key in obs:
                _put(file, f"obs/{key}", cells.obs[key].array)
            order = [str(name) for name in file["obs"].attrs["column-order"]]
            file["obs"].attrs["column-order"] = [*order, *(key for key in obs if key not in order)]
            _put(file, f"uns/{base.uns}", cells.uns[base.uns])
    return FileTransform(cells.n_obs, obsm, obs, cells.uns[base.uns])


def _open(path: Path) -> ad.AnnData:
    """Open a file backed, with a clear error for what is not an ``.h5ad``."""
    if not h5py.is_hdf5(path):
        raise BadInputError(f"{str(path)!r} is not an .h5ad file.", "Convert it with `anndata` or `scanpy.read` first.")
    try:
        cells = ad.read_h5ad(path, backed="r")
    # whatever the reader stumbles over lies in the user's file; its error class is private
    except Exception as error:
        raise BadInputError(f"{str(path)!r} is not a readable .h5ad file: {error}.") from error
    with h5py.File(path, "r") as file:
        if "column-order" not in file["obs"].attrs:
            raise BadInputError(
                f"{str(path)!r} was written by anndata before 0.7.", "Read and write it once with a current anndata."
            )
    return cells


def _put(file: h5py.File, key: str, value: Any) -> None:
    """Write one element in place of an older one."""
    if key in file:
        del file[key]
    write_elem(file, key, value)
