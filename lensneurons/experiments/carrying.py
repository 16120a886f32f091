"""The runs behind `CarryOver`: every layer of every source put into its target.

A source is read once, with the residual stream after every layer at its last token. Its target is
then read once without a patch and once a layer with one. Targets are padded on the right, where a
causal model needs no mask; what is asked about stands at positions of their own.

Two texts to patch between, and what the second one may go on with.

A pair is two *different* items: the source asks A in one language, the target asks B in another.
Both stop right before the answer. What the target then says, once a state of the source was put
into it, tells what the state carried:

    ============  ====================================  =====================
    outcome       continuation                          what was carried
    ============  ====================================  =====================
    ``both``      A's answer in the source's language   the answer and its language
    ``concept``   A's answer in the target's language   the answer without its language
    ``language``  B's answer in the source's language   the language without the answer
    ``neither``   B's answer in the target's language   nothing
    ============  ====================================  =====================

Where the answer is written alike in both languages (digits, or Han numerals in Chinese and
Japanese), ``concept`` and ``neither`` alone are left, and only the answer can be seen to travel.

`answer_pairs` makes such pairs of a parallel corpus. Where it stops decides what is measured:

    ``"thing"``   after the digits after the last "=": "16 + 26 = 42| apples". The last position is
                  a digit, the same in every language, so the language that is carried comes from
                  the text before it. The answer is what is counted.
    ``"result"``  before those digits: "16 + 26 = |42". The model has to work the result out of the
                  operands; digits have no language.
    ``"word"``    before the number word of the demo's last sentence: "The answer is| forty-two".
                  The result stands in the text as digits and is only to be said. But the last
                  position is a word of the source's language, so the language is carried from the
                  first layer on, by that word itself.
    ``"number"``  before the last number of any corpus's responses, such as MGSM's.

Items that lack it (Swahili ones go on "42, so ...") take no part.

>>> pairs = ln.answer_pairs(corpus, source="en", before="thing")         # doctest: +SKIP

What this does not show: that two answers mean one concept. They are translations because the corpus
says so, and what precedes the answer (prompt, names, operands) differs between A and B as well.

How much of a text in one language is carried into a text in another, layer by layer.

The residual stream after layer l at the last position of a source text is put into the last
position of a target text (`lensneurons.interventions.patching`), and the model is asked how
probable each of up to four continuations is (`lensneurons.experiments.carrying`). With p_o for
the probability of outcome o,

    share(o)          p_o / (sum of p over the outcomes)                  of each layer and pair
    answer carried    share(both) + share(concept)       the source's answer, in either language
    language carried  share(both) + share(language)      the source's language, either answer
    covered           sum of p over the outcomes: where it is small, the shares are about little

After the last layer both are what the source itself would say, by construction; in the first layers
they are what the target says. What can be read is where each of them turns. An answer that is
carried in layers where the language is not yet is written in the stream in a form that serves both
languages (Dumas et al. 2024, "Separating Tongue from Thought", arXiv 2411.08745).

>>> pairs = ln.answer_pairs(corpus, languages=["en", "de", "sw"])        # doctest: +SKIP
>>> result = ln.carry_over(model, pairs)                                 # doctest: +SKIP
>>> result.share("both", "concept")                                      # doctest: +SKIP
>>> result.interval("both", "concept", pooled=True)                      # doctest: +SKIP

Its control is the same within one language: name the source's language among the targets, and what
is not carried there either is not for want of a shared form.

Only the next token is asked about by default: later tokens of an answer are predicted at positions
of the target that nothing was put into, so they follow the target (``tokens="all"`` shows it).

What this does not show: that the model itself carries an answer this way. Later layers also read
the target at all other positions, and what they read there can outvote what was put in.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import regex
import torch

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.corpora.items import Item
from lensneurons.errors import CorpusError, LensNeuronsError, choose
from lensneurons.evaluation.likelihood import fitting
from lensneurons.interventions.patching import Put, putting, read_source, residual_name
from lensneurons.models.family import context_length
from lensneurons.models.forward import to_device
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.registry import ANSWER_SPANS, load_registered
from lensneurons.shapes import LayerLanguages, PatchedValues, TextNumbers, TokenIds, UnpatchedValues
from lensneurons.tokens.encoding import exact_backend
from lensneurons.tokens.prepared import model_provenance
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import item_bootstrap
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.provenance import Provenance
from lensneurons.values.tables import html_table

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


Before = Literal["thing", "result", "word", "number"]
OUTCOMES = ("both", "concept", "language", "neither")

_ANSWERS = {
    "thing": regex.compile(r"(?>.*=)\s*\d+(\s*[\p{L}\p{M}]+)", regex.DOTALL),
    "result": regex.compile(r"(?>.*=)\s*(\d+)", regex.DOTALL),
    "number": regex.compile(r".*(?<![\d.,])(\d(?:[\d.,]*\d)?)", regex.DOTALL),
}


@dataclass(frozen=True, slots=True)
class PatchPair:
    """A source and a target text, and what the target may go on with.

    Attributes:
        source: text whose state at its end is put into the target.
        source_next: how the source goes on in its own run. It is not read; it decides where the
            last token of the source ends.
        target: text whose last position gets that state.
        continuations: name of an outcome to the text that may follow the target.
        language: language of the target.
        item: what is drawn again in a bootstrap; pairs of the same items share it.
    """

    source: str
    source_next: str
    target: str
    continuations: Mapping[str, str]
    language: str
    item: str


class EncodedPair(NamedTuple):
    """A pair in tokens: ids of both texts up to the end, and of each continuation."""

    source: list[int]
    target: list[int]
    continuations: dict[str, list[int]]


def answer_pairs(
    corpus: ParallelCorpus,
    *,
    source: str = "en",
    languages: Sequence[str] | None = None,
    before: Before = "result",
    seed: int = 0,
) -> list[PatchPair]:
    """Pair different items of a parallel corpus, cut before their answers.

    Items are shuffled and paired two by two, so no item is in two pairs; each pair is taken in both
    directions and in every language.

    Args:
        corpus: items whose responses hold their answers.
        source: language of the sources.
        languages: languages of the targets; None for all but `source`. With `source` itself among
            them, patching within a language stands beside patching across.
        before: where both texts stop; see above. ``"number"`` is for any corpus.
        seed: of the shuffle.

    Returns:
        The pairs, language by language. Outcomes that are written alike are left out.

    Raises:
        CorpusError: a language that the corpus lacks or whose responses have nothing that `before`
            looks for, or fewer than four items that have it in all these languages.
        LensNeuronsError: `before` is not known.
    """
    choose(before, get_args(Before), "before")
    targets = [tag for tag in corpus.languages if tag != source]
    targets = targets if languages is None else list(languages)
    wanted = corpus.select(list(dict.fromkeys([source, *targets])))
    cuts = {}
    for item in wanted:
        if span := _answer_span(item, before):
            cuts[item.id, item.language] = _cut(item, *span)
    units = _units(wanted, cuts, before, seed)
    return [
        _pair(cuts, a, b, source, language, f"{min(unit)}|{max(unit)}")
        for language in targets
        for unit in units
        for a, b in (unit, unit[::-1])
    ]


def _units(
    corpus: ParallelCorpus, cuts: Mapping[tuple[str, str], Any], before: Before, seed: int
) -> list[tuple[str, str]]:
    """Items two by two: those that could be cut in every language."""
    for tag in corpus.languages:
        if not any((name, tag) in cuts for name in corpus.ids):
            raise CorpusError(
                f"before={before!r} finds nothing in the responses of {tag!r}: leave it out of "
                "languages=, or cut elsewhere"
            )
    shared = [i for i in corpus.ids if all((i, tag) in cuts for tag in corpus.languages)]
    if len(shared) < 4:
        raise CorpusError(
            f"before={before!r} finds something in {len(shared)} items in all of "
            f"{list(corpus.languages)}: two pairs need four"
        )
    order = np.random.default_rng(seed).permutation(len(shared))
    names = [shared[place] for place in order]
    return list(zip(names[::2], names[1::2], strict=False))


def _cut(item: Item, start: int, stop: int) -> tuple[str, str]:
    """What stands before the answer, and the answer, which is response[start:stop]."""
    seam = len(item.prompt) + start
    return item.text[:seam], item.response[start:stop]


def _answer_span(item: Item, before: Before) -> tuple[int, int] | None:
    """Where the answer stands in the response, as its first character and its end."""
    registered = load_registered(ANSWER_SPANS, before)
    if registered is not None:
        return registered(item)
    found = _ANSWERS[before].match(item.response)
    return found.span(1) if found else None


def _pair(
    cuts: Mapping[tuple[str, str], tuple[str, str]],
    a: str,
    b: str,
    source: str,
    language: str,
    unit: str,
) -> PatchPair:
    """The pair of item A in the source's language and item B in the target's."""
    (text_a, said_a), (text_b, said_b) = cuts[a, source], cuts[b, language]
    continuations = {
        "both": said_a,
        "concept": cuts[a, language][1],
        "language": cuts[b, source][1],
        "neither": said_b,
    }
    for outcome, alike in (("both", "concept"), ("language", "neither")):
        if continuations[outcome].strip() == continuations[alike].strip():
            del continuations[outcome]
    return PatchPair(text_a, said_a, text_b, continuations, language, unit)


def encode_pairs(
    pairs: Sequence[PatchPair], tokenizer: PreTrainedTokenizerBase
) -> list[EncodedPair | None]:
    """Encode pairs, each text together with what follows it, as a model reads it in one piece.

    The target ends where its continuations part: before the first token that holds a character of
    any of them. A pair whose continuations do not begin with different tokens cannot tell them
    apart at the next token, and is None.

    Args:
        pairs: what to encode.
        tokenizer: a Hugging Face fast tokenizer; it stays as it is.

    Raises:
        LensNeuronsError: no pairs, or one with fewer than two continuations or an empty text.
    """
    _require_pairs(pairs)
    backend = exact_backend(tokenizer, [pairs[0].source])
    return [_encode_pair(pair, backend) for pair in pairs]


def _require_pairs(pairs: Sequence[PatchPair]) -> None:
    if not pairs:
        raise LensNeuronsError("no pairs to patch between: make some with answer_pairs()")
    for pair in pairs:
        texts = (pair.source, pair.target, *pair.continuations.values())
        if len(pair.continuations) < 2 or not all(texts):
            raise LensNeuronsError(
                f"pair {pair.item!r} ({pair.language}) needs two texts and at least two "
                f"continuations that are not empty, not {dict(pair.continuations)}"
            )


def _encode_pair(pair: PatchPair, backend: Any) -> EncodedPair | None:
    source, seam = _encode(backend, pair.source, pair.source_next)
    whole = {name: _encode(backend, pair.target, text) for name, text in pair.continuations.items()}
    ids = [ids for ids, _ in whole.values()]
    end = min(_shared(ids), *(seam for _, seam in whole.values()))
    firsts = {one[end] for one in ids if len(one) > end}
    if not seam or not end or len(firsts) < len(ids):
        return None
    rest = {name: one[end:] for name, (one, _) in whole.items()}
    return EncodedPair(source[:seam], ids[0][:end], rest)


def _encode(backend: Any, text: str, after: str) -> tuple[list[int], int]:
    """Ids of a text and what follows it, and how many of them hold characters of the text alone."""
    encoding = backend.encode(text + after)
    muted, ends = encoding.special_tokens_mask, [end for _, end in encoding.offsets]
    stop = max((i + 1 for i, mute in enumerate(muted) if not mute), default=0)
    beyond = (i for i in range(stop) if not muted[i] and ends[i] > len(text))
    return encoding.ids[:stop], next(beyond, stop)


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest common beginning."""
    columns: Iterator[tuple[int, ...]] = zip(*rows, strict=False)
    return next(
        (i for i, column in enumerate(columns) if len(set(column)) > 1), min(map(len, rows))
    )


