"""Publishing: evidence first, then one atomic step."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..cards._errors import BadInputError, GateError, IntegrityWarning, ReferenceSyntaxError, VersionConflictError
from ..cards._evidence import PUBLISH_RUNG, EvidenceRun, rung_reached
from ..gates._ladder import validate
from ..manifolds._format import list_artifact
from ..manifolds._manifold import Manifold
from ._evidence_files import add_evidence, contradicted_evidence, read_evidence, write_readme
from ._folders import bundled_store, local_store
from ._reference import HubReference, parse_reference

_EXAMPLES = 3


@dataclass(frozen=True)
class Publication:
    """What was published where.

    Attributes
    ----------
    reference
        Loads it again.
    location
        Folder, or Hub repository.
    commit
        Hub commit, else empty.
    digest
        Artifact digest.
    evidence
        The validation run that allowed it.
    """

    reference: str
    location: str
    commit: str
    digest: str
    evidence: EvidenceRun


def publish(
    folder: str | Path,
    to: str,
    *,
    allow_below: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Publication:
    """Validate an artifact through rung 3 and publish it with that evidence.

    The evidence is computed here and now, up to the highest rung that a run beside the artifact claims to have passed,
    and at least to rung 3: none of them is trusted. They are carried along as far as they say what was computed.
    On the Hub all files go up in one commit on top of the head seen at the start, and the version is tagged.

    Parameters
    ----------
    folder
        The artifact.
    to
        ``"local"``, or ``owner/repo`` or ``hf://owner/repo``.
    allow_below
        Reason to publish although a rung below 4 does not pass; it is recorded for good.
    progress
        Called as ``progress(gate, done, total)``.

    Returns
    -------
    Where it is.

    Raises
    ------
    GateError
        If a rung up to 3 does not pass.
    VersionConflictError
        If the version exists there already, or the repository holds a manifold of another name.
    BadInputError
        If the reason is empty, or the repository holds something else.
    StaleParentError
        If somebody else committed meanwhile.
    PermissionDeniedError, StoreError
        If the store refuses.
    IntegrityError, FormatError, UnsafeFileError
        If the folder is not a sound artifact.
    """
    if allow_below is not None and not allow_below.strip():
        raise BadInputError("The reason to publish below rung 3 is empty.", 'Write --allow-below "REASON".')
    source = Path(folder)
    target = None if to == "local" else parse_reference(to)
    if target is not None and (not isinstance(target, HubReference) or target.revision):
        raise ReferenceSyntaxError(f"{to!r} is not a place to publish to.", "Write 'local' or hf://OWNER/REPO.")
    manifold = Manifold.read(source)
    head = _check_new(manifold, target)
    run = validate(manifold, through=max(PUBLISH_RUNG, _claimed(source, manifold.digest)), progress=progress)
    if rung_reached(run.rungs) < PUBLISH_RUNG:
        if allow_below is None:
            reasons = "; ".join(f"rung {r.rung} {r.status}: {r.reason}" for r in run.rungs if r.status != "pass")
            raise GateError(
                f"{manifold.name}@{manifold.version} is not published: {reasons}.",
                'Publish a negative result on purpose with --allow-below "REASON".',
            )
        run = run.model_copy(update={"allowed_below": allow_below})
    with tempfile.TemporaryDirectory(prefix="manifoldzoo-") as staging:
        staged = Path(staging) / "artifact"
        staged.mkdir()
        for name in list_artifact(source):
            (staged / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, staged / name)
        _drop_contradicted(staged, run)
        add_evidence(staged, run)
        write_readme(staged, manifold)
        # what is staged is what goes out: a file changed while the gates ran must not slip through
        if Manifold.read(staged).digest != manifold.digest:
            raise GateError(f"{source} changed while it was being validated.", "Publish again.")
        if target is None:
            location = local_store().put(staged, manifold.name, manifold.version)
            reference = f"{manifold.name}@{manifold.version}"
            return Publication(reference, str(location), "", manifold.digest, run)
        from ._hub_write import commit_folder

        commit = commit_folder(target.repo_id, staged, manifold, head)
    return Publication(f"{target.repo_id}@{manifold.version}", target.repo_id, commit, manifold.digest, run)


def _check_new(manifold: Manifold, target: HubReference | None) -> str | None:
    """Refuse a version that exists, before the gates are run; returns the head of the repository."""
    if target is not None:
        from ._hub_write import check_repository

        return check_repository(target.repo_id, manifold)
    for store in (bundled_store(), local_store()):
        for (name, version), folder in store.entries().items():
            if (name, str(version)) == (manifold.name, manifold.version):
                raise VersionConflictError(
                    f"{name}@{version} exists already in {folder}; versions are immutable.",
                    "Raise the version and publish again.",
                )
    return None


def _claimed(source: Path, digest: str) -> int:
    """Highest rung that a run beside an artifact says it passes, whether or not it passes those below."""
    runs = [run for run in read_evidence(source, digest) if run.own_panel is None]
    return max((result.rung for run in runs for result in run.rungs if result.status == "pass"), default=0)


def _drop_contradicted(staged: Path, run: EvidenceRun) -> None:
    """Leave behind evidence that says otherwise than the run just made."""
    for path, found in contradicted_evidence(staged, run).items():
        path.unlink()
        said = "; ".join(map(str, found[:_EXAMPLES]))
        warnings.warn(
            f"evidence/{path.name} is left out, as {len(found)} of its records do not come out again: {said}.",
            IntegrityWarning,
            stacklevel=3,
        )
