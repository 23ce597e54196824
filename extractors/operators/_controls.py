"""Controls of the operator, as a job asks for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...cards._card import Control
from ...gates.controls._control_operators import gene_permuted, spectrum_matched

Float32 = NDArray[np.float32]


def apply_control(operator: Float32, control: Control | None) -> Float32:
    """Destroy an operator as a control says.

    Parameters
    ----------
    operator
        ``(k, n_genes, n_features)``.
    control
        ``spectrum-matched`` and ``permuted-genes`` change the operator; ``None`` and the controls of the model, which
        were applied before the operator was read, leave it as it is.

    Returns
    -------
    Float32 of the same shape.
    """
    if control is not None and control.kind == "spectrum-matched":
        return spectrum_matched(operator, seed=control.seed)
    if control is not None and control.kind == "permuted-genes":
        return gene_permuted(operator, seed=control.seed)
    return operator
