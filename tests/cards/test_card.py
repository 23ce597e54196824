from __future__ import annotations

import copy
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pydantic
import pytest
from tiny import tiny_document

import manifoldzoo.cards
from manifoldzoo.cards.__main__ import SCHEMAS, render_schema
from manifoldzoo.cards._card import Card, parse_card
from manifoldzoo.cards._errors import FormatError
from manifoldzoo.cards._evidence import EvidenceRun, conclude, judge, undecided

# pydantic words the schema differently from one minor version to the next; committed files are those of this one
PYDANTIC = "2.14"
ROOM = Path(manifoldzoo.cards.__file__).parent


def put(document, path, value):
    """Copy of a document with one field set, or removed where the value is ``...``."""
    document = copy.deepcopy(document)
    at = document
    *parents, last = path.split(".")
    for part in parents:
        at = at[int(part) if part.isdigit() else part]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return document


def committed(name):
    return json.loads((ROOM / name).read_text(encoding="utf-8"))


def test_a_card_survives_json():
    card = parse_card(tiny_document())
    assert parse_card(json.loads(card.model_dump_json())) == card


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("nickname", "t"),
        ("extraction.operator.trick", 1),
        ("panel.anchors.0.weight", 1.0),
        ("card_version", 5),
        ("card_version", 3),
        ("card_version", "4"),
        ("card_version", 1.5),
        ("name", "Tiny"),
        ("name", "a/b"),
        ("name", "a" * 65),
        ("version", "1.0"),
        ("version", "01.0.0"),
        ("version", "1٣.0.0"),
        ("scale", "counts"),
        ("licence", "free"),
        ("source_model.licence", "BSD3"),
        ("ruler.licence", ""),
        ("source_model.digest", "A" * 64),
        ("source_model.digest", "0" * 63),
        ("panel.digest", "0" * 64 + "\n"),
        ("genes.coverage_floor", 1.5),
        ("genes.coverage_floor", float("nan")),
        ("extraction.adaptor.parameters", {"alpha": float("inf")}),
        ("test_vectors.atol", 0.0),
        ("test_vectors.rtol", 1.0),
        ("citations", []),
        ("limits", []),
        ("limits", ...),
        ("panel.files", []),
        ("extraction.readouts.0.classes", "one"),
        ("extraction.readouts.0.task", "a-b"),
        ("extraction.operator.pairs_seen", 1.1),
        ("title", ""),
    ],
)
def test_a_field_at_fault_is_refused_by_its_name(path, value):
    with pytest.raises(FormatError) as caught:
        parse_card(put(tiny_document(), path, value), where="x/card.json")
    assert path in caught.value.message
    assert "x/card.json" in caught.value.message


@pytest.mark.parametrize("document", [None, [], "card", 1, {}])
def test_what_is_no_card_is_refused(document):
    with pytest.raises(FormatError):
        parse_card(document)


def test_a_stage_that_the_ruler_lacks_is_refused():
    with pytest.raises(FormatError, match="left_9"):
        parse_card(put(tiny_document(), "panel.anchors.3.stage", "left_9"))


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["one"]},
        {"classes": []},
        {"kind": "expected"},
        {"of": "stage"},
        {"kind": "expected", "classes": []},
        {"kind": "mlp"},
        {"n_hidden": 4},
        {"kind": "expected", "classes": [], "of": "stage", "n_hidden": 4},
    ],
)
def test_a_readout_whose_parts_do_not_fit_its_kind_is_refused(changes):
    document = tiny_document()
    document["extraction"]["readouts"][0] |= changes
    with pytest.raises(FormatError, match=r"readouts\.0"):
        parse_card(document)


CONVERGENCE = {
    "terms": {"stage": 0.3, "cls": 1.2},
    "n_epochs": 20,
    "best_epoch": 10,
    "stopped_early": True,
    "change": 0.001,
    "converged": True,
    "n_train_cells": 100,
    "n_validation_cells": 20,
    "validation_by": "donor",
    "validation_loss": 0.9,
}


@pytest.mark.parametrize("kind", ["let-cell", "let-hybrid"])
def test_a_head_fitted_on_cells_tells_how_that_went(kind):
    document = put(tiny_document(), "extraction.adaptor.kind", kind)
    card = parse_card(put(document, "extraction.adaptor.convergence", CONVERGENCE))
    assert parse_card(json.loads(card.model_dump_json())) == card
    with pytest.raises(FormatError, match="convergence"):
        parse_card(document)
    with pytest.raises(FormatError, match="convergence"):
        parse_card(put(tiny_document(), "extraction.adaptor.convergence", CONVERGENCE))


