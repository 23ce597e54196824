"""Panel specifications: which cells of which files make which panels, as data."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Field, PrivateAttr, ValidationError, model_validator

from ..cards._errors import FormatError, PanelError
from ..cards._frozen import Frozen
from ..cards._names import NAME_PATTERN, canonical_json, sha256_bytes
from ..cards._text import Text
from ._count_file import PanelReading, list_cells
from ._expression_blocks import Progress
from ._labels import LabelTable, assign_stages, read_label_table
from ._panel import Panel, build_panel, gene_names
from ._panel_overlap import PanelMembers, Role, check_overlap, read_panel_members
from ._recipe import read_recipe, recipe_folder, table_folder
from ._ruler_interface import Ruler
from ._scale import Scale
from ._stage_labels import StageLabels

Column = Literal["dataset", "donor", "tissue", "cell_type"]
Names = Annotated[tuple[Text, ...], Field(min_length=1)]


class PanelSpec(Frozen):
    """One panel: files, how they are read, and what the panel is for.

    Notes
    -----
    The roles differ in what they must not share with the extraction panel, see ``check_overlap``. A ``negative`` panel
    holds cells that the ruler knows nothing of; it is expected to fail the gates, which shows that they can fail. Its
    stages are ``assigned`` by a seeded draw, see ``assign_stages`` for why; cell types that ``labels`` gives a stage
    are left out of it. All other panels take their stages from ``labels``.
    """

    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
    role: Role
    files: Names
    """``.h5ad`` files, relative to the data folder or to the specification."""
    labels: Text | None = None
    """Label table, relative to the specification or to the data folder; without a suffix, the labels of a bundled
    recipe, or of the recipe in ``./FOLDER``."""
    stages: Literal["labels", "assigned"] = "labels"
    seed: int = Field(default=0, ge=0)
    """Of the draw of ``assigned`` stages."""
    min_cells: int = Field(default=5, ge=1)
    """Groups of fewer cells make no anchor; 5 as published."""
    columns: dict[Column, Text] = Field(default_factory=dict)
    """Column of ``obs`` that holds what; each its own name by default."""
    constants: dict[Column, Text] = Field(default_factory=dict)
    """Value for files that lack the column."""
    studies: Names | None = None
    exclude_studies: tuple[Text, ...] = ()
    donors: Names | None = None
    """Only these, as ``donor`` or ``study:donor``."""
    exclude_donors: tuple[Text, ...] = ()
    cell_types: Names | None = None
    exclude_cell_types: tuple[Text, ...] = ()
    layer: Text | None = None
    """Layer of the counts, or ``raw.X``; null reads ``X``."""
    gene_column: Text | None = None
    """Column of ``var`` with the names of the genes; null takes ``var_names``."""
    scale: Scale = "counts"
    """``log1p`` for files that hold ``log1p`` of counts per 10,000 already."""

    @model_validator(mode="before")
    @classmethod
    def _assigned_to_negatives(cls, given: Any) -> Any:
        if isinstance(given, dict) and "stages" not in given:
            return given | {"stages": "assigned" if given.get("role") == "negative" else "labels"}
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> PanelSpec:
        if (self.role == "negative") != (self.stages == "assigned"):
            raise ValueError(
                f"role {self.role!r} does not go with stages {self.stages!r}: only a negative panel's stages "
                "are assigned, and they always are"
            )
        if self.stages == "labels" and self.labels is None:
            raise ValueError(f"the panel {self.name!r} needs labels, the table that gives its cell types stages")
        if len(set(self.files)) != len(self.files):
            raise ValueError(f"the panel {self.name!r} names a file twice: {list(self.files)}")
        for option in ("studies", "donors", "cell_types"):
            both = set(getattr(self, option) or ()) & set(getattr(self, f"exclude_{option}"))
            if both:
                raise ValueError(f"{sorted(both)[0]!r} is both in {option} and in exclude_{option}")
        return self

    @property
    def reading(self) -> PanelReading:
        """How the files are read."""
        fields = PanelReading.__dataclass_fields__.keys() & type(self).model_fields.keys()
        return PanelReading(**{name: getattr(self, name) for name in fields})

    @property
    def portable(self) -> PanelSpec:
        """The same with the names of files in place of their paths, which say nothing on another machine."""
        table = Path(self.labels).name if self.labels else None
        return self.model_copy(update={"files": tuple(Path(file).name for file in self.files), "labels": table})

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the portable specification."""
        said = self.portable.model_dump(mode="json")
        if self.scale == "counts":
            # what was written before the field was there keeps its digest
            del said["scale"]
        return sha256_bytes(canonical_json(said))


