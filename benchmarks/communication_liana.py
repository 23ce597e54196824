"""Do the distances of a communication manifold agree with what LIANA says about the same cells?

LIANA (Dimitrov et al. 2022) is what one would use instead. For each study it ranks ligand-receptor interactions of
each ordered pair of cell types (`rank_aggregate`, consensus resource, genes expressed in 10% of a type's cells, seeded,
log1p of counts per 10,000). Its ranking is summarised to a table of cell-type pairs, and closeness by the manifold, by
principal components, by expression, by the ruler and its nulls, by numbers of expressed ligands and receptors and by
numbers of cells is correlated with it over pairs.

The summary that decides was named before any result was seen: the number of interactions with a specificity rank of at
most 0.05, which is how LIANA's own tutorial reads its ranking by pairs of cell types (its circle plot). Others are
shown beside it.

What LIANA's ranking measures of a pair: `magnitude_rank` orders interactions by expression of ligand and receptor
(three scores, two of which give the same order), `specificity_rank` by how much more the two types express them than
others do. An interaction enters if both types express it. Such a table is therefore large for types that express many
ligands or receptors, whoever the partner: `types alone` is the share of it that needs no pairs. It has a direction,
which no distance has; both directions are averaged as in the ruler, and `same both ways` is how much of it that leaves.
It does not say how far apart two types are that exchange nothing, which a distance does; and ranks are within a study,
so that tables of two studies have no common unit. `two halves` is how well LIANA on a random half of each type's cells
agrees with LIANA on the other half: a measure that was not made from the same cells can hardly agree better. LIANA on
one study is compared with LIANA on another over the cell types of both: what is the study's own in it no fixed ruler
can know.

Types of fewer than 5 cells are left out, studies of fewer than 5 types not tested. A study is `seen` if the ruler or
the head was made from its file. Prints Markdown, and writes it beside a JSON document and LIANA's tables, which later
runs read again, into the output folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from liana_pairs import agreement, measures, ranking, studies, tables
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import manifoldzoo as mz
from manifoldzoo.manifolds._labels import LabelTable, read_label_table
from manifoldzoo.manifolds._recipe import recipe_folder

Floats = NDArray[np.float64]


def examine(
    study: studies.Study,
    manifold: Any,
    settings: ranking.Settings,
    options: argparse.Namespace,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """All figures of a study, and each measure's correlations over drawn cell types, none where too few types are."""
    kept = options.out / "liana"
    ranked = ranking.rank(study, settings, kept, fresh=options.fresh)
    placed = measures.place(manifold, study)
    summaries = ranking.summaries(ranked)
    found: dict[str, Any] = {
        "seen": study.sha256 in made_from(manifold),
        "types": study.groups,
        "sizes": study.sizes.tolist(),
        "n_rows": len(ranked.table),
        "n_specific": int(summaries[ranking.PRIMARY].sum()),
        "placed": placed.distances is not None,
        "not_placed": placed.reason,
        "seconds": {"liana": ranked.seconds, "manifold": placed.seconds},
        "liana_run_now": ranked.fresh,
        "liana_table": {name: table.tolist() for name, table in summaries.items()},
    }
    if len(study.groups) < agreement.FEWEST:
        return found | {"cannot_decide": f"{len(study.groups)} cell types, expected {agreement.FEWEST} or more"}, {}
    closeness = measures.symmetric(manifold, study, ranked, placed)
    draws = agreement.draw_types(len(study.groups), options.draws, rng=rng.spawn(1)[0])
    tested = {"n_permutations": options.permutations, "rng": rng}
    found["agreement"] = {}
    for name, table in summaries.items():
        agreed, drawn = agreement.compare(closeness, measures.both_ways(table), draws=draws, **tested)
        found["agreement"][name] = {key: asdict(each) for key, each in agreed.items()}
        if name == ranking.PRIMARY:
            over_draws = dict(zip(closeness, drawn.T, strict=True))
    primary = summaries[ranking.PRIMARY]
    target = measures.both_ways(primary)
    found["closeness"] = {name: table.tolist() for name, table in closeness.items()}
    found["differences"] = differences(found["agreement"][ranking.PRIMARY], over_draws)
    upper = np.triu_indices(len(target), 1)
    nulls = measures.ruler_nulls(manifold, study.groups)
    found["nulls"] = [_number(agreement.spearman(null[upper][None], target[upper])[0]) for null in nulls]
    hubs = closeness[f"{measures.HUBS}, product"]
    others = {name: table for name, table in closeness.items() if not name.startswith(measures.HUBS)}
    found["beyond_hubs"] = _told(agreement.beyond(others, target, hubs, **tested))
    known = np.mean(nulls, axis=0) if nulls else np.zeros_like(target)
    found["beyond_nulls"] = _told(agreement.beyond(closeness, target, known, **tested)) if nulls else {}
    ordered = measures.directed(manifold, study, ranked, placed)
    found["directed"] = _told(
        {name: agreement.compare_directed(each, primary, **tested) for name, each in ordered.items()}
    )
    turned = {name: agreement.direction(each) for name, each in ordered.items()}
    found["direction"] = _told(
        {
            name: agreement.compare_directed(each, agreement.direction(primary), **tested)
            for name, each in turned.items()
            if agreement.varies(each)
        }
    )
    found["shape"] = {name: _number(value) for name, value in agreement.shape(primary).items()}
    found["halves"] = of_halves(study, settings, kept, options, rng)
    return found, over_draws