@pytest.mark.parametrize(
    "changes",
    [
        {"best_epoch": 21},
        {"best_epoch": 0},
        {"n_validation_cells": 0},
        {"validation_by": None},
        {"validation_loss": None},
        {"validation_by": "study"},
        {"terms": {"stage": float("nan")}},
    ],
)
def test_a_convergence_that_contradicts_itself_is_refused(changes):
    document = put(tiny_document(), "extraction.adaptor.kind", "let-cell")
    with pytest.raises(FormatError, match="adaptor"):
        parse_card(put(document, "extraction.adaptor.convergence", CONVERGENCE | changes))


def test_a_mean_over_a_task_that_is_not_there_is_refused():
    document = tiny_document()
    mean = {"task": "depth", "kind": "expected", "classes": [], "of": "stage", "n_cells": 1, "parameters": {}}
    document["extraction"]["readouts"].append(mean)
    with pytest.raises(FormatError, match="'stage'"):
        parse_card(document)
    document["extraction"]["readouts"][1]["of"] = "branch"
    assert parse_card(document).extraction.readouts[1].of == "branch"


def test_two_readouts_of_one_task_are_refused():
    document = tiny_document()
    document["extraction"]["readouts"] *= 2
    with pytest.raises(FormatError, match="branch"):
        parse_card(document)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("bsd-3-clause", "BSD-3-Clause"), ("mit or apache-2.0", "MIT OR Apache-2.0"), ("CC0-1.0", "CC0-1.0")],
)
def test_licences_are_kept_in_spdx_spelling(given, kept):
    assert parse_card(tiny_document(licence=given)).licence == kept


def test_a_card_cannot_be_changed_in_place():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        parse_card(tiny_document()).title = "Other"


@pytest.mark.parametrize("name", SCHEMAS)
def test_committed_schemas_are_those_of_the_models(name):
    if ".".join(pydantic.VERSION.split(".")[:2]) != PYDANTIC:
        pytest.skip(f"schemas are compared under pydantic {PYDANTIC} only, this is {pydantic.VERSION}")
    assert (ROOM / name).read_text(encoding="utf-8") == render_schema(SCHEMAS[name])


def test_the_exporter_writes_every_schema(tmp_path):
    subprocess.run([sys.executable, "-m", "manifoldzoo.cards", str(tmp_path)], check=True, capture_output=True)
    assert {path.name for path in tmp_path.glob("*.json")} == set(SCHEMAS)
    for name, model in SCHEMAS.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == render_schema(model)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_schemas(name):
    jsonschema.Draft202012Validator.check_schema(committed(name))


def test_the_schema_agrees_with_the_model_on_cards():
    validator = jsonschema.Draft202012Validator(committed("card.schema.json"))
    document = json.loads(parse_card(tiny_document()).model_dump_json())
    validator.validate(document)
    for path, value in [("nickname", "t"), ("card_version", 5), ("name", "A"), ("limits", []), ("limits", ...)]:
        assert not validator.is_valid(put(document, path, value)), path


def test_the_schema_agrees_with_the_model_on_evidence():
    validator = jsonschema.Draft202012Validator(committed("evidence.schema.json"))
    run = EvidenceRun(
        artifact_digest="a" * 64,
        reference="tiny@0.1.0",
        started=datetime(2026, 1, 2, tzinfo=UTC),
        seconds=1.0,
        software={"python": "3"},
        rungs=[conclude(1, [judge("g", 0.9, ">=", 0.8, n=3, details={"x": True})]), conclude(2, [undecided("h", "r")])],
    )
    document = json.loads(run.model_dump_json())
    validator.validate(document)
    for path, value in [("verdict", 1), ("rungs.0.rung", 7), ("rungs.0.status", "ok"), ("artifact_digest", "a")]:
        assert not validator.is_valid(put(document, path, value)), path


def test_every_field_of_the_schema_is_closed():
    for name in SCHEMAS:
        schema = committed(name)
        for part in (schema, *schema["$defs"].values()):
            assert part.get("additionalProperties") is False or "properties" not in part


def test_the_model_is_exported():
    assert manifoldzoo.cards.Card is Card
