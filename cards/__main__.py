"""Write the JSON Schemas of cards and evidence: ``python -m manifoldzoo.cards [FOLDER]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from ._card import Card
from ._evidence import EvidenceRun

SCHEMAS: dict[str, type[BaseModel]] = {"card.schema.json": Card, "evidence.schema.json": EvidenceRun}


def render_schema(model: type[BaseModel]) -> str:
    """Render the JSON Schema of a model, keys sorted."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> None:
    """Write both schemas to ``folder``."""
    for name, model in SCHEMAS.items():
        (folder / name).write_text(render_schema(model), encoding="utf-8")


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
