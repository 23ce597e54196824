"""A ruler beside its null rulers: what is biology shows, and what both share does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_tree import EVERY, RULER, SETTINGS, planted_panel
from scipy.stats import rankdata, spearmanr

from manifoldzoo.cards._evidence import conclude
from manifoldzoo.gates.refits._refits import refits_on
from manifoldzoo.gates.rungs._paired_null import paired_null_record
from manifoldzoo.manifolds._interaction_ruler import InteractionRuler

N_NULLS = 6
QUICK = replace(SETTINGS, n_steps=40)


def interaction(*, biology: float, n_nulls: int = N_NULLS, seed: int = 0) -> InteractionRuler:
    """A table of what every ruler shares and of distances on the tree; in nulls of the latter with stages shuffled."""
    rng = np.random.default_rng(seed)
    size = rng.random(len(EVERY))
    shared = 6.0 * np.abs(size[:, None] - size[None, :])
    tree = RULER.distances(EVERY)

    def table(order: np.ndarray, part: float) -> np.ndarray:
        return np.asarray(1.0 + shared + part * tree[np.ix_(order, order)])

    orders = [rng.permutation(len(EVERY)) for _ in range(n_nulls + 1)]
    own = table(np.arange(len(EVERY)), biology) if biology else table(orders[-1], 1.0)
    nulls = np.array([table(order, 1.0) for order in orders[:n_nulls]]).reshape(-1, len(EVERY), len(EVERY))
    return InteractionRuler("made", "1", RULER.stages, own, nulls)


@pytest.fixture(scope="module")
def panel():
    return planted_panel(np.random.default_rng(0), n_donors=3)


@pytest.fixture(scope="module")
def record(panel):
    return paired_null_record(
        panel, interaction(biology=1.0), QUICK, rng=np.random.default_rng(1), seed=3, n_repeats=2, n_starts=1
    )


def test_it_never_decides(record, panel):
    assert (record.gate, record.status, record.decides) == ("paired_null", "cannot decide", False)
    assert (record.n, record.seed, record.statistic) == (len(panel.stage), 3, None)
    assert conclude(4, [record]).status == "not run"


def test_what_is_biology_ranks_first_and_stays_when_the_shared_part_is_held(record):
    for name in ("random", "study", "branch"):
        for measure in ("", "_partial"):
            told = {key: record.details[f"{name}{measure}{key}"] for key in ("", "_null_mean", "_null_highest")}
            assert record.details[f"{name}{measure}_rank"] == 1
            assert record.details[f"{name}{measure}_p"] == pytest.approx(1 / (1 + N_NULLS))
            assert told[""] > told["_null_highest"] >= told["_null_mean"]
            scores = [record.parts[f"{name}{measure} null_{i}"] for i in range(1, N_NULLS + 1)]
            assert record.parts[f"{name}{measure} ruler"] == told[""]
            assert (np.mean(scores), max(scores)) == pytest.approx((told["_null_mean"], told["_null_highest"]))
    assert record.details["n_nulls"] == N_NULLS and record.details["n_starts"] == 1
    assert 0.1 < record.details["ruler_with_mean_null"] < 0.9


def test_a_ruler_that_is_one_of_its_nulls_does_not_stand_out(panel):
    found = paired_null_record(
        panel, interaction(biology=0.0), QUICK, rng=np.random.default_rng(1), seed=3, n_repeats=2, n_starts=1
    )
    assert min(found.details[f"{name}_p"] for name in ("random", "study", "branch")) > 1 / (1 + N_NULLS)
    assert min(found.details[f"{name}_partial_p"] for name in ("random", "branch")) > 1 / (1 + N_NULLS)


def test_scores_are_those_of_refitting_one_ruler_at_a_time(panel, record):
    """By hand: the study holdout of the ruler and of one null, from the same start."""
    ruler = interaction(biology=1.0)
    nulls, studies = ruler.nulls([np.random.default_rng(0)] * 20), np.array(panel.study)
    tables = np.stack([one.distances(panel.stage) for one in (ruler, *nulls)])
    for place, fixed in ((0, tables[1:].mean(axis=0)), (2, np.delete(tables[1:], 1, axis=0).mean(axis=0))):
        rng = np.random.default_rng(1)
        rng.spawn(20)
        _, start_rng, fold_rng = rng.spawn(3)
        start = int(start_rng.integers(2**31, size=1)[0])
        # the first holdout has two random folds
        children = [*fold_rng.spawn(2), *fold_rng.spawn(2)][2:]
        plain, partial = [], []
        for study, child in zip(sorted(set(panel.study)), children, strict=True):
            train = np.flatnonzero(studies != study)
            refits = refits_on(panel.features, QUICK, rng=child, train=train)
            z = refits.latents(tables[place][None], [np.random.default_rng(start)])[0]
            unit = z / np.linalg.norm(z, axis=1, keepdims=True)
            angles = np.arccos(np.clip(unit @ unit.T, -1, 1))
            left, right = np.triu_indices(len(z), 1)
            touching = (studies[left] == study) | (studies[right] == study)
            a, t, h = (m[left[touching], right[touching]] for m in (angles, tables[place], fixed))
            plain.append(spearmanr(a, t).statistic)
            x = np.column_stack([np.ones(len(a)), rankdata(h)])
            rest = [y - x @ np.linalg.lstsq(x, y, rcond=None)[0] for y in (rankdata(a), rankdata(t))]
            partial.append(np.corrcoef(rest)[0, 1])
        which = "ruler" if place == 0 else f"null_{place}"
        assert record.parts[f"study {which}"] == pytest.approx(np.mean(plain), abs=1e-5)
        assert record.parts[f"study_partial {which}"] == pytest.approx(np.mean(partial), abs=1e-5)


def test_the_same_generator_gives_the_same_record_and_no_nulls_cannot_be_paired(panel, record):
    given = {"seed": 3, "n_repeats": 2, "n_starts": 1}
    again = paired_null_record(panel, interaction(biology=1.0), QUICK, rng=np.random.default_rng(1), **given)
    assert again == record
    alone = paired_null_record(panel, interaction(biology=1.0, n_nulls=1), QUICK, rng=np.random.default_rng(1), **given)
    assert alone.reason == "the ruler 'made' has 1 null rulers, expected at least 2"
