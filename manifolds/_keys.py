"""Where the results of a transform lie in an AnnData object."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..cards._errors import BadInputError


@dataclass(frozen=True)
class Keys:
    """AnnData keys of one manifold.

    Attributes
    ----------
    obsm
        Latent coordinates, ``X_<name>``.
    uns
        Provenance, ``<name>``.
    obs
        Predicted class of a task, ``<name>_<task>`` (empty without a task).
    obsm_proba
        Class probabilities of a task, ``<name>_<task>_proba`` (empty without a task).
    """

    obsm: str
    uns: str
    obs: str = ""
    obsm_proba: str = ""


def keys_for(name: str, task: str | None = None) -> Keys:
    """Return the AnnData keys for a manifold or ``key_added``; hyphens become underscores.

    Raises
    ------
    BadInputError
        If the name holds anything but letters, digits, hyphens and underscores: ``/`` would nest or break
        the key in an ``.h5ad`` file.

    Examples
    --------
    >>> keys_for("cell-cycle", "phase").obsm_proba
    'cell_cycle_phase_proba'
    """
    stem = name.replace("-", "_")
    if not re.fullmatch(r"[A-Za-z0-9_]+", stem):
        raise BadInputError(f"{name!r} cannot be an AnnData key: expected letters, digits, '-' and '_'.")
    if task is None:
        return Keys(obsm=f"X_{stem}", uns=stem)
    return Keys(obsm=f"X_{stem}", uns=stem, obs=f"{stem}_{task}", obsm_proba=f"{stem}_{task}_proba")
