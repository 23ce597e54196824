"""Stage 2 on cells: the cell head and the hybrid head."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._fit import CellFit as CellFit
    from ._fit import fit_cells as fit_cells
    from ._report import FitReport as FitReport
    from ._settings import HYBRID as HYBRID
    from ._settings import CellSettings as CellSettings

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_fit": ["CellFit", "fit_cells"],
        "_report": ["FitReport"],
        "_settings": ["HYBRID", "CellSettings"],
    },
)
