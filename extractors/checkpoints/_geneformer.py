"""Reading Geneformer: a BERT over genes ranked by their expression relative to their median."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cards._errors import CheckpointError, GeneError
from ._files import CheckpointFile, digest_files, read_content, stated_licence
from ._hugging_face import TransformersCheckpoint
from ._hugging_face_files import Settings, open_weights, read_settings, require_transformers
from ._hugging_face_network import Network
from ._hugging_face_tokens import Tokens
from ._interface import HeadWeights
from ._pickles import parse_dictionary

TOKENS, MEDIANS, NAMES = "token_dictionary", "gene_median_dictionary", "gene_name_id_dict"
_SPECIAL = re.compile(r"<.*>")
_VERSIONED = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+")


class BertNetwork(Network):
    """The encoder of BERT."""

    prefix = "bert."
    ignored = re.compile(r"cls\..*|pooler\..*|classifier\..*|embeddings\.(position_ids|token_type_ids)")
    layer = re.compile(r"encoder\.layer\.(\d+)\.")
    table = "embeddings.word_embeddings.weight"
    causal = False

    @classmethod
    def configuration(cls, settings: Settings) -> Any:
        from transformers import BertConfig

        settings.expect("position_embedding_type", "absolute")
        settings.expect_not("is_decoder", "add_cross_attention")
        width, n_heads = settings.count("hidden_size"), settings.count("num_attention_heads")
        if width % n_heads:
            raise settings.error("hidden_size", f"a multiple of num_attention_heads, which is {n_heads}")
        return BertConfig(
            vocab_size=settings.count("vocab_size"),
            hidden_size=width,
            num_hidden_layers=settings.count("num_hidden_layers"),
            num_attention_heads=n_heads,
            intermediate_size=settings.count("intermediate_size"),
            hidden_act=settings.activation("hidden_act", "gelu"),
            max_position_embeddings=settings.count("max_position_embeddings"),
            type_vocab_size=settings.count("type_vocab_size", default=2),
            initializer_range=settings.number("initializer_range", default=0.02, above=0, most=10),
            layer_norm_eps=settings.number("layer_norm_eps", default=1e-12, above=0, most=1),
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )

    @classmethod
    def build(cls, configuration: Any) -> Any:
        from transformers import BertModel

        return BertModel(configuration, add_pooling_layer=False)

    @property
    def layers(self) -> Sequence[Any]:
        layers: Sequence[Any] = self.model.encoder.layer
        return layers

    def attention_of(self, layer: Any) -> Any:
        return layer.attention.self

    def begin(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, dict[str, Any]]:
        embedded = self.model.embeddings(
            input_ids=ids, position_ids=positions, token_type_ids=torch.zeros_like(positions)
        )
        return embedded, {}

    def end(self, hidden: Tensor) -> Tensor:
        return hidden

    def heads(self, index: int) -> tuple[HeadWeights, Tensor]:
        attention = self.layers[index].attention
        own, n_heads = attention.self, self.model.config.num_attention_heads
        width = own.query.weight.shape[1]
        query, key, value = (
            projection.weight.view(n_heads, -1, width) for projection in (own.query, own.key, own.value)
        )
        output = attention.output.dense.weight.view(width, n_heads, -1).permute(1, 0, 2)
        return HeadWeights(query, key, value, output), own.value.bias.view(n_heads, -1)

    def restore_buffers(self) -> None:
        embeddings = self.model.embeddings
        n_positions = self.model.config.max_position_embeddings
        embeddings.register_buffer("position_ids", torch.arange(n_positions)[None], persistent=False)
        zeros = torch.zeros((1, n_positions), dtype=torch.int64)
        embeddings.register_buffer("token_type_ids", zeros, persistent=False)


@dataclass(frozen=True, eq=False)
class RankVocabulary:
    """Genes as Geneformer names and ranks them.

    Attributes
    ----------
    genes
        Genes that indices refer to.
    token_ids, medians
        Token and median of each gene, ``(n_genes,)``.
    known
        Token and median of every gene that can be read, by Ensembl id.
    ids
        Ensembl id of every symbol.
    pad, begin, end
        Token ids of ``<pad>``, ``<cls>`` and ``<eos>``; the first version has only the first of them.
    max_size
        Longest sequence.
    """

    genes: tuple[str, ...]
    token_ids: NDArray[np.int64]
    medians: NDArray[np.float64]
    known: dict[str, tuple[int, float]]
    ids: dict[str, str]
    pad: int
    begin: int | None
    end: int | None
    max_size: int

    @property
    def max_genes(self) -> int:
        """Most genes of a cell: the longest sequence less ``<cls>`` and ``<eos>``."""
        return self.max_size - (self.begin is not None) - (self.end is not None)

    @property
    def spelling(self) -> Sequence[NDArray[np.int64]]:
        """Token id of each gene."""
        return list(self.token_ids[:, None])

    def knows(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which symbols or Ensembl ids, with or without version, have a token and a median."""
        return np.array([self._id(name) in self.known for name in names], dtype=bool)

    def with_genes(self, names: Sequence[str]) -> RankVocabulary:
        """Return the same vocabulary with these genes.

        Raises
        ------
        GeneError
            If a name is not known, or two names are the same token.
        """
        found: dict[str, str] = {}
        for name in names:
            identifier = self._id(name)
            if identifier not in self.known:
                raise GeneError(f"Geneformer has no token for gene {name!r}.", "Leave out genes that `knows` denies.")
            if identifier in found:
                raise GeneError(f"Genes {found[identifier]!r} and {name!r} are the same token, {identifier}.")
            found[identifier] = name
        entries = [self.known[identifier] for identifier in found]
        return replace(
            self,
            genes=tuple(names),
            token_ids=np.array([token for token, _ in entries], dtype=np.int64),
            medians=np.array([median for _, median in entries], dtype=np.float64),
        )

    def write(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> Tokens:
        """Rank the genes of each cell.

        Notes
        -----
        ``counts / total * 10,000 / median``, highest first, as Geneformer's tokenizer has it: ``expm1`` undoes the
        logarithm. Geneformer leaves the order of equal values to its sorting routine; here they stand in the order
        given, which is our choice.
        """
        padded = genes < 0
        relative = np.expm1(values.astype(np.float64)) / self.medians[genes]
        order = np.argsort(np.where(padded, np.inf, -relative), axis=1, kind="stable")
        ranks = np.argsort(order, axis=1, kind="stable")
        ids = np.where(padded, self.pad, self.token_ids[genes])
        per_gene = np.ones(genes.shape, dtype=np.int64)
        if self.begin is None or self.end is None:
            return Tokens(ids, np.where(padded, 0, ranks), padded, per_gene)
        n_cells = len(genes)
        last = (~padded).sum(axis=1)[:, None] + 1
        special = np.broadcast_to(np.array([self.begin, self.end], dtype=np.int64), (n_cells, 2))
        return Tokens(
            ids=np.concatenate([ids, special], axis=1),
            positions=np.concatenate([np.where(padded, 0, ranks + 1), np.zeros_like(last), last], axis=1),
            padded=np.concatenate([padded, np.zeros((n_cells, 2), dtype=bool)], axis=1),
            per_gene=per_gene,
        )

    def _id(self, name: str) -> str:
        """Ensembl id of a symbol or of an id with a version."""
        versioned = _VERSIONED.fullmatch(name)
        bare = versioned[1] if versioned else name
        return self.ids.get(bare, bare)


def read_geneformer(folder: str | Path, *, dictionaries: str | Path | None = None) -> TransformersCheckpoint:
    """Read a folder of Geneformer, first or second version.

    Parameters
    ----------
    folder
        Holds ``config.json`` (``model_type`` ``bert``) and the weights: ``model.safetensors`` or
        ``pytorch_model.bin``, with or without the heads they were trained with.
    dictionaries
        Folder with the pickled dictionaries of tokens, medians and names (``token_dictionary*.pkl``,
        ``gene_median_dictionary*.pkl``, ``gene_name_id_dict*.pkl``). By default they are looked for in the folder,
        then in ``geneformer/`` in it or beside it, where Geneformer's repository has them; among several those
        whose tokens are as many as the model's are taken.

    Returns
    -------
    TransformersCheckpoint
        Genes are named by symbol, by Ensembl id where they have none; genes without a positive median are not known.

    Raises
    ------
    CheckpointError
        If files are missing or damaged, disagree, ask for code to be run, or hold weights that are not finite.
    MissingExtraError
        If ``transformers`` is not installed.
    """
    folder = Path(folder)
    require_transformers()
    settings, config_file = read_settings(folder, ("bert",))
    found, vocabulary_files = _read_vocabulary(folder, dictionaries, settings)
    with open_weights(folder, prefix=BertNetwork.prefix, ignored=BertNetwork.ignored) as weights:
        network = BertNetwork.load(settings, weights)
    files = (config_file, *vocabulary_files, *weights.files)
    return TransformersCheckpoint(
        name=folder.resolve().name,
        family="geneformer",
        licence=stated_licence(folder / "README.md"),
        digest=digest_files(files),
        files=files,
        ignored_keys=weights.ignored,
        network=network,
        vocabulary=found,
    )


def _read_vocabulary(
    folder: Path, dictionaries: str | Path | None, settings: Settings
) -> tuple[RankVocabulary, tuple[CheckpointFile, ...]]:
    """Read the first dictionaries whose tokens are as many as the model's."""
    stated = settings.count("vocab_size")
    places = [folder, folder / "geneformer", folder.resolve().parent / "geneformer"]
    others = []
    for tokens_path in _candidates(places if dictionaries is None else [Path(dictionaries)]):
        content, file = read_content(tokens_path)
        tokens = parse_dictionary(tokens_path, content, int)
        if len(tokens) != stated:
            others.append(f"{tokens_path.name} names {len(tokens)}")
            continue
        beside = [tokens_path.with_name(tokens_path.name.replace(TOKENS, stem, 1)) for stem in (MEDIANS, NAMES)]
        for path in beside:
            if not path.is_file():
                raise CheckpointError(f"{path} is missing, which belongs to {tokens_path.name}.")
        (medians, medians_file), (names, names_file) = (read_content(path) for path in beside)
        vocabulary = _vocabulary(
            tokens_path,
            tokens,
            parse_dictionary(beside[0], medians, float),
            parse_dictionary(beside[1], names, str),
            settings.count("max_position_embeddings"),
        )
        return vocabulary, (file, medians_file, names_file)
    if others:
        raise CheckpointError(
            f"{settings.path} states vocab_size {stated}, but {', '.join(others)} tokens.",
            "Geneformer's versions have dictionaries of their own; pass those of this model.",
        )
    raise CheckpointError(
        f"{folder if dictionaries is None else dictionaries} has no {TOKENS}*.pkl.",
        f"Put {TOKENS}*.pkl, {MEDIANS}*.pkl and {NAMES}*.pkl of Geneformer beside config.json.",
    )


def _candidates(places: Sequence[Path]) -> Iterator[Path]:
    """Token dictionaries of some folders, one level of folders inside them included."""
    for place in places:
        yield from sorted(place.glob(f"{TOKENS}*.pkl"))
        yield from sorted(place.glob(f"gene_dictionaries*/{TOKENS}*.pkl"))


def _vocabulary(
    path: Path, tokens: dict[str, int], medians: dict[str, float], names: dict[str, str], max_size: int
) -> RankVocabulary:
    """Join the three dictionaries."""
    if sorted(tokens.values()) != list(range(len(tokens))):
        raise CheckpointError(f"{path} must number its {len(tokens)} tokens from 0 to {len(tokens) - 1}, each once.")
    begin, end = tokens.get("<cls>"), tokens.get("<eos>")
    if "<pad>" not in tokens or (begin is None) != (end is None):
        raise CheckpointError(f"{path} has no <pad>, or only one of <cls> and <eos>.")
    if max_size <= 2:
        raise CheckpointError(f"{path}: max_position_embeddings {max_size} leaves no place for genes.")
    known = {
        gene: (token, medians[gene])
        for gene, token in sorted(tokens.items(), key=lambda entry: entry[1])
        if not _SPECIAL.fullmatch(gene) and 0 < medians.get(gene, 0) < np.inf
    }
    if not known:
        raise CheckpointError(f"{path} shares no gene with the medians beside it.")
    symbols: dict[str, str] = {}
    for symbol, gene in names.items():
        if symbol not in known:
            symbols.setdefault(gene, symbol)
    everything = RankVocabulary(
        genes=(),
        token_ids=np.zeros(0, np.int64),
        medians=np.zeros(0),
        known=known,
        ids={symbol: gene for symbol, gene in names.items() if symbol not in known},
        pad=tokens["<pad>"],
        begin=begin,
        end=end,
        max_size=max_size,
    )
    return everything.with_genes([symbols.get(gene, gene) for gene in known])
