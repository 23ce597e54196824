"""Axes as a file."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from .._files import write_bytes

_COLOURS = 128

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def save_axes(ax: Axes, path: Path, *, dpi: float = 110) -> Path:
    """Write the figure of some Axes as PNG, whole or not at all, and close it.

    Parameters
    ----------
    ax
        Any Axes of the figure.
    path
        The file; its folder is made if it is not there.
    dpi
        Dots per inch.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    from matplotlib import pyplot
    from PIL import Image

    figure, content, small = ax.figure.figure, BytesIO(), BytesIO()
    # without the version of matplotlib, so that equal figures are equal files
    figure.savefig(content, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
    # figures travel with artifacts: a palette takes a third of the bytes. The median cut gives one hue to two classes
    drawn, method = Image.open(content).convert("RGB"), Image.Quantize.MAXCOVERAGE
    drawn.quantize(_COLOURS, method=method, kmeans=3, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    write_bytes(path, small.getvalue())
    return path
