"""Attention by language: what do the heads look at while they read a text of a language?

For head h of layer l and a text in language k, over its counted tokens i as destinations,

    share[l, h, target] = sum over i, and over sources j <= i of the target, of A[l, h, i, j]
                          / number of counted tokens                          A: hook_pattern

where every source token is of one target:

    special   BOS and other special tokens: where a head puts what it has left over
    own       letters (and their marks) of a script that the text's language is written in
    foreign   letters of other scripts, a Latin name in Thai; none where the script is not known
    digits    digits without a letter beside them
    rest      punctuation, spaces, signs

and, in another division, **prompt** (before the first counted token) or **response** (counted).
Parts of characters (bytes) are of the target of the characters that they make up together.

Which heads treat languages differently? For each head and target the standard deviation of the mean
share over languages is set against texts whose language means nothing: the languages of each item
are shuffled (`AttentionShares.ranked`). p is the share of shuffles that spread as much, and is
adjusted for the number of heads (Benjamini and Hochberg 1995).

>>> shares = ln.experiments.attention_shares(model, corpus)                # doctest: +SKIP
>>> shares.ranked("special").head()                                        # doctest: +SKIP
>>> ln.views.attention(model, texts, layer=3, heads=[5])                   # doctest: +SKIP

What this does not show: what a head does with what it looks at; a large share is no proof of use
(Jain and Wallace 2019, arXiv 1902.10186). Languages have unlike numbers of tokens and unlike shares
of digits, so a head that looks everywhere alike has other shares in other languages: compare with
`AttentionShares.available`, the shares of the sources themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import regex
import torch
from jaxtyping import Float64, Int, Int64

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import LensNeuronsError, ModelError, choose
from lensneurons.languages.codes import foreign_share
from lensneurons.models.attention_patterns import ROW_TOLERANCE, pattern_hooks
from lensneurons.models.family import model_family
from lensneurons.models.forward import least_logits, to_device
from lensneurons.models.running import runs_model
from lensneurons.options import plain_options
from lensneurons.tokens.batches import Batch
from lensneurons.tokens.characters import piece_bytes, token_texts
from lensneurons.tokens.encoding import EncodedCorpus, Scope, special_ids
from lensneurons.tokens.prepared import UNTOLD, PreparedCorpus, model_provenance, prepare
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import ItemDraws
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

Target = Literal["special", "own", "foreign", "digits", "rest", "prompt", "response"]
TARGETS: tuple[Target, ...] = get_args(Target)
WRITTEN = TARGETS[1:5]  # what is written, once before and once among the counted tokens
# Columns of `AttentionShares.mass`: a token is of exactly one.
COLUMNS = ("special", *(f"{place} {what}" for place in ("prompt", "response") for what in WRITTEN))
# A vowel sign alone is a mark.
_LETTER, _DIGIT = regex.compile(r"[\p{L}\p{M}]"), regex.compile(r"\p{Nd}")


@dataclass(frozen=True, eq=False, repr=False)
class AttentionShares(Value):
    """Attention of every head by what it looks at, text by text. Made by `attention_shares`.

    Attributes:
        mass: float64 [layer, head, text, column], attention summed over the counted tokens of the
            text; the columns are `COLUMNS`, and add up to the tokens.
        uniform: float64 [text, column], the same of a head that looks at every source alike.
        tokens: int64 [text], counted tokens.
        language: int [text], number of each text's language.
        item_ids: name of each text's item, the same in every language.
        languages: codes; the order of every result by language.
        provenance: model and texts.
    """

    FILE_KIND = "attention shares"
    AXES = {
        "mass": ("layer", "head", "text", "column"),
        "uniform": ("text", "column"),
        "tokens": ("text",),
        "language": ("text",),
    }
    COORDINATES = {"text": "item_ids"}

    mass: Float64[np.ndarray, "layer head text column"]
    uniform: Float64[np.ndarray, "text column"]
    tokens: Int64[np.ndarray, " text"]
    language: Int[np.ndarray, " text"]
    item_ids: tuple[str, ...]
    languages: tuple[str, ...]
    provenance: Provenance = field(default_factory=Provenance)

    def shares(self, target: Target) -> Float64[np.ndarray, "layer head language"]:
        """float64 [layer, head, language]: mean share of a target, 0 to 1, weighted by tokens.

        Raises:
            LensNeuronsError: no such target.
        """
        return self._mean(self._sums(self.mass, target))

    def available(self, target: Target) -> Float64[np.ndarray, " language"]:
        """float64 [language]: the share that a head which looks at every source alike would have.

        Raises:
            LensNeuronsError: no such target.
        """
        return self._mean(self._sums(self.uniform, target))

    @plain_options
    def interval(
        self, target: Target, *, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Mean share of a target with its bootstrap interval over items.

        Args:
            target: what is looked at.
            draws: how many corpora to draw; an item is drawn with all its languages.
            level: coverage.
            seed: the same seed gives the same interval.

        Returns:
            [layer, head, language].

        Raises:
            LensNeuronsError: no such target, or fewer than two items.
        """
        sums = self._sums(self.mass, target)
        flat = sums.reshape(-1, sums.shape[-1])
        corpora = ItemDraws(self.item_ids, self.language, draws, seed)
        found = corpora.interval(self._mean(flat), corpora.means(flat, self.tokens), level)
        shape = (*sums.shape[:2], len(self.languages))
        middle, low, high = (one.reshape(shape) for one in (found.estimate, found.low, found.high))
        return Interval(middle, low, high, found.level, found.method)

    @plain_options
    def ranked(self, target: Target, *, draws: int = 999, seed: int = 0) -> pd.DataFrame:
        """The heads, ordered by how much their share of a target differs among the languages.

        Args:
            target: what is looked at.
            draws: how often the languages of each item are shuffled.
            seed: the same seed gives the same shuffles.

        Returns:
            One row a head: layer, head, `spread` (standard deviation of the mean share over
            languages, each text counting the same), `spread_shuffled` (its mean with shuffled
            languages), p, p_adjusted (false discovery rate over all heads), and the languages with
            the lowest and the highest share, with these.

        Raises:
            LensNeuronsError: no such target, fewer than two languages, or fewer than two items that
                have them all.
        """
        import pandas as pd
        from scipy.stats import false_discovery_control

        table = self._table(target)  # [head, item, language]
        means = table.mean(axis=1)
        spread = means.std(axis=-1)
        random = np.random.default_rng(seed)
        reached, total = np.zeros(len(spread)), np.zeros(len(spread))
        for _ in range(draws):
            order = random.permuted(np.tile(np.arange(table.shape[2]), (table.shape[1], 1)), axis=1)
            drawn = np.take_along_axis(table, order[None], axis=2).mean(axis=1).std(axis=-1)
            reached += drawn >= spread * (1 - 1e-12)
            total += drawn
        p = (1 + reached) / (1 + draws)
        # Objects hold any text, the strings of pandas only what Arrow can encode.
        names = pd.Series(self.languages, dtype=object)
        layers, heads = np.divmod(np.arange(len(spread)), self.mass.shape[1])
        found = {
            "layer": layers,
            "head": heads,
            "spread": spread,
            "spread_shuffled": total / draws,
            "p": p,
            "p_adjusted": false_discovery_control(p),
            "lowest": names.take(means.argmin(axis=-1)).reset_index(drop=True),
            "lowest_share": means.min(axis=-1),
            "highest": names.take(means.argmax(axis=-1)).reset_index(drop=True),
            "highest_share": means.max(axis=-1),
        }
        return pd.DataFrame(found).sort_values("spread", ascending=False, ignore_index=True)

    def _table(self, target: Target) -> Float64[np.ndarray, "head item language"]:
        """Share of a target in each text of the items that have all languages."""
        sums = self._sums(self.mass, target)
        share = (sums / self.tokens).reshape(-1, sums.shape[-1])
        ids = {name: number for number, name in enumerate(dict.fromkeys(self.item_ids))}
        table = np.full((len(share), len(ids), len(self.languages)), np.nan)
        table[:, [ids[name] for name in self.item_ids], self.language] = share
        table = table[:, ~np.isnan(table[0]).any(axis=-1)]
        if table.shape[2] < 2 or table.shape[1] < 2:
            raise LensNeuronsError(
                f"{table.shape[1]} items in all of {list(self.languages)}: comparing languages "
                "needs two languages and two items that have both"
            )
        return table

    def to_pandas(self) -> pd.DataFrame:
        """One row a layer, head, language and target: its mean share, and what is `available`."""
        import pandas as pd

        values = np.stack([self.shares(target) for target in TARGETS], axis=-1)
        axes = (range(values.shape[0]), range(values.shape[1]), self.languages, TARGETS)
        rows = pd.MultiIndex.from_product(axes, names=["layer", "head", "language", "target"])
        there = np.stack([self.available(target) for target in TARGETS], axis=-1)
        there = np.broadcast_to(there, values.shape)
        found = {"share": values.ravel(), "available": there.ravel()}
        return pd.DataFrame(found, rows).reset_index()

    def _sums(self, mass: np.ndarray, target: str) -> np.ndarray:
        """[..., text]: attention on a target, summed over the counted tokens of each text."""
        choose(target, TARGETS, "target")
        return mass[..., [target in column.split() for column in COLUMNS]].sum(axis=-1)

    def _mean(self, sums: np.ndarray) -> np.ndarray:
        """[..., language] from sums [..., text], weighted by tokens."""
        of = np.eye(len(self.languages))[self.language]
        return sums @ of / (self.tokens @ of)

    def _brief(self) -> str:
        return (
            f"{self.mass.shape[0]} layers x {self.mass.shape[1]} heads; {' '.join(self.languages)};"
            f" {len(set(self.item_ids))} items, {int(self.tokens.sum()):,} "
            f"{self.provenance.scope} tokens"
        )

    def _overview(self) -> Overview:
        means = np.stack([self.shares(target).mean(axis=(0, 1)) for target in TARGETS], axis=-1)
        rows = [
            (code, *(f"{value:.3f}" for value in row))
            for code, row in zip(self.languages, means, strict=True)
        ]
        return Overview(f"Mean share of all heads: {self._brief()}", ("language", *TARGETS), rows)