def of_halves(
    study: studies.Study, settings: ranking.Settings, kept: Path, options: argparse.Namespace, rng: np.random.Generator
) -> float | None:
    """Agreement of LIANA on two random halves of the cells; ``None`` where too few types have cells for two."""
    parts = studies.halves(study, np.random.default_rng(settings.seed))
    if len(parts[0].groups) < agreement.FEWEST:
        return None
    both = []
    for part in parts:
        ranked = ranking.rank(part, settings, kept, fresh=options.fresh)
        # the halves of an odd type differ by a cell, so that one may have a type that the other lacks
        index = [ranked.groups.index(name) for name in parts[0].groups]
        table = measures.both_ways(ranking.summaries(ranked)[ranking.PRIMARY])
        both.append(table[np.ix_(index, index)][np.triu_indices(len(index), 1)])
    return _number(agreement.spearman(both[0][None], both[1])[0])


def differences(agreed: dict[str, dict[str, Any]], drawn: dict[str, Floats]) -> dict[str, Any]:
    """By how much the manifold agrees better than each other measure, with intervals from the same draws."""
    found: dict[str, Any] = {}
    if measures.MANIFOLD not in agreed:
        return found
    ours = agreed[measures.MANIFOLD]["rho"]
    for name, told in agreed.items():
        if name != measures.MANIFOLD and None not in (ours, told["rho"]):
            low, high = agreement.interval(drawn[measures.MANIFOLD] - drawn[name])
            found[name] = {"value": ours - told["rho"], "low": low, "high": high}
    return found


