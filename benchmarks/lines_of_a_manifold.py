"""How many lines a manifold takes that a recipe and its tables make, and how many the code that reads such labels took.

Counts the files of ``manifolds/NAME``, and the modules and tests of labels by gene scores. Of each file: lines that say
something (rows, settings, code), comments and docstrings, and blank lines. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CAPABILITY = (
    "manifolds/_gene_scores.py",
    "manifolds/_labels_recipe.py",
    "manifolds/_scored_labels.py",
    "manifolds/_stage_labels.py",
)
TESTS = (
    "tests/phases.py",
    "tests/extractors/test_scored_extract.py",
    "tests/manifolds/test_gene_scores.py",
    "tests/manifolds/test_labels_recipe.py",
    "tests/manifolds/test_scored_labels.py",
)


@dataclass(frozen=True)
class Lines:
    """Lines of a file."""

    said: int
    comments: int
    blank: int

    def __add__(self, other: Lines) -> Lines:
        return Lines(self.said + other.said, self.comments + other.comments, self.blank + other.blank)


def count(path: Path) -> Lines:
    """Count the lines of a file; of Markdown all are comments, of Python docstrings too."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    blank = sum(not line.strip() for line in lines)
    if path.suffix == ".md":
        return Lines(0, len(lines) - blank, blank)
    if path.suffix == ".py":
        said = code_lines(text)
        return Lines(said, len(lines) - blank - said, blank)
    comments = sum(line.lstrip().startswith("#") for line in lines)
    return Lines(len(lines) - blank - comments, comments, blank)


def code_lines(text: str) -> int:
    """Lines of Python with something on them besides comments and docstrings."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    told = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        # a text that stands alone: a docstring, of an attribute too
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            told -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(told & {number for number, line in enumerate(text.splitlines(), start=1) if line.strip()})


def rows(paths: Sequence[Path]) -> list[tuple[str, Lines]]:
    """Each file, and all of them."""
    counted = [(path.relative_to(ROOT).as_posix(), count(path)) for path in paths]
    return [*counted, ("**together**", sum((lines for _, lines in counted), Lines(0, 0, 0)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="cell-cycle", help="bundled recipe")
    options = parser.parse_args()
    folder = ROOT / "manifolds" / options.name.replace("-", "_")
    own = sorted(path for path in folder.iterdir() if path.suffix in {".toml", ".tsv", ".md", ".py"})
    if not own:
        raise SystemExit(f"There is no recipe in {folder}.")
    parts = (
        (f"the manifold {options.name}", own),
        ("labels by gene scores, for every manifold", [ROOT / name for name in CAPABILITY]),
        ("their tests", [ROOT / name for name in TESTS]),
    )
    for title, paths in parts:
        print(f"\n| {title} | lines | comments | blank |\n| --- | ---: | ---: | ---: |")
        for name, lines in rows(paths):
            print(f"| {name} | {lines.said} | {lines.comments} | {lines.blank} |")


if __name__ == "__main__":
    main()