@plain_options
@runs_model
def attention_shares(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    *,
    scope: Scope | None = None,
    batch_tokens: int = 2048,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = False,
) -> AttentionShares:
    """Sum up, head by head, what the counted tokens of each text look at.

    Args:
        model: a TransformerLens model; hooks that are on it (an ablation, say) act.
        corpus: the texts that are read, teacher-forced.
        scope: whose tokens look; None for those of the response.
        batch_tokens: most tokens in a batch, padding included. Patterns are summed up in the hook:
            memory holds those of one layer, heads x tokens x the longest text.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.
        progress: show a progress bar, in texts.

    Raises:
        CorpusError: texts that cannot be read.
        ModelError: not a TransformerLens model, a layer without attention patterns, or hooks that
            hold something else.
    """
    model_family(model)
    names = pattern_hooks(model)
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    encoded = prepared.encoded
    columns = source_columns(encoded, prepared.tokenizer)
    mass = np.zeros((len(names), int(model.cfg.n_heads), len(encoded), len(COLUMNS)))
    uniform = np.zeros((len(encoded), len(COLUMNS)))
    for batch in prepared.read(batch_tokens, "attention", progress=progress):
        members = np.zeros((*batch.tokens.shape, len(COLUMNS)), np.float32)
        for place, row in enumerate(batch.rows):
            own = columns[encoded.offsets[row] : encoded.offsets[row + 1]]
            members[place, np.arange(len(own)), own] = 1
        seen = members.cumsum(axis=1, dtype=np.float64)
        seen /= np.arange(1, seen.shape[1] + 1)[:, None]
        uniform[batch.rows] = (seen * batch.counted.numpy()[..., None]).sum(axis=1)
        mass[:, :, batch.rows] = _read(model, batch, names, torch.from_numpy(members))
    return AttentionShares(
        mass=mass,
        uniform=uniform,
        tokens=(encoded.stop - encoded.start).astype(np.int64),
        language=encoded.language,
        item_ids=encoded.item_ids,
        languages=encoded.languages,
        provenance=replace(
            model_provenance(
                model, prepared.tokenizer, prepared.corpus.fingerprint, prepared.corpus.template
            ),
            hook="hook_pattern",
            scope=prepared.scope,
        ),
    )


