"""The card: what an artifact is, from what it was made, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ._adaptor import Adaptor, AdaptorKind
from ._errors import FormatError
from ._evidence_plan import EvidencePlan
from ._frozen import Frozen, Scalar, Sha256
from ._names import NAME_PATTERN, VERSION_PATTERN
from ._programs import GeneProgram, ScoredLabels
from ._ruler_entry import Ruler
from ._text import Licence, Text

CARD_VERSION = 4


class SourceModel(Frozen):
    """The foundation model that the operator was read from."""

    name: Text
    architecture: Text
    digest: Sha256
    revision: str | None = None
    licence: Licence
    url: str | None = None
    note: str = ""


OperatorKind = Literal["attention_mean", "attention_value", "token_ov", "token_qk", "distilled", "expression"]
"""``expression`` is no operator of any model: features are the expression itself, for comparison."""
ForeignKind = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*:[a-z0-9]+(_[a-z0-9]+)*$")]
"""Kind of another package's extractor: its name, a colon, and a word."""
Combination = Literal["drift", "mean", "single", "top_k", "none"]
ControlKind = Literal["random-init", "shuffled-weights", "spectrum-matched", "permuted-genes"]


class Head(Frozen):
    """One attention head, indices from 0, with its weight in the operator."""

    layer: int = Field(ge=0)
    head: int = Field(ge=0)
    weight: float
    score: float | None = None
    """Held-out score of the screen that chose it; null where the recipe named the head."""


class Operator(Frozen):
    """Stage 1: which matrix was read, over which cells."""

    kind: OperatorKind | ForeignKind
    combination: Combination
    """How heads and layers were joined; ``none`` for kinds that have neither."""
    n_blocks: int = Field(ge=1)
    n_features: int | None = Field(default=None, ge=1)
    """Features of a block; null means one per gene."""
    numerical_rank: list[int]
    n_cells: int = Field(ge=0)
    """Cells it was read over; 0 for kinds that need none."""
    n_skipped_cells: int = Field(ge=0)
    cells_digest: Sha256 | None
    pairs_seen: float | None = Field(ge=0, le=1)
    """Fraction of gene pairs seen together in at least one cell; null for kinds that need no pairs."""
    n_truncated_cells: int = Field(default=0, ge=0)
    """Cells with more genes than the model reads, of which the highest were kept."""
    heads: list[Head] = Field(default_factory=list)
    """Heads of a ``single`` or ``top_k`` operator."""
    chosen_by: Literal["recipe", "screen of the panel"] | None = None
    """Who chose the heads; a screen of the panel has seen the anchors that the gates hold out."""
    parameters: dict[str, Scalar] = Field(default_factory=dict)
    """What else a kind records, such as the penalty and the held-out fit of ``distilled``."""


class Control(Frozen):
    """What was destroyed on purpose: a control shows what remains without it."""

    kind: ControlKind
    seed: int


class Candidate(Frozen):
    """An operator and a number of coordinates that were open to choice."""

    kind: OperatorKind
    combination: Combination
    layer: int | None = Field(default=None, ge=0)
    head: int | None = Field(default=None, ge=0)
    k: int | None = Field(default=None, ge=1)
    n_components: int = Field(ge=1)
    adaptor: AdaptorKind | None = None
    """Null where the kind of head was not open to choice."""
    n_neighbours: int | None = Field(default=None, ge=1)


class ChoiceRun(Frozen):
    """The rule, followed once on a part of the panel, or on all of it."""

    left_out: Text | None
    """Group that took no part; null for the choice that was made, on the whole panel."""
    scores: list[float | None]
    """Held-out score of each candidate on the rest; null where it has too few anchors."""
    chosen: int | None = Field(ge=0)
    """Place of the best one; null where none could be scored."""
    left_out_score: float | None = None
    """Score of the best one on the group left out, of which the rule saw nothing."""


