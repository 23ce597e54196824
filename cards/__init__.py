"""What is claimed: names, versions, digests, cards, evidence and the error tree."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._card import Card as Card
    from ._card import Control as Control
    from ._card import Operator as Operator
    from ._card import parse_card as parse_card
    from ._errors import BadInputError as BadInputError
    from ._errors import CheckpointError as CheckpointError
    from ._errors import CoverageWarning as CoverageWarning
    from ._errors import FormatError as FormatError
    from ._errors import FutureFormatError as FutureFormatError
    from ._errors import GateError as GateError
    from ._errors import GeneError as GeneError
    from ._errors import IntegrityError as IntegrityError
    from ._errors import IntegrityWarning as IntegrityWarning
    from ._errors import LowCoverageError as LowCoverageError
    from ._errors import MissingExtraError as MissingExtraError
    from ._errors import NotFoundError as NotFoundError
    from ._errors import PanelError as PanelError
    from ._errors import PermissionDeniedError as PermissionDeniedError
    from ._errors import PluginError as PluginError
    from ._errors import ReferenceSyntaxError as ReferenceSyntaxError
    from ._errors import ScaleError as ScaleError
    from ._errors import ScaleWarning as ScaleWarning
    from ._errors import StaleParentError as StaleParentError
    from ._errors import StoreError as StoreError
    from ._errors import UnsafeFileError as UnsafeFileError
    from ._errors import VersionConflictError as VersionConflictError
    from ._errors import ZooError as ZooError
    from ._errors import ZooWarning as ZooWarning
    from ._evidence import RUNG_NAMES as RUNG_NAMES
    from ._evidence import EvidenceRun as EvidenceRun
    from ._evidence import NullSummary as NullSummary
    from ._evidence import Record as Record
    from ._evidence import RegisteredTest as RegisteredTest
    from ._evidence import RungResult as RungResult
    from ._evidence import Status as Status
    from ._evidence import conclude as conclude
    from ._evidence import judge as judge
    from ._evidence import rung_reached as rung_reached
    from ._evidence_plan import EvidencePlan as EvidencePlan
    from ._readme import render_readme as render_readme

# card.json of a bundled artifact is read in the first tenth of a second; rendering and evidence are not needed for it
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_card": ["Card", "Control", "Operator", "parse_card"],
        "_errors": [
            "BadInputError",
            "CheckpointError",
            "CoverageWarning",
            "FormatError",
            "FutureFormatError",
            "GateError",
            "GeneError",
            "IntegrityError",
            "IntegrityWarning",
            "LowCoverageError",
            "MissingExtraError",
            "NotFoundError",
            "PanelError",
            "PermissionDeniedError",
            "PluginError",
            "ReferenceSyntaxError",
            "ScaleError",
            "ScaleWarning",
            "StaleParentError",
            "StoreError",
            "UnsafeFileError",
            "VersionConflictError",
            "ZooError",
            "ZooWarning",
        ],
        "_evidence": [
            "RUNG_NAMES",
            "EvidenceRun",
            "NullSummary",
            "Record",
            "RegisteredTest",
            "RungResult",
            "Status",
            "conclude",
            "judge",
            "rung_reached",
        ],
        "_evidence_plan": ["EvidencePlan"],
        "_readme": ["render_readme"],
    },
)