def source_columns(
    encoded: EncodedCorpus, tokenizer: PreTrainedTokenizerBase
) -> Int64[np.ndarray, " token"]:
    """The place in `COLUMNS` of every token of an encoded corpus."""
    backend, special = getattr(tokenizer, "backend_tokenizer"), special_ids(tokenizer)  # noqa: B009
    distinct, places = np.unique(encoded.ids, return_inverse=True)
    pieces = token_texts(backend, distinct.tolist())
    is_special = np.isin(encoded.ids, special)
    found = np.zeros(len(encoded.ids), np.int64)
    known: dict[tuple[str, str], int] = {}
    for text, (first, last) in enumerate(pairwise(encoded.offsets)):
        code = encoded.languages[encoded.language[text]]
        response = first + encoded.start[text]
        for begin, end, written in _whole_characters([pieces[n] for n in places[first:last]]):
            if (written, code) not in known:
                known[written, code] = WRITTEN.index(_what(written, code))
            for number in range(first + begin, first + end):
                shift = 1 + len(WRITTEN) * int(number >= response)
                found[number] = 0 if is_special[number] else shift + known[written, code]
    return found


def _whole_characters(pieces: Sequence[str]) -> list[tuple[int, int, str]]:
    """Runs of tokens [begin, end) that hold whole characters, and what is written in them."""
    runs: list[tuple[int, int, str]] = []
    begin, held = 0, b""
    for number, piece in enumerate([*pieces, ""]):
        part = piece_bytes(piece)
        if part is None:
            if held:  # of a character whose other bytes are missing
                runs.append((begin, number, ""))
            runs.append((number, number + 1, piece))
            begin, held = number + 1, b""
            continue
        held += part
        with suppress(UnicodeDecodeError):
            runs.append((begin, number + 1, held.decode("utf-8")))
            begin, held = number + 1, b""
    return runs[:-1]


