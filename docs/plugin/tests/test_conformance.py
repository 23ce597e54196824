"""What manifoldzoo asks of plugins: each of its checks is a test of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from manifoldzoo_coexpression import CoexpressionLet, StaticEmbeddingReader, toy_two_arms

from manifoldzoo.extractors import Job
from manifoldzoo.extractors.testing import check_extractor, check_reader, ruler_checks


def test_reader_and_what_it_reads(model: Path) -> None:
    check_reader(StaticEmbeddingReader(), model)


@pytest.mark.parametrize("check", [pytest.param(check, id=name) for name, check in ruler_checks()])
def test_ruler(check) -> None:
    check(toy_two_arms())


def test_extractor(job: Job) -> None:
    check_extractor(CoexpressionLet(), job, controls=["spectrum-matched", "permuted-genes"])
