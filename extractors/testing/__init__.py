"""Whether a third party's checkpoint, reader, extractor or ruler behaves: for use in its own tests.

Each ``check_*`` runs all checks of one kind and raises at the first that fails; each ``*_checks`` yields them one by
one, so that pytest can run each as a test of its own::

    @pytest.mark.parametrize("check", [pytest.param(check, id=name) for name, check in ruler_checks()])
    def test_my_ruler(check):
        check(my_ruler())
"""

from ._checkpoint import check_checkpoint, checkpoint_checks
from ._conformance import ConformanceError
from ._extractor import check_extractor, extractor_checks
from ._reader import check_reader, reader_checks
from ._ruler import check_ruler, ruler_checks

__all__ = [
    "ConformanceError",
    "check_checkpoint",
    "check_extractor",
    "check_reader",
    "check_ruler",
    "checkpoint_checks",
    "extractor_checks",
    "reader_checks",
    "ruler_checks",
]
