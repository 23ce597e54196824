from __future__ import annotations

import copy
import pickle

import pytest

from manifoldzoo.cards import _errors as errors
from manifoldzoo.cards._errors import ZooError, ZooWarning

# exit statuses of the design: 1 a gate or check said no, 2 bad input or usage, 3 network, permission or not found
TREE = {
    "BadInputError": (ValueError, 2),
    "GeneError": (ValueError, 2),
    "LowCoverageError": (ValueError, 2),
    "ScaleError": (ValueError, 2),
    "ReferenceSyntaxError": (ValueError, 2),
    "FormatError": (ValueError, 2),
    "UnsafeFileError": (ValueError, 2),
    "FutureFormatError": (ValueError, 2),
    "CheckpointError": (ValueError, 2),
    "PanelError": (ValueError, 2),
    "PluginError": (ImportError, 2),
    "MissingExtraError": (ImportError, 2),
    "IntegrityError": (OSError, 1),
    "GateError": (RuntimeError, 1),
    "NotFoundError": (LookupError, 3),
    "VersionConflictError": (FileExistsError, 3),
    "StoreError": (OSError, 3),
    "PermissionDeniedError": (OSError, 3),
    "StaleParentError": (OSError, 3),
}


def test_the_tree_is_complete():
    defined = {name for name, item in vars(errors).items() if isinstance(item, type) and issubclass(item, ZooError)}
    assert defined == {*TREE, "ZooError"}


@pytest.mark.parametrize("name", TREE)
def test_each_error_is_a_builtin_with_an_exit_status(name):
    builtin, status = TREE[name]
    kind = getattr(errors, name)
    assert issubclass(kind, builtin)
    assert issubclass(kind, ZooError)
    assert kind.exit_code == status


@pytest.mark.parametrize("name", [*TREE, "ZooError"])
@pytest.mark.parametrize("duplicate", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy], ids=["pickle", "copy"])
def test_errors_survive_pickling_between_workers(name, duplicate):
    kind = getattr(errors, name)
    error = kind("What is 'x'?", "Try y.")
    again = duplicate(error)
    assert type(again) is kind
    assert (
        (again.message, again.hint, str(again))
        == ("What is 'x'?", "Try y.", "What is 'x'? Try y.")
        == (
            error.message,
            error.hint,
            str(error),
        )
    )


def test_fields_survive_pickling():
    low = pickle.loads(pickle.dumps(errors.LowCoverageError("m", coverage=0.25, floor=0.5)))
    assert (low.coverage, low.floor) == (0.25, 0.5)
    broken = pickle.loads(pickle.dumps(errors.IntegrityError("m", "h", files=("card.json",))))
    assert broken.files == ("card.json",)


@pytest.mark.parametrize("name", TREE)
def test_errors_need_no_arguments_and_no_hint(name):
    kind = getattr(errors, name)
    assert str(kind()) == ""
    assert str(kind("m")) == "m"


def test_refinements_are_caught_by_their_parents():
    assert issubclass(errors.LowCoverageError, errors.GeneError)
    assert issubclass(errors.UnsafeFileError, errors.FormatError)
    assert issubclass(errors.FutureFormatError, errors.FormatError)
    assert issubclass(errors.StaleParentError, errors.StoreError)
    assert not issubclass(errors.IntegrityError, errors.StoreError)


@pytest.mark.parametrize("name", ["CoverageWarning", "ScaleWarning", "IntegrityWarning"])
def test_warnings_are_user_warnings_of_ours(name):
    assert issubclass(getattr(errors, name), ZooWarning)
    assert issubclass(ZooWarning, UserWarning)
