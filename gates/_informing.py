"""Records that describe and decide nothing: their names, which reports look for."""

from __future__ import annotations

CLASS_SEPARATION, PROGRAM_LOADINGS = "class_separation", "program_loadings"
"""Of rung 3: what the axes of the head stand for."""
PAIRED_NULL = "paired_null"
"""Of rung 4: a ruler beside its own null rulers."""
TRANSFER_GEOMETRY = "transfer_geometry"
"""Of rung 5, after the prefix of each panel."""
Q_SHOWN = 0.05
"""From where on an enrichment is counted and starred; nothing is decided by it."""