def over_studies(
    found: dict[str, dict[str, Any]], drawn: dict[str, dict[str, Floats]], *, seen: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Means over the studies that the manifold places of the correlations, and of their differences from its own.

    Cell types are drawn within each study; the studies are as they are.
    """
    chosen = [
        name for name, study in found.items() if study["seen"] == seen and study["placed"] and "agreement" in study
    ]
    told = {name: found[name]["agreement"][ranking.PRIMARY] for name in chosen}
    # a mean over other studies could not be compared
    every = [
        key
        for key in dict.fromkeys(key for each in told.values() for key in each)
        if all(key in told[name] and told[name][key]["rho"] is not None for name in chosen)
    ]
    rho = {key: float(np.mean([told[name][key]["rho"] for name in chosen])) for key in every}
    spread = {key: np.mean([drawn[name][key] for name in chosen], axis=0) for key in every}
    means = {key: _with_interval(rho[key], spread[key]) for key in every}
    ours = measures.MANIFOLD
    apart = {
        key: _with_interval(rho[ours] - rho[key], spread[ours] - spread[key])
        for key in every
        if ours in every and key != ours
    }
    return means, apart


def across(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Agreement of LIANA on one study with LIANA on another, over the cell types of both."""
    told: dict[str, dict[str, Any]] = {}
    for first, one in found.items():
        for second, other in found.items():
            shared = [name for name in one["types"] if name in other["types"]]
            if first != second and len(shared) >= agreement.FEWEST:
                columns = []
                for study in (one, other):
                    table = measures.both_ways(np.array(study["liana_table"][ranking.PRIMARY]))
                    index = [study["types"].index(name) for name in shared]
                    columns.append(table[np.ix_(index, index)][np.triu_indices(len(index), 1)])
                rho = _number(agreement.spearman(columns[0][None], columns[1])[0])
                told.setdefault(first, {})[second] = {"rho": rho, "n_types": len(shared)}
    return told


def made_from(manifold: Any) -> set[str]:
    """SHA-256 of the files that the head was fitted to or the ruler computed from."""
    card = manifold.card
    used = [file.sha256 for file in card.panel.files]
    interaction = getattr(card.ruler, "interaction", None)
    return {*used, *(file.sha256 for file in (interaction.files if interaction is not None else []))}


def run(manifold: Any, labels: LabelTable, options: argparse.Namespace) -> dict[str, Any]:
    """Examine every study in the data folder."""
    settings = ranking.Settings(n_perms=options.liana_permutations, seed=options.seed)
    paths = sorted(options.data.glob("*.h5ad"))
    found: dict[str, dict[str, Any]] = {}
    drawn: dict[str, dict[str, Floats]] = {}
    warmed = False
    for number, path in enumerate(paths, start=1):
        say(f"{number}/{len(paths)} {path.name}")
        study = studies.read_study(path, labels)
        if study is None:
            say(f"  left out: the label table has none of its cell types ({labels.path})")
            continue
        if not warmed:
            # the first call loads libraries
            measures.place(manifold, study)
            warmed = True
        # by name, so that a study's figures do not depend on which others are there
        rng = np.random.default_rng([options.seed, *study.name.encode()])
        found[study.name], drawn[study.name] = examine(study, manifold, settings, options, rng)
        say(f"  {len(study.groups)} cell types, LIANA {'run' if found[study.name]['liana_run_now'] else 'read again'}")
    if not found:
        raise SystemExit(f"{options.data} has no .h5ad file whose data set {labels.path} knows.")
    ordered = dict(sorted(found.items(), key=lambda item: (not item[1]["seen"], item[0])))
    parts = {kind: over_studies(ordered, drawn, seen=kind == "seen") for kind in ("seen", "unseen")}
    return {
        "artifact": manifold.reference or f"{manifold.name}@{manifold.version}",
        "digest": manifold.digest,
        "liana": version("liana"),
        "settings": asdict(settings),
        "primary": ranking.PRIMARY,
        "n_permutations": options.permutations,
        "n_draws": options.draws,
        "studies": ordered,
        "across": across(ordered),
        "means": {kind: part[0] for kind, part in parts.items()},
        "mean_differences": {kind: part[1] for kind, part in parts.items()},
    }


def say(line: str) -> None:
    """Tell progress beside the results."""
    print(line, file=sys.stderr, flush=True)


def _number(value: float) -> float | None:
    """A correlation; ``None`` where a side did not vary."""
    return float(value) if np.isfinite(value) else None


def _told(agreed: dict[str, agreement.Agreement]) -> dict[str, Any]:
    """Plain form."""
    return {name: asdict(each) for name, each in agreed.items()}


def _with_interval(value: float, draws: Floats) -> dict[str, Any]:
    """A figure and its interval."""
    low, high = agreement.interval(draws)
    return {"value": value, "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", default="communication", help="reference or folder of a manifold")
    parser.add_argument("--data", type=Path, help="folder of .h5ad files with `dataset` and cell types in obs")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and LIANA's tables")
    parser.add_argument("--labels", type=Path, help="label table; that of the manifold's recipe by default")
    parser.add_argument("--liana-permutations", type=int, default=1000, help="LIANA's default")
    parser.add_argument("--permutations", type=int, default=9999, help="of cell types, for p")
    parser.add_argument("--draws", type=int, default=2000, help="of cell types, for intervals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="run LIANA anew, so that all times are of this run")
    parser.add_argument("--markdown", action="store_true", help="print the tables of the last run, and run nothing")
    parser.add_argument("--page", type=Path, help="also put the tables into this page, between its two marks")
    options = parser.parse_args()
    kept = options.out / "liana.json"
    if not options.markdown:
        if options.data is None:
            parser.error("--data is needed, unless --markdown prints an earlier run")
        warnings.simplefilter("ignore")
        manifold = mz.load(options.artifact)
        labels = read_label_table(options.labels or recipe_folder(manifold.name) / "labels.tsv")
        with threadpool_limits(1):
            document = run(manifold, labels, options)
        options.out.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    elif not kept.exists():
        raise SystemExit(f"There is no {kept}; run without --markdown first.")
    shown = tables.render(json.loads(kept.read_text(encoding="utf-8")))
    kept.with_suffix(".md").write_text(shown, encoding="utf-8")
    if options.page is not None:
        tables.put_into(options.page, shown)
    print(shown, end="")


if __name__ == "__main__":
    main()