Asked = Literal["first", "all"]
KIND = "carry-over"


@dataclass(frozen=True, eq=False, repr=False)
class CarryOver:
    """How probable each outcome is after patching each layer, pair by pair; immutable.

    Attributes:
        log_probability: float64 [layer, pair, outcome], in nats, summed over the tokens asked
            about; NaN where a pair has no such outcome.
        unpatched: float64 [pair, outcome], the same without any patch.
        outcomes: names of the outcomes.
        languages: languages of the targets; the order of every result by language.
        language: int [pair], number of each pair's language.
        items: what is drawn again, for each pair.
        tokens: ``"first"`` token of each continuation, or ``"all"``.
        dropped: language to pairs left out because their outcomes begin with the same token.
        provenance: model and texts.
    """

    log_probability: PatchedValues
    unpatched: UnpatchedValues
    outcomes: tuple[str, ...]
    languages: tuple[str, ...]
    language: TextNumbers
    items: tuple[str, ...]
    tokens: Asked = "first"
    dropped: Mapping[str, int] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)

    @cached_property
    def shares(self) -> PatchedValues:
        """float64 [layer, pair, outcome]: probability among the outcomes; NaN where none is."""
        return _shares(self.log_probability)

    @cached_property
    def covered(self) -> LayerLanguages:
        """float64 [layer, language]: mean probability of all outcomes together, 0 to 1."""
        total = np.nansum(np.exp(self.log_probability), axis=-1)
        return _means(total, np.ones(len(self.items)), self.language, len(self.languages))

    def share(self, *outcomes: str) -> LayerLanguages:
        """Mean share of some outcomes together, float64 [layer, language], 0 to 1.

        ``share("both", "concept")`` is how much of the answer is carried, ``share("both",
        "language")`` how much of the language. Pairs that have none of the outcomes do not count;
        NaN where a language has no pair left.

        Raises:
            LensNeuronsError: an outcome is not known.
        """
        values, weights = self._chosen(self.shares, outcomes)
        return _means(values, weights, self.language, len(self.languages))

    def unpatched_share(self, *outcomes: str) -> LayerLanguages:
        """What `share` is without a patch, float64 [1, language].

        Raises:
            LensNeuronsError: an outcome is not known.
        """
        values, weights = self._chosen(_shares(self.unpatched[None]), outcomes)
        return _means(values, weights, self.language, len(self.languages))

    def interval(
        self,
        *outcomes: str,
        pooled: bool = False,
        draws: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> Interval:
        """`share` with its bootstrap interval over pairs of items.

        Args:
            outcomes: whose shares are added.
            pooled: whether all languages are taken together.
            draws: how many sets of pairs to draw; a pair is drawn with all its languages.
            level: coverage.
            seed: the same seed gives the same interval.

        Returns:
            [layer, language], or [layer, 1] where pooled.

        Raises:
            LensNeuronsError: an outcome is not known, fewer than two pairs of items, or a language
                without any pair that has them.
        """
        values, weights = self._chosen(self.shares, outcomes)
        language = np.zeros_like(self.language) if pooled else self.language
        counts = np.bincount(language, weights, minlength=1 if pooled else len(self.languages))
        if not counts.all():
            lacking = [k for k, n in zip(self.languages, counts, strict=False) if not n]
            raise LensNeuronsError(f"no pair of {lacking} has an outcome of {list(outcomes)}")
        return item_bootstrap(
            self.items, language, values, weights, draws=draws, level=level, seed=seed
        )

    def _chosen(
        self, shares: PatchedValues, outcomes: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Shares of outcomes added up [layer, pair], and which pairs have any of them [pair]."""
        if not outcomes:
            raise LensNeuronsError(f"name at least one outcome of {list(self.outcomes)}")
        known = dict.fromkeys((*OUTCOMES, *self.outcomes))
        wanted = [choose(outcome, known, "outcome") for outcome in outcomes]
        places = [place for place, name in enumerate(self.outcomes) if name in wanted]
        present = ~np.isnan(self.unpatched[:, places]).all(axis=-1)
        return np.nansum(shares[..., places], axis=-1), present.astype(float)

    def to_patching_result(self) -> Any:
        """The log-probabilities as TransformerLens's ``PatchingResult``: its statistics and plots.

        A metric for each outcome that every pair has, the axis ``layer``, and the pairs as batch.
        """
        import pandas as pd
        from transformer_lens.patching import PatchingResult

        whole = np.atleast_1d(~np.isnan(self.unpatched).any(axis=0))
        values = torch.from_numpy(self.log_probability[..., whole]).permute(2, 0, 1)
        return PatchingResult(
            values=values,
            axis_names=["layer"],
            index_df=pd.DataFrame({"layer": range(len(self.log_probability))}),
            metric_names=[o for o, full in zip(self.outcomes, whole, strict=True) if full],
            reduced=False,
            baseline=torch.from_numpy(self.unpatched[:, whole].T.copy()),
            has_metric_axis=True,
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row a layer, pair and outcome: log_probability (nats) and share; layer -1 is the
        target without a patch.
        """
        import pandas as pd

        values = np.concatenate([self.unpatched[None], self.log_probability])
        layer, pair, outcome = (axis.ravel() for axis in np.indices(values.shape))
        table = pd.DataFrame(
            {
                "layer": layer - 1,
                "language": np.array(self.languages)[self.language[pair]],
                "items": np.array(self.items)[pair],
                "pair": pair,
                "outcome": np.array(self.outcomes)[outcome],
                "log_probability": values.ravel(),
                "share": _shares(values).ravel(),
            }
        )
        return table.dropna(subset="log_probability", ignore_index=True)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        arrays = {name: getattr(self, name) for name in ("log_probability", "unpatched")}
        names = ("outcomes", "languages", "items", "tokens", "dropped")
        details = {name: getattr(self, name) for name in names}
        details["provenance"] = self.provenance.to_dict()
        return save_arrays(path, KIND, {**arrays, "language": self.language}, details)

    @classmethod
    def load(cls, path: str | Path) -> CarryOver:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        arrays, details = load_arrays(path, KIND)
        for name in ("outcomes", "languages", "items"):
            details[name] = tuple(details[name])
        details["provenance"] = Provenance.from_dict(details["provenance"])
        return cls(**arrays, **details)

    def __repr__(self) -> str:
        n, layers = len(self.items), len(self.log_probability)
        return f"CarryOver({n} pairs into {' '.join(self.languages)}, {layers} layers)"

    def _repr_html_(self) -> str:
        rows = [("-", *self._row(_shares(self.unpatched[None]), self.unpatched[None], 0))]
        rows += [
            (layer, *self._row(self.shares, self.log_probability, layer))
            for layer in range(len(self.shares))
        ]
        return html_table(repr(self), ("layer", *self.outcomes, "covered"), rows)

    def _row(self, shares: PatchedValues, values: PatchedValues, layer: int) -> list[str]:
        """Mean share of each outcome over all pairs that have it, and what they cover."""
        means = [f"{np.nanmean(shares[layer, :, o]):.3f}" for o in range(len(self.outcomes))]
        return [*means, f"{np.nansum(np.exp(values[layer]), axis=-1).mean():.3f}"]


def _shares(values: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, past NaN."""
    odds = np.exp(values - np.nanmax(values, axis=-1, keepdims=True))
    return odds / np.nansum(odds, axis=-1, keepdims=True)


def _means(
    values: np.ndarray, weights: np.ndarray, language: TextNumbers, n: int
) -> LayerLanguages:
    """Weighted mean by language of values [layer, pair]."""
    sums = np.stack([np.bincount(language, row * weights, minlength=n) for row in values])
    whole = np.bincount(language, weights, minlength=n)
    return np.divide(sums, whole, out=np.full_like(sums, np.nan), where=whole > 0)


class _Row(NamedTuple):
    """A target to read, its last token, and (position, token, outcome) of what is asked about."""

    pair: int
    ids: list[int]
    end: int
    asked: list[tuple[int, int, int]]


def carry_over(
    model: Any,
    pairs: Sequence[PatchPair],
    *,
    tokens: Asked = "first",
    batch_tokens: int = 4096,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> CarryOver:
    """Put every layer's residual stream from the source of each pair into its target.

    Args:
        model: a TransformerLens model; hooks that are on it act on both runs.
        pairs: what `answer_pairs` gives, or your own.
        tokens: whether the ``"first"`` token of each continuation is asked about, or ``"all"``, one
            after the other, each as if those before it had been said.
        batch_tokens: most tokens in a batch.
        tokenizer: by default the model's own, as it was saved.
        progress: whether to show a progress bar.

    Returns:
        Log-probabilities by layer, pair and outcome. Pairs whose continuations begin with the same
        token are left out, and counted in `CarryOver.dropped`.

    Raises:
        LensNeuronsError: no pairs, or none whose continuations can be told apart.
        CorpusError: a text is longer than the model's context.
    """
    choose(tokens, get_args(Asked), "tokens")
    site, tokenizer = neuron_site(model), tokenizer or original_tokenizer(model)
    kept, encoded = _distinct(pairs, encode_pairs(pairs, tokenizer))
    outcomes = _outcome_names(kept)
    rows = [row for i, one in enumerate(encoded) for row in _rows(i, one, outcomes, tokens)]
    _require_context(model, rows, encoded)
    found = np.full((site.n_layers + 1, len(kept), len(outcomes)), np.nan)
    plan = list(_plan(rows, fitting(model, batch_tokens)))
    for batch in _with_progress(plan, progress):
        for layer, said in enumerate(_ask(model, batch, encoded, site)):
            _add_up(found[layer], batch, said)
    languages = tuple(dict.fromkeys(pair.language for pair in kept))
    return CarryOver(
        log_probability=found[1:],
        unpatched=found[0],
        outcomes=outcomes,
        languages=languages,
        language=np.array([languages.index(pair.language) for pair in kept]),
        items=tuple(pair.item for pair in kept),
        tokens=tokens,
        dropped=_count_dropped(pairs, kept),
        provenance=_provenance(model, site, tokenizer, encoded),
    )


def _distinct(
    pairs: Sequence[PatchPair], encoded: Sequence[EncodedPair | None]
) -> tuple[list[PatchPair], list[EncodedPair]]:
    """The pairs whose continuations begin with different tokens."""
    found = [(p, one) for p, one in zip(pairs, encoded, strict=True) if one is not None]
    if not found:
        raise LensNeuronsError(
            f"in all {len(pairs)} pairs two continuations begin with the same token, so the next "
            "token cannot tell them apart: give more items, or another before="
        )
    return [p for p, _ in found], [one for _, one in found]


def _count_dropped(pairs: Sequence[PatchPair], kept: Sequence[PatchPair]) -> dict[str, int]:
    given, left = (Counter(pair.language for pair in some) for some in (pairs, kept))
    return {language: n - left[language] for language, n in given.items()}


def _outcome_names(pairs: Sequence[PatchPair]) -> tuple[str, ...]:
    """All outcomes, the usual four first and in their order."""
    named = {name for pair in pairs for name in pair.continuations}
    return (*(o for o in OUTCOMES if o in named), *sorted(named - set(OUTCOMES)))


def _rows(
    number: int, pair: EncodedPair, outcomes: tuple[str, ...], tokens: Asked
) -> Iterator[_Row]:
    """One row where next tokens are asked about, one a continuation where all of its tokens are."""
    end, places = len(pair.target) - 1, {name: outcomes.index(name) for name in pair.continuations}
    if tokens == "first":
        asked = [(end, ids[0], places[name]) for name, ids in pair.continuations.items()]
        yield _Row(number, pair.target, end, asked)
        return
    for name, ids in pair.continuations.items():
        asked = [(end + i, token, places[name]) for i, token in enumerate(ids)]
        yield _Row(number, pair.target + ids[:-1], end, asked)


def _require_context(model: Any, rows: Sequence[_Row], encoded: Sequence[EncodedPair]) -> None:
    longest = max(len(ids) for ids in [*(r.ids for r in rows), *(e.source for e in encoded)])
    if longest > context_length(model):
        raise CorpusError(
            f"a text of {longest} tokens is beyond the model's context of {context_length(model)}"
        )


def _plan(rows: Sequence[_Row], batch_tokens: int) -> Iterator[list[_Row]]:
    """Batches of rows, the longest first."""
    ordered = sorted(rows, key=lambda row: -len(row.ids))
    while ordered:
        size = max(1, batch_tokens // len(ordered[0].ids))
        yield ordered[:size]
        ordered = ordered[size:]


def _ask(
    model: Any, batch: list[_Row], encoded: Sequence[EncodedPair], site: NeuronSite
) -> Iterator[np.ndarray]:
    """Log-probability of everything asked about, without a patch and then layer by layer."""
    sources, targets = (
        _pad(texts) for texts in ([encoded[r.pair].source for r in batch], [r.ids for r in batch])
    )
    last = torch.tensor([[len(encoded[r.pair].source) - 1] for r in batch])
    ends = torch.tensor([[r.end] for r in batch])
    names = [residual_name(layer) for layer in range(site.n_layers)]
    streams = read_source(model, sources, names, last)
    yield _log_probabilities(model, targets, batch)
    for name in names:
        with putting(model, {name: Put(streams[name], ends, source_length=1)}):
            yield _log_probabilities(model, targets, batch)


def _pad(texts: Sequence[Sequence[int]]) -> TokenIds:
    """Texts as one rectangle, filled up with id 0 on the right."""
    longest = max(map(len, texts))
    return torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in texts])


@torch.inference_mode()
def _log_probabilities(model: Any, ids: TokenIds, batch: list[_Row]) -> np.ndarray:
    """float64 [asked]: in nats, row by row."""
    asked = [(row, place, token) for row, r in enumerate(batch) for place, token, _ in r.asked]
    rows, places, tokens = torch.tensor(asked).T
    logits = model(to_device(model, ids), attention_mask=None, return_type="logits")
    rows, places, tokens = (one.to(logits.device) for one in (rows, places, tokens))
    chosen = logits[rows, places].double()
    said = chosen.gather(-1, tokens[:, None])[:, 0] - chosen.logsumexp(-1)
    return said.cpu().numpy()


def _add_up(found: np.ndarray, batch: list[_Row], said: np.ndarray) -> None:
    """Add what was asked about to [pair, outcome], where NaN is nothing yet."""
    cells = [(row.pair, outcome) for row in batch for _, _, outcome in row.asked]
    for cell, value in zip(cells, said, strict=True):
        found[cell] = value if np.isnan(found[cell]) else found[cell] + value


def _provenance(
    model: Any,
    site: NeuronSite,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[EncodedPair],
) -> Provenance:
    """Where the result comes from; the pairs stand for the corpus."""
    fingerprint = hashlib.sha256(json.dumps(encoded).encode()).hexdigest()
    return replace(
        model_provenance(model, tokenizer, fingerprint),
        hook="hook_resid_post",
        activation=site.activation_name,
        scope="the end of each text",
    )


def _with_progress(plan: list[list[_Row]], shown: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(plan, desc="carry over", unit="batch", disable=not shown)
