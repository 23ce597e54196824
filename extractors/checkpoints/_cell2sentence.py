"""Reading Cell2Sentence: language models that read a cell as its genes' symbols by descending expression."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import CheckpointError, GeneError
from ._cell2sentence_model import GPT2Network, NeoXNetwork
from ._files import CheckpointFile, digest_files, find_file, parse_object, read_content, stated_licence
from ._hugging_face import TransformersCheckpoint
from ._hugging_face_files import open_weights, read_settings, require_transformers
from ._hugging_face_network import Network
from ._hugging_face_tokens import Tokens

TOKENS_PER_GENE = 8
"""Tokens that a gene is taken to need before any genes are named; our choice, more than nearly all symbols need."""
_NETWORKS: dict[str, type[Network]] = {"gpt_neox": NeoXNetwork, "gpt2": GPT2Network}


@dataclass(frozen=True, eq=False)
class Word:
    """A gene as a tokenizer spells it.

    Attributes
    ----------
    ids
        Token ids, a space before the word among them.
    own
        Whether a token spells part of the word, and not the space alone.
    """

    ids: NDArray[np.int64]
    own: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class SentenceVocabulary:
    """Genes as words of a sentence.

    Attributes
    ----------
    tokenizer
        Of the ``tokenizers`` library.
    context
        Most tokens of a sentence.
    refused
        Tokens that spell no gene: those that stand for what is unknown, and special ones.
    genes
        Genes that indices refer to; any symbol can be read, so there are none until some are named.
    words
        Each gene as it stands after a space.
    openings
        Each gene as it stands at the beginning of a sentence.
    """

    tokenizer: Any
    context: int
    refused: frozenset[str]
    genes: tuple[str, ...] = ()
    words: tuple[Word, ...] = ()
    openings: tuple[Word, ...] = ()

    @property
    def max_genes(self) -> int:
        """Most genes of a cell: as many of those named as fit whichever they are.

        Where none are named, ``TOKENS_PER_GENE`` tokens are allowed for each.
        """
        if not self.genes:
            return self.context // TOKENS_PER_GENE
        needed = [max(len(word.ids), len(first.ids)) for word, first in zip(self.words, self.openings, strict=True)]
        return int((np.cumsum(sorted(needed, reverse=True)) <= self.context).sum())

    @property
    def spelling(self) -> Sequence[NDArray[np.int64]]:
        """Token ids of each gene as it stands after a space."""
        return [word.ids[word.own] for word in self.words]

    def knows(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which names are words that the tokenizer spells without leaving anything out."""
        return np.array([self._spell(name) is not None for name in names], dtype=bool)

    def with_genes(self, names: Sequence[str]) -> SentenceVocabulary:
        """Return the same vocabulary with these genes.

        Raises
        ------
        GeneError
            If a name is no word that the tokenizer can spell, or two names are the same word.
        CheckpointError
            If the tokenizer joins neighbouring genes in one token.
        """
        found: dict[str, str] = {}
        spelled = []
        for name in names:
            word, spelling = name.upper(), self._spell(name)
            if spelling is None:
                raise GeneError(f"The tokenizer cannot spell gene {name!r}.", "Leave out genes that `knows` denies.")
            if word in found:
                raise GeneError(f"Genes {found[word]!r} and {name!r} are the same word, {word}.")
            found[word] = name
            spelled.append(spelling)
        words, openings = tuple(word for word, _ in spelled), tuple(first for _, first in spelled)
        if spelled:
            alone = np.concatenate([openings[0].ids, *(word.ids for word in words[1:])])
            if self._encode(" ".join(found)).ids != alone.tolist():
                raise CheckpointError(
                    "The tokenizer joins neighbouring genes of a sentence in one token.",
                    "Only tokenizers that split at spaces, as those of GPT-2 and Pythia, can be read gene by gene.",
                )
        return replace(self, genes=tuple(names), words=words, openings=openings)

    def write(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> Tokens:
        """Write each cell as a sentence.

        Notes
        -----
        Symbols in capitals by descending expression, separated by spaces, as Cell2Sentence writes them, without a
        prompt around them: our choice, since prompts differ from task to task. Cell2Sentence orders equal values
        at random; here they stand in the order given.
        """
        order = np.argsort(np.where(genes < 0, np.inf, -values.astype(np.float64)), axis=1, kind="stable")
        lengths = (genes >= 0).sum(axis=1)
        cells = [self._sentence(row, places[:n]) for row, places, n in zip(genes, order, lengths, strict=True)]
        shape = (len(cells), max([1, *(len(ids) for ids, _, _ in cells)]))
        ids, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        padded = np.ones(shape, dtype=bool)
        for cell, (sentence, owner, _) in enumerate(cells):
            # those of genes first, in the order given
            moved = np.argsort(owner, kind="stable")
            ids[cell, : len(moved)], positions[cell, : len(moved)] = sentence[moved], moved
            padded[cell, : len(moved)] = False
        per_gene = np.array([n for _, _, n in cells], dtype=np.int64).reshape(genes.shape)
        return Tokens(ids, positions, padded, per_gene)

    def _sentence(
        self, row: NDArray[np.int64], places: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Token ids of a cell's sentence, the place of the gene each belongs to, and the tokens of each gene."""
        n_genes = len(row)
        words = [(self.words if rank else self.openings)[row[place]] for rank, place in enumerate(places)]
        if not words:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(n_genes, np.int64)
        own = np.concatenate([word.own for word in words])
        owner = np.where(own, np.repeat(places, [len(word.ids) for word in words]), n_genes)
        return np.concatenate([word.ids for word in words]), owner, np.bincount(owner[own], minlength=n_genes)

    def _spell(self, name: str) -> tuple[Word, Word] | None:
        """A gene after a space and at the beginning; ``None`` if it is no word, or cannot be spelled."""
        word = name.upper()
        if not word or any(character.isspace() for character in word):
            return None
        spelled = []
        for n_before, text in ((1, f" {word}"), (0, word)):
            encoding = self._encode(text)
            own = [max(start, n_before) < stop for start, stop in encoding.offsets]
            covered = {place for start, stop in encoding.offsets for place in range(start, stop)}
            if not covered.issuperset(range(n_before, len(text))) or self.refused.intersection(encoding.tokens):
                return None
            spelled.append(Word(np.array(encoding.ids, dtype=np.int64), np.array(own, dtype=bool)))
        return spelled[0], spelled[1]

    def _encode(self, text: str) -> Any:
        """Turn a text into tokens."""
        with _refusing(f"The tokenizer fails on {text!r:.40}"):
            return self.tokenizer.encode(text, add_special_tokens=False)


def read_cell2sentence(folder: str | Path) -> TransformersCheckpoint:
    """Read a folder of Cell2Sentence in the layout of Pythia or GPT-2.

    Parameters
    ----------
    folder
        Holds ``config.json`` (``model_type`` ``gpt_neox`` or ``gpt2``), ``tokenizer.json`` or ``vocab.json`` with
        ``merges.txt``, and the weights: ``model.safetensors`` or ``pytorch_model.bin``, whole or in parts with an
        index.

    Returns
    -------
    TransformersCheckpoint
        Any symbol can be read, so ``genes`` is empty until ``with_genes`` names some.

    Raises
    ------
    CheckpointError
        If files are missing or damaged, disagree, ask for code to be run, or hold weights that are not finite.
    MissingExtraError
        If ``transformers`` is not installed.
    """
    folder = Path(folder)
    require_transformers()
    settings, config_file = read_settings(folder, tuple(_NETWORKS))
    kind = _NETWORKS[str(settings.values["model_type"])]
    tokenizer, tokenizer_files = _read_tokenizer(folder)
    with open_weights(folder, prefix=kind.prefix, ignored=kind.ignored) as weights:
        network = kind.load(settings, weights)
    n_rows, n_tokens = len(network.embeddings), tokenizer.get_vocab_size()
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= n_rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {n_tokens} tokens, numbered up to {highest}, the model {n_rows}."
        )
    refused = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    refused |= {getattr(tokenizer.model, "unk_token", None) or ""}
    files = (config_file, *tokenizer_files, *weights.files)
    return TransformersCheckpoint(
        name=folder.resolve().name,
        family="cell2sentence",
        licence=stated_licence(folder / "README.md"),
        digest=digest_files(files),
        files=files,
        ignored_keys=weights.ignored,
        network=network,
        vocabulary=SentenceVocabulary(tokenizer, network.model.config.max_position_embeddings, frozenset(refused)),
    )


def _read_tokenizer(folder: Path) -> tuple[Any, tuple[CheckpointFile, ...]]:
    """Read ``tokenizer.json``, else the vocabulary and merges that GPT-2 has in its place."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = find_file(folder, "tokenizer.json", "vocab.json", hint="Put the tokenizer of the model beside config.json.")
    content, file = read_content(path)
    files = [file]
    if path.name == "vocab.json":
        vocabulary: Any = parse_object(path, content)
        merges, merges_file = read_content(find_file(folder, "merges.txt", hint=""))
        files.append(merges_file)
    with _refusing(f"{path} is no tokenizer"):
        if path.name == "tokenizer.json":
            tokenizer = Tokenizer.from_str(content.decode("utf-8"))
        else:
            lines = merges.decode("utf-8").splitlines()
            pairs: Any = [(*line.split(" "),) for line in lines if line and not line.startswith("#version")]
            tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer, tuple(files)


@contextmanager
def _refusing(problem: str) -> Iterator[None]:
    """Turn what the library of tokenizers raises into an error of ours."""
    try:
        yield
    except CheckpointError:
        raise
    except BaseException as error:
        # a panic of its Rust code, as a hostile pattern makes it, is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).split("\n", 1)[0][:120]
        raise CheckpointError(f"{problem}: {reason}.", "Download tokenizer.json again.") from error
