"""Recipes: what differs from one manifold to the next, as data."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..cards._adaptor import AdaptorKind
from ..cards._card import Citation, Combination, OperatorKind
from ..cards._errors import FormatError, NotFoundError
from ..cards._evidence_plan import EvidencePlan
from ..cards._frozen import Frozen
from ..cards._names import NAME_PATTERN, VERSION_PATTERN
from ..cards._text import Licence, Text
from ._geodesic_settings import GeodesicSettings
from ._heads import HeadSettings
from ._labels_recipe import LabelsRecipe, TableLabels
from ._let import LetSettings, Schedule
from ._ruler_recipe import InteractionRecipe, RulerRecipe

HEADLESS = ("distilled", "expression")
"""Kinds of operator that are not read head by head."""

ON_CELLS = ("let-cell", "let-hybrid")
"""Kinds of adaptor that are fitted on cells."""

_OF_CELLS = {
    "learning_rate": 0.01,
    "epochs": 120,
    "batch_size": 896,
    "stage": 1.0,
    "local": 0.1,
    "recon": 0.08,
    "cls": 0.4,
    "n_neighbours": 15,
    "temperature": 0.2,
    "dtype": "float32",
    "patience": None,
    "validation": 0.1,
}
_OF_ANCHORS = ("learning_rate", "alpha", "n_steps", "schedule")
_GEODESIC = {"n_neighbours": GeodesicSettings().n_neighbours}
ADAPTORS: dict[str, dict[str, Any]] = {
    "let-anchor": {name: getattr(LetSettings(), name) for name in _OF_ANCHORS},
    "let-cell": _OF_CELLS,
    "let-hybrid": _OF_CELLS | {"topo": 0.03, "compact": 0.015},
    "isomap": _GEODESIC,
    "geodesic-mds": _GEODESIC,
}
"""Parameters of each kind of adaptor with their defaults, as published or chosen where they are explained:
``LetSettings``, ``GeodesicSettings`` and ``extractors.adaptors.CellSettings``."""


class PanelRecipe(Frozen):
    """How anchors and cells are taken from the files."""

    min_cells: int = Field(default=5, ge=1)
    max_cells_per_stage: int = Field(default=500, ge=1)
    n_genes: int = Field(default=1200, ge=10)
    """Genes of a model with a larger vocabulary, the most variable ones of the cells; 1200 as published."""


class OperatorRecipe(Frozen):
    """Stage 1: which matrix is read, and how heads and layers are joined."""

    kind: OperatorKind = "attention_mean"
    combination: Combination | None = None
    """``drift`` as published by default; ``none`` for ``distilled`` and ``expression``, which have no heads."""
    layer: int | None = Field(default=None, ge=0)
    head: int | None = Field(default=None, ge=0)
    """The head of ``single``, indices from 0."""
    k: int | None = Field(default=None, ge=1)
    """Heads of ``top_k``; 1 and 3 were published."""

    @model_validator(mode="before")
    @classmethod
    def _joined_by_default(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("combination") is None:
            return given | {"combination": "none" if given.get("kind") in HEADLESS else "drift"}
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> OperatorRecipe:
        if (self.kind in HEADLESS) != (self.combination == "none"):
            raise ValueError(f"kind {self.kind!r} does not go with combination {self.combination!r}")
        if (self.combination == "single") != (self.layer is not None and self.head is not None):
            raise ValueError("layer and head name the head of combination 'single', which needs both")
        if (self.combination == "top_k") != (self.k is not None):
            raise ValueError("k is the number of heads of combination 'top_k', which needs it")
        return self


class AdaptorRecipe(Frozen):
    """Stage 2: a kind of head and its parameters, see ``ADAPTORS``; what belongs to another kind is null."""

    kind: AdaptorKind = "let-anchor"
    n_components: int = Field(default=10, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    alpha: float | None = Field(default=None, ge=0)
    n_steps: int | None = Field(default=None, ge=1)
    schedule: Schedule | None = None
    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=2)
    stage: float | None = Field(default=None, ge=0)
    local: float | None = Field(default=None, ge=0)
    recon: float | None = Field(default=None, ge=0)
    cls: float | None = Field(default=None, ge=0)
    topo: float | None = Field(default=None, gt=0)
    compact: float | None = Field(default=None, ge=0)
    n_neighbours: int | None = Field(default=None, ge=1)
    """Of the graph of a geodesic head; of the local term of a head fitted on cells."""
    temperature: float | None = Field(default=None, gt=0)
    dtype: Literal["float32", "float64"] | None = None
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a smaller loss on cells held out after which the fit stops; null runs them all, as published."""
    validation: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _parameters_of_its_kind(cls, given: Any) -> Any:
        kind = given.get("kind", "let-anchor") if isinstance(given, dict) else None
        if not isinstance(kind, str) or kind not in ADAPTORS:
            return given
        named = {name: value for name, value in given.items() if value is not None}
        for name in named:
            owners = [other for other, parameters in ADAPTORS.items() if name in parameters]
            if owners and kind not in owners:
                several = f"{', '.join(owners[:-1])} and {owners[-1]}" if len(owners) > 1 else owners[0]
                raise ValueError(f"{name} is a parameter of {several}, and the kind is {kind!r}")
        return ADAPTORS[kind] | named

    @model_validator(mode="after")
    def _reads_the_ruler(self) -> AdaptorRecipe:
        if self.kind == "let-cell" and self.stage == 0:
            raise ValueError("stage is 0, and no other term of 'let-cell' reads the ruler")
        return self

    def parameters(self) -> dict[str, Any]:
        """The parameters of the kind, without ``n_components``."""
        return {name: getattr(self, name) for name in ADAPTORS[self.kind]}

    def settings(self) -> HeadSettings:
        """Settings of heads fitted on anchors, with which operators are screened whatever the kind.

        They are those of the recipe for ``let-anchor`` and geodesic kinds; the defaults of ``let-anchor`` for kinds
        fitted on cells, which have none.
        """
        if self.kind == "isomap" or self.kind == "geodesic-mds":
            return GeodesicSettings(kind=self.kind, n_components=self.n_components, **self.parameters())
        own = self.parameters() if self.kind == "let-anchor" else {}
        return LetSettings(n_components=self.n_components, **own)


