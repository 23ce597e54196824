"""Recipes: what differs from one manifold to the next, as data."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..cards._card import Citation, Combination, Licence, OperatorKind, Text
from ..cards._errors import FormatError, NotFoundError
from ..cards._frozen import Frozen
from ..cards._names import NAME_PATTERN, VERSION_PATTERN
from ._let import LetSettings

HEADLESS = ("distilled", "expression")
"""Kinds of operator that are not read head by head."""


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
    """Stage 2; see ``LetSettings`` for the meaning of each."""

    kind: Literal["let-anchor"] = "let-anchor"
    n_components: int = Field(default=10, ge=1)
    alpha: float = Field(default=0.01, ge=0)
    n_steps: int = Field(default=150, ge=1)
    learning_rate: float = Field(default=0.02, gt=0)

    def settings(self) -> LetSettings:
        """The same as settings of a fit."""
        return LetSettings(**self.model_dump(exclude={"kind"}))


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
    version: Annotated[str, Field(pattern=VERSION_PATTERN)]
    title: Text
    description: Text
    licence: Licence
    ruler_licence: Licence
    extractor: Text
    ruler: Text | None = None
    """Ruler that an installed package offers; null reads ``stages.tsv`` and ``edges.tsv`` beside the recipe."""
    seed: int = 0
    panel: PanelRecipe = PanelRecipe()
    operator: OperatorRecipe = OperatorRecipe()
    adaptor: AdaptorRecipe = AdaptorRecipe()
    readouts: list[ReadoutRecipe]
    coverage_floor: float = Field(ge=0, le=1)
    organism: Text = "Homo sapiens"
    intended_use: Text
    limits: Annotated[list[Text], Field(min_length=1)]
    citations: Annotated[list[Citation], Field(min_length=1)]

    @model_validator(mode="after")
    def _tasks_differ(self) -> Recipe:
        tasks = [readout.task for readout in self.readouts]
        if len(set(tasks)) != len(tasks):
            raise ValueError(f"readout tasks must differ, got {tasks}")
        if any(r.label == "depth" for r in self.readouts) and self.stage_task is None:
            raise ValueError("a readout of the depth is a mean over stages, so that stages must be read out too")
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
    folder = Path(recipe).expanduser() if "/" in str(recipe) else here / str(recipe)
    if not (folder / "recipe.toml").is_file():
        bundled = sorted(path.parent.name for path in here.glob("*/recipe.toml"))
        raise NotFoundError(
            f"There is no recipe {str(recipe)!r}.",
            f"Bundled recipes: {', '.join(bundled)}; or name a folder with a recipe.toml as ./FOLDER.",
        )
    return folder


def read_recipe(folder: Path) -> Recipe:
    """Read and validate ``recipe.toml``.

    Raises
    ------
    FormatError
        Naming the first field at fault.
    """
    try:
        return Recipe.model_validate(tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{folder / 'recipe.toml'} is not TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the recipe"
        raise FormatError(f"{folder / 'recipe.toml'} fails at {field!r}: {first['msg']}.") from error
