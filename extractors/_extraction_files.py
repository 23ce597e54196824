"""Which files an extraction is fitted to and how each is read, as the extraction panels of a specification say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..cards._errors import BadInputError, NotFoundError, PanelError
from ..manifolds._count_file import PLAIN, PanelReading
from ..manifolds._panel_spec import PanelSet, find_panel_files, read_panel_labels
from ..manifolds._stage_labels import StageLabels


def extraction_files(
    cells: Sequence[str | Path] | None,
    panels: PanelSet | None,
    data: Path | None,
    *,
    labels: StageLabels,
    min_cells: int,
) -> tuple[tuple[Path, ...], PanelReading]:
    """Find the files that are fitted to, and how they are read.

    Parameters
    ----------
    cells
        The files; ``None`` takes those of the extraction panels.
    panels, data
        Specification and folder of its files.
    labels, min_cells
        Of the recipe, by which the files are read.

    Returns
    -------
    paths
        As given, or panel by panel in the order of the specification.
    reading
        Of each file as the extraction panel says that names it; others as they are.

    Raises
    ------
    BadInputError
        If no file is named.
    NotFoundError
        If there is no such file.
    PanelError
        If extraction panels name a file twice, or are labelled or cut otherwise than the recipe says.

    Notes
    -----
    A specification may have several extraction panels, because files may need different columns. They make one panel.
    """
    if isinstance(cells, str | Path):
        raise BadInputError(f"cells is the single path {str(cells)!r}, expected a list.", "Put it in brackets.")
    own = () if panels is None else tuple(panel for panel in panels.panels if panel.role == "extraction")
    named = [Path(file).name for panel in own for file in panel.files]
    twice = next((name for name, n in Counter(named).items() if n > 1), None)
    if twice is not None:
        raise PanelError(f"The extraction panels name the file {twice!r} twice.", "Name it in one of them.")
    by_file = {Path(file).name: panel.reading for panel in own for file in panel.files}
    if cells is None:
        if panels is None or not own:
            where = "Name at least one .h5ad file, or panels of which one has the role 'extraction'."
            raise BadInputError("No cells were given.", where)
        for panel in own:
            if panel.min_cells != min_cells:
                raise PanelError(
                    f"The panel {panel.name!r} asks for groups of {panel.min_cells} cells, the recipe for {min_cells}.",
                    "Give both the same min_cells.",
                )
            told = read_panel_labels(panel, panels.folder, data)
            if told is None or told.digest != labels.digest:
                raise PanelError(
                    f"The panel {panel.name!r} names the labels {panel.labels!r}, which are not those of the recipe.",
                    "Name the recipe's labels, by its name.",
                )
        cells = [path for panel in own for path in find_panel_files(panel, panels.folder, data)]
    if not cells:
        raise BadInputError("No cells were given.", "Name at least one .h5ad file.")
    for path in cells:
        if not Path(path).is_file():
            raise NotFoundError(f"There is no file {str(path)!r}.", "Check the path.")
    paths = tuple(Path(path) for path in cells)
    here = {path.name: by_file[path.name] for path in paths if path.name in by_file}
    return paths, PanelReading(by_file=here) if any(way != PLAIN for way in here.values()) else PLAIN