class PanelSet(Frozen):
    """Panels that are used together, and must not overlap."""

    panels: Annotated[tuple[PanelSpec, ...], Field(min_length=1)]
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _names_differ(self) -> PanelSet:
        names = [panel.name for panel in self.panels]
        if len(set(names)) != len(names):
            raise ValueError(f"panel names must differ, got {names}")
        return self

    @property
    def folder(self) -> Path:
        """Folder of the file it was read from; the current folder where it was made in Python."""
        return self._folder


@dataclass(frozen=True, eq=False)
class BuiltPanel:
    """A panel, what it was built by, and who is in it.

    Attributes
    ----------
    spec
        What was asked for.
    panel
        Anchors.
    members
        Labelled cells and donors, also of groups too small for an anchor.
    ruler, ruler_digest
        Name and version of the ruler that the stages are of, and its digest.
    labels
        What gave cells their stages: of a negative panel, the table as drawn.
    """

    spec: PanelSpec
    panel: Panel
    members: PanelMembers
    ruler: str
    ruler_digest: str
    labels: StageLabels

    @property
    def name(self) -> str:
        """Name of the panel."""
        return self.spec.name

    @property
    def role(self) -> Role:
        """What it is for."""
        return self.spec.role


@dataclass(frozen=True, eq=False)
class _Planned:
    """A panel whose cells are known and whose counts are not read yet."""

    spec: PanelSpec
    paths: tuple[Path, ...]
    labels: StageLabels
    members: PanelMembers

    @property
    def name(self) -> str:
        """Name of the panel."""
        return self.spec.name

    @property
    def role(self) -> Role:
        """What it is for."""
        return self.spec.role


