"""Telling what family of models a folder holds, from small files alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

_FAMILIES = {"bert": "geneformer", "gpt2": "cell2sentence", "gpt_neox": "cell2sentence"}
_SCGPT_FILES = ("args.json", "best_model.pt")
_LARGEST_CONFIG = 1 << 20


def looks_like(folder: Path) -> str | None:
    """Say what kind of checkpoint a folder seems to hold, without opening its weights.

    Returns
    -------
    str or None
        ``"scgpt"`` where ``args.json`` or ``best_model.pt`` lies there; else, after ``model_type`` of ``config.json``,
        ``"geneformer"`` for ``bert`` and ``"cell2sentence"`` for ``gpt2`` and ``gpt_neox``; else that ``model_type``
        itself, which no reader here is for; ``None`` where nothing tells.
    """
    if any((folder / name).is_file() for name in _SCGPT_FILES):
        return "scgpt"
    model_type = _model_type(folder / "config.json")
    return None if model_type is None else _FAMILIES.get(model_type, model_type)


def _model_type(path: Path) -> str | None:
    """``model_type`` of a Hugging Face configuration, ``None`` where it cannot be had."""
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            return None
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    model_type = config.get("model_type") if isinstance(config, dict) else None
    return model_type if isinstance(model_type, str) else None


def names_look_like(names: Iterable[str]) -> str | None:
    """Say after their names what family weights belong to, as ``looks_like`` does; ``None`` where they do not tell."""
    starts = {"bert.": "geneformer", "gpt_neox.": "cell2sentence", "transformer.h.": "cell2sentence"}
    shown = list(names)
    return next((family for start, family in starts.items() if any(name.startswith(start) for name in shown)), None)