class ChoiceRecipe(Frozen):
    """What the panel decides, by a nested rule over its donors and studies."""

    operators: list[OperatorRecipe] = Field(default_factory=list)
    """Candidates; none leaves the operator to the recipe."""
    adaptors: list[AdaptorRecipe] = Field(default_factory=list)
    """Candidates fitted on anchors, each with parameters of its own; none leaves the kind of head to the recipe."""
    n_components: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    """Candidates; 3, 6 and 10 were published. None leaves the number to the recipe."""
    n_starts: int = Field(default=5, ge=1)
    """Starts of the head that a score is averaged over; our choice."""

    @model_validator(mode="after")
    def _something_to_choose(self) -> ChoiceRecipe:
        for what in ("operators", "adaptors", "n_components"):
            candidates = tuple(getattr(self, what))
            if len(candidates) == 1 or len(set(candidates)) < len(candidates):
                raise ValueError(f"{what} must name different candidates, at least two")
        if not self.operators and not self.adaptors and not self.n_components:
            raise ValueError("there is nothing to choose among: name operators, adaptors or n_components")
        for adaptor in self.adaptors:
            if adaptor.kind in ON_CELLS:
                raise ValueError(f"candidates are scored by anchor heads, and an adaptor is {adaptor.kind!r}")
            if "n_components" in adaptor.model_fields_set:
                raise ValueError("n_components of adaptors is shared by all: name it beside them in [choice]")
        return self