def read_panel_set(path: str | Path) -> PanelSet:
    """Read a panel specification, TOML or YAML by its suffix.

    Parameters
    ----------
    path
        The file; or, a bare name without a suffix, that of the bundled recipe of this name, or of its base.

    Raises
    ------
    FormatError
        If there is none, or naming the first field at fault.
    NotFoundError
        If no recipe of that name is bundled.
    """
    if not Path(path).suffix and len(Path(path).parts) == 1:
        own = recipe_folder(str(path)) / "panels.toml"
        path = own if own.is_file() else bundled_tables(str(path)) / "panels.toml"
    path = Path(path)
    readers: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".yaml": yaml.safe_load, ".yml": yaml.safe_load}
    if path.suffix.lower() not in readers:
        raise FormatError(f"{path} is neither TOML nor YAML by its suffix.", "Name it .toml, .yaml or .yml.")
    try:
        document = readers[path.suffix.lower()](path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError(f"There is no panel specification {path}.") from error
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        kind = "TOML" if path.suffix.lower() == ".toml" else "YAML"
        raise FormatError(f"{path} is not {kind}: {' '.join(str(error).split())}.") from error
    try:
        panels = PanelSet.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the specification"
        raise FormatError(f"{path} fails at {field!r}: {first['msg']}.") from error
    panels._folder = path.parent
    return panels


def build_panels(
    spec: PanelSet,
    *,
    data: Path | None = None,
    genes: Sequence[str] | None = None,
    ruler: Ruler,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, BuiltPanel]:
    """Build panels, once it is clear that they do not overlap where they must not.

    Parameters
    ----------
    spec
        Which panels.
    data
        Folder of the files, before that of the specification.
    genes
        Symbols of all panels; a gene that a file lacks counts as 0 there and is listed. ``None`` takes those that every
        file of the specification measures, sorted.
    ruler
        Its stages are those of the label tables, and those that are assigned.
    names
        Panels to build; ``None`` builds all. Overlap is checked between all of them either way, which reads no counts.
    progress
        Called as ``progress("PANEL: FILE", done, total)``.

    Returns
    -------
    Panels by name, in the order of the specification.

    Raises
    ------
    PanelError
        If a file or a panel of that name is missing, panels overlap (see ``check_overlap``), the files share no gene
        where none are named, or as ``build_panel``.
    FormatError, ScaleError, BadInputError
        As ``read_label_table`` and ``build_panel``.

    Warns
    -----
    ZooWarning
        If the barcodes of two studies look as if one were a copy of the other.
    """
    known = [panel.name for panel in spec.panels]
    for name in names or ():
        if name not in known:
            raise PanelError(f"The specification has no panel {name!r}.", f"Its panels are {', '.join(known)}.")
    planned = [_plan(panel, spec.folder, data, ruler) for panel in spec.panels]
    check_overlap(planned).require()
    genes = _shared_genes(planned) if genes is None else genes
    return {plan.name: _build(plan, genes, ruler, progress) for plan in planned if names is None or plan.name in names}


def find_panel_files(spec: PanelSpec, folder: Path, data: Path | None) -> tuple[Path, ...]:
    """Find the files of a panel in the data folder, or else in that of the specification.

    Raises
    ------
    PanelError
        If one is in neither.
    """
    return tuple(find_file(file, [data, folder]) for file in spec.files)


def read_panel_labels(spec: PanelSpec, folder: Path, data: Path | None) -> StageLabels | None:
    """Read the labels that a panel names, ``None`` where it names none; folders are those of ``find_panel_files``.

    Raises
    ------
    FormatError, NotFoundError, PanelError
        If they cannot be found or read.
    """
    return _read_labels(spec.labels, [folder, data]) if spec.labels else None


def bundled_tables(recipe: str) -> Path:
    """Folder of the labels and the ruler of a bundled recipe.

    Raises
    ------
    NotFoundError
        If there is no such recipe.
    """
    folder = recipe_folder(recipe)
    return table_folder(read_recipe(folder), folder)


def _shared_genes(planned: Sequence[_Planned]) -> tuple[str, ...]:
    """Genes that every file of some panels measures, sorted."""
    known = [set(gene_names(path, reading=plan.spec.reading)) for plan in planned for path in plan.paths]
    shared = sorted(set.intersection(*known))
    if not shared:
        raise PanelError(
            f"The {len(known)} files of the panels share no gene.",
            "Are all named alike, by symbols or by Ensembl ids? `gene_column` names another column of var.",
        )
    return tuple(shared)


def _plan(spec: PanelSpec, folder: Path, data: Path | None, ruler: Ruler) -> _Planned:
    """Find the files of a panel, and its cells."""
    paths = find_panel_files(spec, folder, data)
    table = read_panel_labels(spec, folder, data)
    if spec.stages == "assigned":
        cells = list_cells(paths, spec.reading)[["dataset", "cell_type"]].drop_duplicates()
        stages = [stage.id for stage in ruler.stages]
        pairs = cells.itertuples(index=False, name=None)
        if not isinstance(table, LabelTable | None):
            raise PanelError(
                f"The negative panel {spec.name!r} names the labels {spec.labels!r}, which score cells of any type, so "
                "that they know no cell types to leave out.",
                "Leave labels out, or name a table of cell types.",
            )
        table = assign_stages(pairs, stages, rng=np.random.default_rng(spec.seed), known=table)
    assert table is not None  # the specification demands labels where stages are not assigned
    return _Planned(spec, paths, table, read_panel_members(paths, labels=table, reading=spec.reading))


def _build(plan: _Planned, genes: Sequence[str], ruler: Ruler, progress: Progress | None) -> BuiltPanel:
    """Read the counts of a panel."""

    def tell(file: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"{plan.name}: {file}", done, total)

    panel = build_panel(
        plan.paths,
        genes=genes,
        labels=plan.labels,
        ruler=ruler,
        min_cells=plan.spec.min_cells,
        reading=plan.spec.reading,
        progress=tell,
    )
    return BuiltPanel(plan.spec, panel, plan.members, f"{ruler.name} {ruler.version}", ruler.digest, plan.labels)


def find_file(name: str, folders: Sequence[Path | None]) -> Path:
    """Find a file in the first folder that has it.

    Raises
    ------
    PanelError
        If none has.
    """
    there = [folder / Path(name).expanduser() for folder in folders if folder is not None]
    for path in there:
        if path.is_file():
            return path
    looked = " or ".join(dict.fromkeys(str(path.parent) for path in there))
    raise PanelError(f"There is no file {name!r} in {looked}.", "Name the folder of the files with --data DIR.")


def _read_labels(name: str, folders: Sequence[Path | None]) -> StageLabels:
    """Read a label table of the user's, or the labels of a recipe."""
    if Path(name).suffix:
        return read_label_table(find_file(name, folders))
    folder = recipe_folder(name)
    recipe = read_recipe(folder)
    return recipe.labels.read(table_folder(recipe, folder) / recipe.labels.file)
