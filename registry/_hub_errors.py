"""The Hub client's errors in the zoo's own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from huggingface_hub import constants as hub_constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..cards._errors import (
    FormatError,
    NotFoundError,
    PermissionDeniedError,
    StaleParentError,
    StoreError,
    ZooError,
)

# the base class of every failed request in both supported generations of the client (httpx, then httpx2)
RequestError = cast("type[Exception]", HfHubHTTPError.__mro__[1])


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids the network."""
    return bool(hub_constants.HF_HUB_OFFLINE)


def http_status(error: HfHubHTTPError) -> int | None:
    """HTTP status of a failed request."""
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the Hub client's errors into ours, one sentence and a next step each."""
    try:
        yield
    except ZooError:
        raise
    except GatedRepoError as error:
        raise PermissionDeniedError(f"{what} is gated.", "Ask for access on its page, then `hf auth login`.") from error
    except RevisionNotFoundError as error:
        raise NotFoundError(f"{what} has no such revision.", "See the tags on its page.") from error
    except RepositoryNotFoundError as error:
        raise NotFoundError(
            f"{what} does not exist on the Hub, or is private and your token does not open it.",
            "Check the name, or run `hf auth login`.",
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise StoreError(
            f"{what} is not in the cache and the Hub cannot be reached.",
            "Unset HF_HUB_OFFLINE, check the connection, or fetch it before with `manifoldzoo pull`.",
        ) from error
    except EntryNotFoundError as error:
        raise FormatError(f"{what} is not a manifoldzoo artifact: it lacks a file of the format.") from error
    except HFValidationError as error:
        raise NotFoundError(f"{what} is not a valid repository name.") from error
    except LocalTokenNotFoundError as error:
        raise PermissionDeniedError(f"{what} cannot be written without a token.", "Run `hf auth login`.") from error
    except HfHubHTTPError as error:
        status = http_status(error)
        if status in (401, 403):
            raise PermissionDeniedError(
                f"The Hub refused access to {what} ({status}).", "Run `hf auth login`."
            ) from error
        if status == 412:
            raise StaleParentError(
                f"Somebody committed to {what} while you were publishing.", "Publish again on top of it."
            ) from error
        raise StoreError(f"The Hub answered {status} for {what}.", "Try again later.") from error
    except PermissionError as error:
        raise PermissionDeniedError(
            f"The Hub cache cannot be written: {error.filename}.", "Set HF_HUB_CACHE to a folder you can write."
        ) from error
    except RequestError as error:
        raise StoreError(
            f"The Hub could not be reached for {what}: {error}.", "Check the connection, or use --offline."
        ) from error
    except OSError as error:
        raise StoreError(f"{what} could not be fetched: {error}.", "Check the connection and the disk.") from error