def _what(written: str, code: str) -> Target:
    """What a piece of text is to a reader of a language."""
    if _LETTER.search(written):
        return "foreign" if code != UNTOLD and foreign_share(written, code) > 0.5 else "own"
    return "digits" if _DIGIT.search(written) else "rest"


@torch.inference_mode()
def _read(
    model: Any, batch: Batch, names: Sequence[str], members: torch.Tensor
) -> Float64[np.ndarray, "layer head row column"]:
    """Attention of one batch on each column, summed over the counted tokens of each row.

    Padding is on the right, where a causal model needs no mask.
    """
    shape = (len(batch.rows), int(model.cfg.n_heads), *2 * (batch.tokens.shape[1],))
    mass = np.full((len(names), shape[1], shape[0], len(COLUMNS)), np.nan)
    counted = batch.counted.float()

    def reader(layer: int) -> Callable[..., None]:
        def read(pattern: torch.Tensor, hook: Any) -> None:
            if pattern.shape != shape:
                raise ModelError(
                    f"{names[layer]} has the shape {tuple(pattern.shape)}; {shape} is expected"
                )
            looking = counted.to(pattern.device)
            looked = torch.einsum("bhij,bi->bhj", pattern.float(), looking)
            found = torch.einsum("bhj,bjc->bhc", looked, members.to(pattern.device))
            mass[layer] = found.permute(1, 0, 2).cpu().double().numpy()

        return read

    hooks = [(name, reader(layer)) for layer, name in enumerate(names)]
    with model.hooks(fwd_hooks=hooks):
        model(to_device(model, batch.tokens), attention_mask=None, **least_logits(model))
    # The hook may hold something else, such as scores before the softmax, or look ahead.
    total = mass.sum(axis=-1) / batch.counted.sum(1).numpy()
    if not (mass.min() >= 0 and np.abs(total - 1).max() <= ROW_TOLERANCE):
        raise ModelError(
            f"the hooks hold no attention: what a token looks at adds up to {total.min():.3g} to "
            f"{total.max():.3g}, and the least is {mass.min():.3g}; remove other hooks, or report "
            "the architecture"
        )
    return mass
