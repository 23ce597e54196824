"""Transforming a file on disk in constant memory: the matrix is read in pieces and never rewritten."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import h5py
import pandas as pd
from anndata.io import read_elem, sparse_dataset, write_elem

from ..cards._errors import BadInputError, NotFoundError, ZooError
from ._files import replacing
from ._keys import keys_for
from ._project import Progress
from ._scale import Scale
from ._transform import transform
from ._write_results import FAMILIARITY

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
    groupby: str | None = None,
    progress: Progress | None = None,
) -> FileTransform:
    """Place the cells of an ``.h5ad`` file on a manifold and write a copy of the file with the result.

    Parameters
    ----------
    manifold
        The manifold.
    source, target
        Input and output ``.h5ad``; the output appears only when it is whole.
    key_added, layer, gene_column, scale, groupby
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
    with _opened(before) as (file, cells):
        transform(
            manifold,
            cells,
            key_added=key_added,
            layer=layer,
            gene_column=gene_column,
            scale=scale,
            groupby=groupby,
            progress=progress,
        )
        index = file["obs"].attrs["_index"]
    stem = key_added or manifold.name
    base = keys_for(stem)
    tasks = [keys_for(stem, task) for task in manifold.tasks]
    obsm = [base.obsm, *(k.obsm_proba for k in tasks if k.obsm_proba in cells.obsm)]
    scores = [keys_for(stem, name).obs for name in FAMILIARITY]
    obs = [*(k.obs for k in tasks), *(key for key in scores if manifold.card.extraction.familiarity is not None)]
    if index in obs:
        raise BadInputError(
            f"{str(before)!r} keeps the names of its cells in {index!r}.", "Choose another `key_added`."
        )
    with replacing(after) as part:
        shutil.copyfile(before, part)
        with h5py.File(part, "r+") as file:
            for key in obsm:
                _put(file, f"obsm/{key}", cells.obsm[key])
            for key in obs:
                _put(file, f"obs/{key}", _column(cells, key))
            order = [str(name) for name in file["obs"].attrs["column-order"]]
            file["obs"].attrs["column-order"] = [*order, *(key for key in obs if key not in order)]
            _put(file, f"uns/{base.uns}", cells.uns[base.uns])
    return FileTransform(cells.n_obs, obsm, obs, cells.uns[base.uns])


@contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.File, ad.AnnData]]:
    """Cells of a file whose matrices stay on disk (anndata's backed mode would read every layer)."""
    if not h5py.is_hdf5(path):
        raise BadInputError(f"{str(path)!r} is not an .h5ad file.", "Convert it with `anndata` or `scanpy.read` first.")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(h5py.File(path, "r"))
            if "column-order" not in file["obs"].attrs:
                raise BadInputError(
                    f"{str(path)!r} was written by anndata before 0.7.",
                    "Read and write it once with a current anndata.",
                )
            cells = ad.AnnData(
                X=_on_disk(file["X"]) if "X" in file else None,
                obs=read_elem(file["obs"]),
                var=read_elem(file["var"]),
                layers={name: _on_disk(layer) for name, layer in file.get("layers", {}).items()},
            )
        except BadInputError:
            raise
        # whatever the reader stumbles over lies in the user's file; its error class is private
        except Exception as error:
            raise BadInputError(f"{str(path)!r} is not a readable .h5ad file: {error}.") from error
        try:
            yield file, cells
        except ZooError:
            raise
        except OSError as error:
            raise BadInputError(f"{str(path)!r} is damaged: {error}.", "Copy or download it again.") from error


def _on_disk(element: h5py.Group | h5py.Dataset) -> Any:
    """A matrix of an open file, not read yet."""
    if isinstance(element, h5py.Dataset):
        return element
    if not {"data", "indices", "indptr"} <= set(element):
        raise BadInputError(f"{element.name!r} in {element.file.filename!r} is not a matrix.")
    return sparse_dataset(element)


def _column(cells: ad.AnnData, key: str) -> Any:
    """A column of ``obs`` as it is written: categories as they are, numbers as an array."""
    values = cells.obs[key]
    return values.array if isinstance(values.dtype, pd.CategoricalDtype) else values.to_numpy()


def _put(file: h5py.File, key: str, value: Any) -> None:
    """Write one element in place of an older one."""
    parent, _, name = key.rpartition("/")
    if parent not in file:
        write_elem(file, parent, {})
    if name in file[parent]:
        del file[parent][name]
    # anndata 0.13 refuses keys with a slash
    write_elem(file[parent], name, value)