class ReadoutRecipe(Frozen):
    """Stage 3: one task on the coordinates."""

    task: Annotated[str, Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")]
    label: Literal["stage", "branch", "depth"] = "stage"
    """What of a cell is learned; ``depth`` is the number of steps from the root of the ruler."""
    kind: Literal["linear", "mlp", "expected"] | None = None
    """``linear`` by default; ``mlp`` has one hidden layer; ``expected``, for ``depth``, is its mean over stages."""
    n_hidden: int = Field(default=64, ge=1)
    """Of ``mlp``; 64 as published."""
    c: float = Field(default=1.0, gt=0)
    """Inverse penalty of ``linear``."""
    calibrate: bool = True
    """Whether probabilities are brought to what held-out donors say of them."""
    classes: dict[str, list[str]] | None = None
    """Stages of each class, where classes are not the stages or branches themselves; cells of others take no part."""

    @model_validator(mode="before")
    @classmethod
    def _kind_by_default(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("kind") is None:
            return given | {"kind": "expected" if given.get("label") == "depth" else "linear"}
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> ReadoutRecipe:
        if (self.label == "depth") != (self.kind == "expected"):
            raise ValueError(f"kind {self.kind!r} does not go with label {self.label!r}")
        if self.classes is not None:
            stages = [stage for group in self.classes.values() for stage in group]
            if (
                self.label != "stage"
                or len(self.classes) < 2
                or len(set(stages)) != len(stages)
                or not all(self.classes.values())
            ):
                raise ValueError("classes group stages: at least two, none empty, no stage twice, label 'stage'")
        return self


class Recipe(Frozen):
    """Everything an extraction needs besides a checkpoint and cells."""

    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
    base: Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)] | None = None
    """Bundled recipe that gives labels, ruler and whatever this one does not say."""
    version: Annotated[str, Field(pattern=VERSION_PATTERN)]
    title: Text
    description: Text
    licence: Licence
    ruler_licence: Licence
    extractor: Text
    ruler: RulerRecipe | None = None
    """Ruler that an installed package offers, by name, or how one is computed from a ligand-receptor resource; null
    reads ``stages.tsv`` and ``edges.tsv`` beside the recipe."""
    seed: int = 0
    labels: LabelsRecipe = TableLabels()
    """What gives cells their stages; ``labels.tsv`` beside the recipe by default."""
    panel: PanelRecipe = PanelRecipe()
    operator: OperatorRecipe = OperatorRecipe()
    adaptor: AdaptorRecipe = AdaptorRecipe()
    choice: ChoiceRecipe | None = None
    """What of operator and adaptor is chosen on the panel instead of named here."""
    readouts: list[ReadoutRecipe]
    evidence: EvidencePlan | None = None
    """What is fixed of the evidence, stricter than the standard where it differs; null is the standard."""
    coverage_floor: float = Field(ge=0, le=1)
    organism: Text = "Homo sapiens"
    intended_use: Text
    limits: Annotated[list[Text], Field(min_length=1)]
    citations: Annotated[list[Citation], Field(min_length=1)]

    @model_validator(mode="after")
    def _named_or_chosen(self) -> Recipe:
        if self.choice is None:
            return self
        if self.choice.operators and "operator" in self.model_fields_set:
            raise ValueError("the operator is named in [operator] and open to choice in [choice]: drop one")
        if self.choice.n_components and "n_components" in self.adaptor.model_fields_set:
            raise ValueError("n_components is named in [adaptor] and open to choice in [choice]: drop one")
        alone = AdaptorRecipe(n_components=self.adaptor.n_components)
        if self.choice.adaptors and (self.adaptor != alone or "kind" in self.adaptor.model_fields_set):
            raise ValueError("the head is named in [adaptor] and open to choice in [choice]: drop one")
        if self.adaptor.kind in ON_CELLS:
            raise ValueError(f"candidates are scored by anchor heads, and the adaptor is {self.adaptor.kind!r}")
        return self

    @model_validator(mode="after")
    def _tasks_differ(self) -> Recipe:
        tasks = [readout.task for readout in self.readouts]
        if len(set(tasks)) != len(tasks):
            raise ValueError(f"readout tasks must differ, got {tasks}")
        if any(r.label == "depth" for r in self.readouts) and self.stage_task is None:
            raise ValueError("a readout of the depth is a mean over stages, so that stages must be read out too")
        return self

    @model_validator(mode="after")
    def _depth_needs_a_root(self) -> Recipe:
        depths = [readout.task for readout in self.readouts if readout.label == "depth"]
        if depths and isinstance(self.ruler, InteractionRecipe):
            raise ValueError(
                f"the readout {depths[0]!r} is of the depth, and a ruler of interactions has no root to count it from"
            )
        return self

    @property
    def stage_task(self) -> str | None:
        """Task that tells every stage from every other, if there is one."""
        return next((r.task for r in self.readouts if r.label == "stage" and r.classes is None), None)


def recipe_folder(recipe: str | Path) -> Path:
    """Folder of a recipe: a bundled one by name, or a folder that holds ``recipe.toml``.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    here = Path(__file__).parent
    folder = Path(recipe).expanduser() if "/" in str(recipe) else here / str(recipe).replace("-", "_")
    if not (folder / "recipe.toml").is_file():
        bundled = sorted(path.parent.name.replace("_", "-") for path in here.glob("*/recipe.toml"))
        raise NotFoundError(
            f"There is no recipe {str(recipe)!r}.",
            f"Bundled recipes: {', '.join(bundled)}; or name a folder with a recipe.toml as ./FOLDER.",
        )
    return folder


def table_folder(recipe: Recipe, folder: Path) -> Path:
    """Folder of labels and ruler: that of the recipe, or of its base."""
    return folder if recipe.base is None else recipe_folder(recipe.base)


def read_recipe(folder: Path) -> Recipe:
    """Read and validate ``recipe.toml``, on top of that of its base.

    Raises
    ------
    FormatError
        Naming the first field at fault.
    NotFoundError
        If there is no such base.
    """
    try:
        given = _read_toml(folder)
        base = given.get("base")
        if isinstance(base, str) and re.fullmatch(NAME_PATTERN, base):
            below = _read_toml(recipe_folder(base))
            if given.keys() & {"operator", "choice"}:
                # these two are one decision
                below = {key: value for key, value in below.items() if key not in ("operator", "choice")}
            # a whole table at a time, so that no option of another kind is left behind
            given = below | given
        return Recipe.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the recipe"
        raise FormatError(f"{folder / 'recipe.toml'} fails at {field!r}: {first['msg']}.") from error


def _read_toml(folder: Path) -> dict[str, Any]:
    """Read ``recipe.toml`` as it is."""
    try:
        return tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{folder / 'recipe.toml'} is not TOML: {error}.") from error
