"""Words on the card: texts that are not empty, and licences."""

from __future__ import annotations

from typing import Annotated

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import AfterValidator, Field


def _check_licence(licence: str) -> str:
    """SPDX expression in canonical spelling."""
    try:
        return str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression as error:
        raise ValueError(f"{licence!r} is not an SPDX licence expression") from error


Licence = Annotated[str, AfterValidator(_check_licence)]
Text = Annotated[str, Field(min_length=1)]
