"""What a geodesic head is fitted with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..cards._adaptor import Adaptor
from ..cards._errors import BadInputError, FormatError

GeodesicKind = Literal["isomap", "geodesic-mds"]

PLACING_STEPS = 20
"""Of a new point under ``geodesic-mds``, after which its stress is within a hundredth of the least; our choice."""


@dataclass(frozen=True)
class GeodesicSettings:
    """Hold the parameters of a geodesic head.

    Parameters
    ----------
    kind
        ``isomap``: classical MDS of the path lengths; ``geodesic-mds``: metric MDS of them.
    n_components
        Latent dimensions ``d``.
    n_neighbours
        Of the graph; 10, 15 and 20 were published for the communication ruler.
    scale_floor
        Floor of the per-feature scale, as that of ``LetSettings``.
    placing_steps
        Of a new point under ``geodesic-mds``; ``isomap`` takes none.

    Raises
    ------
    BadInputError
        If a value is outside its range.

    Notes
    -----
    Nothing is drawn by chance: metric MDS starts from classical MDS.
    """

    kind: GeodesicKind = "isomap"
    n_components: int = 10
    n_neighbours: int = 10
    scale_floor: float = 0.1
    placing_steps: int = PLACING_STEPS

    def __post_init__(self) -> None:
        if self.kind not in get_args(GeodesicKind):
            raise BadInputError(f"kind is {self.kind!r}, expected one of {', '.join(get_args(GeodesicKind))}.")
        for name in ("n_components", "n_neighbours"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} is {getattr(self, name)}, expected at least 1.")
        if self.placing_steps < 0:
            raise BadInputError(f"placing_steps is {self.placing_steps}, expected at least 0.")
        if not np.isfinite(self.scale_floor) or self.scale_floor <= 0:
            raise BadInputError(f"scale_floor is {self.scale_floor}, expected a finite positive number.")

    @property
    def steps(self) -> int:
        """Steps that a new point takes from where landmark MDS places it."""
        return self.placing_steps if self.kind == "geodesic-mds" else 0

    def parameters(self) -> dict[str, int | float]:
        """What the card says of them beside kind and number of coordinates."""
        told: dict[str, int | float] = {"n_neighbours": self.n_neighbours, "scale_floor": self.scale_floor}
        return told | ({"placing_steps": self.placing_steps} if self.kind == "geodesic-mds" else {})

    @classmethod
    def of(cls, adaptor: Adaptor) -> GeodesicSettings:
        """Read the settings of a head from its entry of the card.

        Raises
        ------
        FormatError
            If it lacks one, or one is no number.
        BadInputError
            If the head is of another kind, or a value is outside its range.
        """
        kinds: dict[str, GeodesicKind] = {kind: kind for kind in get_args(GeodesicKind)}
        if adaptor.kind not in kinds:
            raise BadInputError(f"The head is {adaptor.kind}, expected one of {', '.join(kinds)}.")
        kind = kinds[adaptor.kind]

        def number(name: str, *, whole: bool) -> Any:
            value = adaptor.parameters.get(name)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise FormatError(f"The card gives the head {kind} the {name} {value!r}, expected a number.")
            return value

        return cls(
            kind=kind,
            n_components=adaptor.n_components,
            n_neighbours=number("n_neighbours", whole=True),
            scale_floor=float(number("scale_floor", whole=False)),
            placing_steps=number("placing_steps", whole=True) if kind == "geodesic-mds" else PLACING_STEPS,
        )