class Choice(Frozen):
    """What was chosen on the panel by a nested rule, and what the rule is worth where it saw nothing.

    Scores are Spearman correlations of latent angle and ruler distance over the pairs that touch held-out anchors.
    """

    candidates: Annotated[list[Candidate], Field(min_length=1)]
    scored_by: Literal["donor"] = "donor"
    """What is held out in turn to score a candidate."""
    left_out_by: Literal["study", "donor"]
    n_starts: int = Field(ge=1)
    made: ChoiceRun
    runs: list[ChoiceRun]
    """The same rule without each group."""
    left_out_score: float | None
    """Mean over the groups left out: the score that no choice has touched."""

    @model_validator(mode="after")
    def _runs_are_of_the_candidates(self) -> Choice:
        n = len(self.candidates)
        for run in (self.made, *self.runs):
            if len(run.scores) != n or (run.chosen is not None and run.chosen >= n):
                raise ValueError(f"a run of the choice does not have the {n} candidates")
        if self.made.chosen is None:
            raise ValueError("the choice that was made names no candidate")
        return self


class Readout(Frozen):
    """Stage 3: one task on the latent coordinates."""

    task: Annotated[str, Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")]
    kind: Literal["linear", "mlp", "expected"]
    """``linear`` and ``mlp`` (one hidden layer, ReLU) give probabilities of classes, ``expected`` the mean of a number
    over the classes of another task."""
    classes: list[Text]
    of: Text | None = None
    """The other task of ``expected``."""
    n_hidden: int | None = Field(default=None, ge=1)
    stages: list[Text] = Field(default_factory=list)
    """Stages that the task is about; empty means all. Cells of others are left without a class."""
    n_cells: int = Field(ge=1)
    parameters: dict[str, Scalar]

    @model_validator(mode="after")
    def _parts_fit_the_kind(self) -> Readout:
        if (self.kind == "expected") != (not self.classes) or len(self.classes) == 1:
            raise ValueError(f"a readout of kind {self.kind!r} has {len(self.classes)} classes")
        if (self.kind == "expected") != (self.of is not None):
            raise ValueError(f"of is for kind 'expected', got {self.of!r} for {self.kind!r}")
        if (self.kind == "mlp") != (self.n_hidden is not None):
            raise ValueError(f"n_hidden is for kind 'mlp', got {self.n_hidden} for {self.kind!r}")
        return self


class Familiarity(Frozen):
    """From where on a cell counts as unlike the panel; see ``manifoldzoo.manifolds._familiarity`` for the scores."""

    threshold: float
    """Of the cosine of expression, which cell types and platforms unlike the panel's both lower."""
    scaled_threshold: float
    """Of the cosine of standardised expression, on which the platform weighs less."""
    quantile: float = Field(gt=0, lt=1)
    """Part of the cells of a left-out group that lies below; the thresholds are the means over groups."""
    held_out_by: Literal["study", "donor"]
    groups: dict[str, float]
    """The quantile of the first score in each left-out group."""


class Extraction(Frozen):
    """The extractor, its settings and the software it ran with."""

    extractor: Text
    recipe: Text
    seed: int
    operator: Operator
    control: Control | None = None
    choice: Choice | None = None
    """Null where the recipe names operator and number of coordinates."""
    adaptor: Adaptor
    readouts: list[Readout]
    familiarity: Familiarity | None = None
    """Null where the panel has a single group of cells, so that none can be left out."""
    software: dict[str, str]


class PanelFileEntry(Frozen):
    """One file the panel was built from."""

    name: Text
    sha256: Sha256
    n_cells: int = Field(ge=0)
    cells_digest: Sha256
    n_missing_genes: int = Field(ge=0)
    source: str = ""


class AnchorEntry(Frozen):
    """One anchor: the centroid of cells sharing study, donor, tissue and cell type."""

    study: Text
    donor: Text
    tissue: Text
    cell_type: Text
    stage: Text
    branch: Text
    n_cells: int = Field(ge=1)


class PanelManifest(Frozen):
    """The extraction panel; its anchor centroids travel in ``manifold.safetensors``."""

    digest: Sha256
    min_cells: int = Field(ge=1)
    files: Annotated[list[PanelFileEntry], Field(min_length=1)]
    anchors: Annotated[list[AnchorEntry], Field(min_length=3)]


class BesidePanel(Frozen):
    """A panel that nothing was fitted to; its anchors travel as ``panel.<name>.anchors``."""

    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
    role: Literal["external", "zero-shot", "negative"]
    """``external`` and ``zero-shot`` are placed by the head as it is; a ``negative`` one must fail the gates."""
    n_shared_cells: int = Field(ge=0)
    """With the extraction panel, by id."""
    n_shared_donors: int = Field(ge=0)
    specification: Sha256
    """Digest of what was asked for."""
    manifest: PanelManifest


class Untrained(Frozen):
    """A model without training that the anchors were read by, to compare with.

    Their coordinates travel as ``comparator.<control>.<seed>``.
    """

    control: ControlKind
    seed: int
    digest: Sha256
    """Of the model."""


class Tolerance(Frozen):
    """How far a reproduced test vector may lie from the shipped one."""

    rtol: float = Field(gt=0, le=1e-2)
    atol: float = Field(gt=0, le=1e-2)


class GeneAnnotation(Frozen):
    """The gene axis, in ``genes.tsv``."""

    n: int = Field(ge=1)
    n_ensembl: int = Field(ge=0)
    organism: Text
    source: Text
    coverage_floor: float = Field(ge=0, le=1)


class Citation(Frozen):
    """One work to cite."""

    key: Text
    text: Text
    doi: str | None = None
    url: str | None = None


class Card(Frozen):
    """Everything a reader must know of an artifact; immutable and part of its identity.

    The evidence is kept beside it, bound to the artifact digest, because it may grow.
    """

    card_version: Literal[4] = 4
    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
    version: Annotated[str, Field(pattern=VERSION_PATTERN)]
    title: Text
    description: Text
    scale: Literal["log1p_cp10k"]
    licence: Licence
    source_model: SourceModel
    extraction: Extraction
    panel: PanelManifest
    panels: list[BesidePanel] = Field(default_factory=list)
    """Panels beside the extraction panel."""
    untrained: list[Untrained] = Field(default_factory=list)
    """Models without training that the last rung compares with."""
    evidence: EvidencePlan | None = None
    """What the recipe fixed of the evidence; null is the standard."""
    programs: list[GeneProgram] = Field(default_factory=list)
    """What the axes are described by."""
    scored_labels: ScoredLabels | None = None
    """How cells were given their stages, where no table of their cell types does."""
    ruler: Ruler
    genes: GeneAnnotation
    test_vectors: Tolerance
    citations: Annotated[list[Citation], Field(min_length=1)]
    parent: str | None = None
    """Reference of the artifact that this one was derived from."""
    intended_use: Text
    limits: Annotated[list[Text], Field(min_length=1)]

    @model_validator(mode="after")
    def _stages_are_known(self) -> Card:
        known = {stage.id for stage in self.ruler.stages}
        programs = [program.name for program in self.programs]
        if len(set(programs)) != len(programs):
            raise ValueError(f"program names must differ, got {programs}")
        manifests = [self.panel, *(panel.manifest for panel in self.panels)]
        strangers = sorted({anchor.stage for manifest in manifests for anchor in manifest.anchors} - known)
        if strangers:
            raise ValueError(f"panel stages {strangers} are not stages of the ruler {self.ruler.name!r}")
        beside = [panel.name for panel in self.panels]
        if len(set(beside)) != len(beside):
            raise ValueError(f"panel names must differ, got {beside}")
        tasks = [readout.task for readout in self.extraction.readouts]
        classed = {readout.task for readout in self.extraction.readouts if readout.classes}
        unknown = [told.of for told in self.extraction.readouts if told.of is not None and told.of not in classed]
        if unknown:
            raise ValueError(f"there is no readout of classes {unknown[0]!r} to take the mean over")
        if len(set(tasks)) != len(tasks):
            raise ValueError(f"readout tasks must differ, got {tasks}")
        return self


def parse_card(document: Any, *, where: str = "card.json") -> Card:
    """Validate a card document.

    Raises
    ------
    FormatError
        If it does not follow the schema; the message names the first offending field.
    """
    try:
        return Card.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the card"
        raise FormatError(
            f"{where} fails the card schema at {field!r}: {first['msg']} ({error.error_count()} problems in all).",
            "`manifoldzoo info NAME --json` shows a valid card.",
        ) from error
