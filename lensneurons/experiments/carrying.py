"""How much of a text in one language is carried into a text in another, layer by layer.

A pair is two *different* items: the source asks A in one language, the target asks B in another,
and both stop right before the answer. The residual stream after layer l at the last position of the
source is put into the last position of the target (`lensneurons.interventions.patching`). What the
target then goes on with tells what the stream carried:

    ============  ====================================  =====================
    outcome       continuation                          what was carried
    ============  ====================================  =====================
    ``both``      A's answer in the source's language   the answer and its language
    ``concept``   A's answer in the target's language   the answer without its language
    ``language``  B's answer in the source's language   the language without the answer
    ``neither``   B's answer in the target's language   nothing
    ============  ====================================  =====================

With p_o the probability of outcome o,

    share(o)          p_o / (sum of p over the outcomes)              for each layer and pair
    answer carried    share(both) + share(concept)       the source's answer, in either language
    language carried  share(both) + share(language)      the source's language, either answer
    covered           sum of p over the outcomes: where it is small, the shares are about little

After the last layer the target says what the source would say, by construction. The finding is
where each of the two shares turns: an answer that is carried where the language is not yet has a
form that serves both languages (Dumas et al. 2024, arXiv 2411.08745).

`answer_pairs` makes pairs of a parallel corpus. The cut decides what is measured:

    ``"thing"``   after the digits after the last "=": "16 + 26 = 42| apples". The last position is
                  a digit, so the language that is carried comes from the text before it.
    ``"result"``  before those digits: "16 + 26 = |42". Digits have no language.
    ``"word"``    before the number word of the demo's last sentence: "The answer is| forty-two".
                  The last position is a word, which carries its language from the first layer on.
    ``"number"``  before the last number of any corpus's responses, such as MGSM's.

Items without such a place are left out (Swahili ones go on "42, so ..."). Where both languages
write the answer alike (digits, or Han numerals in Chinese and Japanese), only ``concept`` and
``neither`` are left, and only the answer can be seen to travel.

>>> pairs = ln.experiments.answer_pairs(corpus, source="en", cut="thing")  # doctest: +SKIP
>>> result = ln.carry_over(model, pairs)                                   # doctest: +SKIP
>>> result.interval("both", "concept", pooled=True)                        # doctest: +SKIP

The control is the same within one language: name the source's language among the targets. What is
not carried there either is not missing for want of a shared form.

By default only the next token is asked about. Later tokens of an answer are predicted at positions
of the target where nothing was put in, so they follow the target (``asked="all"`` shows it).

What this does not show: that the model itself carries an answer this way: later layers also read
the target at all other positions. Nor that two answers mean one concept: what precedes the answer
(prompt, names, operands) differs between A and B as well.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import regex
import torch
from jaxtyping import Float64, Int

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import CorpusError, LensNeuronsError, choose
from lensneurons.evaluation.likelihood import fitting
from lensneurons.interventions.editing import hooking
from lensneurons.interventions.patching import Put, read_source, residual_name
from lensneurons.models.family import context_length
from lensneurons.models.forward import to_device
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.running import require_finite, runs_model
from lensneurons.models.sites import neuron_site
from lensneurons.options import plain_options
from lensneurons.registry import ANSWER_SPANS, load_registered
from lensneurons.shapes import TokenIds
from lensneurons.tokens.batches import divide
from lensneurons.tokens.beginnings import encode_once, warn_doubled
from lensneurons.tokens.encoding import exact_backend
from lensneurons.tokens.prepared import model_provenance
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import item_bootstrap
from lensneurons.values.base import Overview, Value
from lensneurons.values.progress import with_bar
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

Cut = Literal["thing", "result", "word", "number"]
Asked = Literal["first", "all"]
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
        item: what a bootstrap draws; pairs of the same items share it.
        template: hash of the chat template that the texts are written in; ``"none"`` for plain
            texts.
    """

    source: str
    source_next: str
    target: str
    continuations: Mapping[str, str]
    language: str
    item: str
    template: str = "none"


@plain_options
def answer_pairs(
    corpus: ParallelCorpus,
    *,
    source: str = "en",
    languages: Sequence[str] | None = None,
    cut: Cut = "result",
    seed: int = 0,
) -> list[PatchPair]:
    """Pair different items of a parallel corpus, cut before their answers.

    Items are shuffled and paired two by two, so no item is in two pairs. Each pair is taken in both
    directions and in every language.

    Args:
        corpus: items whose responses hold their answers.
        source: language of the sources.
        languages: languages of the targets; None for all but `source`. Add `source` to them to
            compare patching across languages with patching within one.
        cut: where both texts stop; see the module. ``"number"`` is for any corpus.
        seed: of the shuffle.

    Returns:
        The pairs, language by language. Outcomes that are written alike are left out.

    Raises:
        CorpusError: a language that the corpus lacks or whose responses have no such place, or
            fewer than four items that have it in all these languages.
        LensNeuronsError: `cut` is not known.
    """
    choose(cut, get_args(Cut), "cut")
    targets = [tag for tag in corpus.languages if tag != source]
    targets = targets if languages is None else list(languages)
    wanted = corpus.select(list(dict.fromkeys([source, *targets])))
    cuts: dict[tuple[str, str], tuple[str, str]] = {}  # what stands before the answer, the answer
    registered = load_registered(ANSWER_SPANS, cut)
    for item in wanted:
        match = None if registered else _ANSWERS[cut].match(item.response)
        if span := registered(item) if registered else match and match.span(1):
            before = item.text[: len(item.prompt) + span[0]]
            cuts[item.id, item.language] = before, item.response[slice(*span)]
    for tag in wanted.languages:
        if not any((name, tag) in cuts for name in wanted.ids):
            raise CorpusError(
                f"cut={cut!r} finds nothing in the responses of {tag!r}: leave it out of "
                "languages=, or cut elsewhere"
            )
    shared = [i for i in wanted.ids if all((i, tag) in cuts for tag in wanted.languages)]
    if len(shared) < 4:
        raise CorpusError(
            f"cut={cut!r} finds something in {len(shared)} items in all of "
            f"{list(wanted.languages)}: two pairs need four"
        )
    names = [shared[place] for place in np.random.default_rng(seed).permutation(len(shared))]
    units = list(zip(names[::2], names[1::2], strict=False))
    return [
        replace(_pair(cuts, a, b, source, language), template=corpus.template)
        for language in targets
        for unit in units
        for a, b in (unit, unit[::-1])
    ]


def _pair(
    cuts: Mapping[tuple[str, str], tuple[str, str]], a: str, b: str, source: str, language: str
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
    return PatchPair(text_a, said_a, text_b, continuations, language, f"{min(a, b)}|{max(a, b)}")


class EncodedPair(NamedTuple):
    """A pair in tokens: ids of both texts up to the end, and of each continuation."""

    source: list[int]
    target: list[int]
    continuations: dict[str, list[int]]


def encode_pairs(
    pairs: Sequence[PatchPair], tokenizer: PreTrainedTokenizerBase
) -> list[EncodedPair | None]:
    """Encode pairs, each text together with what follows it, as a model reads it in one piece.

    The target ends where its continuations part: before the first token that holds a character of
    any of them. A pair whose continuations do not begin with different tokens cannot tell them
    apart at the next token, and becomes None.

    Args:
        pairs: what to encode.
        tokenizer: a Hugging Face fast tokenizer; it stays as it is.

    Raises:
        LensNeuronsError: no pairs, or one with fewer than two continuations or an empty text.
    """
    if not pairs:
        raise LensNeuronsError("no pairs to patch between: make some with answer_pairs()")
    for pair in pairs:
        texts = (pair.source, pair.target, *pair.continuations.values())
        if len(pair.continuations) < 2 or not all(texts):
            raise LensNeuronsError(
                f"pair {pair.item!r} ({pair.language}) needs two texts and at least two "
                f"continuations that are not empty, not {dict(pair.continuations)}"
            )
    backend = exact_backend(tokenizer, [pairs[0].source])
    _, left_out = encode_once(backend, [text for one in pairs for text in (one.source, one.target)])
    warn_doubled(left_out)
    return [_encode_pair(pair, backend) for pair in pairs]


def _encode_pair(pair: PatchPair, backend: Any) -> EncodedPair | None:
    source, seam = _encode(backend, pair.source, pair.source_next)
    whole = {k: _encode(backend, pair.target, text) for k, text in pair.continuations.items()}
    texts = [ids for ids, _ in whole.values()]
    columns = zip(*texts, strict=False)
    parting = (place for place, column in enumerate(columns) if len(set(column)) > 1)
    end = min(next(parting, min(map(len, texts))), *(seam for _, seam in whole.values()))
    firsts = {ids[end] for ids in texts if len(ids) > end}
    if not seam or not end or len(firsts) < len(texts):
        return None
    return EncodedPair(
        source[:seam], texts[0][:end], {k: ids[end:] for k, (ids, _) in whole.items()}
    )


def _encode(backend: Any, text: str, after: str) -> tuple[list[int], int]:
    """Ids of a text and what follows it, and how many of them hold characters of the text alone."""
    (encoding,), _ = encode_once(backend, [text + after])
    muted, ends = encoding.special_tokens_mask, [end for _, end in encoding.offsets]
    stop = max((i + 1 for i, mute in enumerate(muted) if not mute), default=0)
    beyond = (i for i in range(stop) if not muted[i] and ends[i] > len(text))
    return encoding.ids[:stop], next(beyond, stop)


Outcomes = Float64[np.ndarray, "layer pair outcome"]
ByLanguage = Float64[np.ndarray, "layer language"]


@dataclass(frozen=True, eq=False, repr=False)
class CarryOver(Value):
    """How probable each outcome is after patching each layer, pair by pair. Made by `carry_over`.

    Attributes:
        log_probability: float64 [layer, pair, outcome], in nats, summed over the tokens asked
            about; NaN where a pair has no such outcome.
        unpatched: float64 [pair, outcome], the same without any patch.
        outcomes: names of the outcomes.
        languages: languages of the targets; the order of every result by language.
        language: int [pair], number of each pair's language.
        items: what a bootstrap draws, for each pair.
        asked: whether the ``"first"`` token of each continuation was asked about, or ``"all"``.
        dropped: language to pairs left out because their outcomes begin with the same token.
        provenance: model and texts.
    """

    FILE_KIND = "carry-over"
    FILE_NAMES = {"asked": "tokens"}
    AXES = {
        "log_probability": ("layer", "pair", "outcome"),
        "unpatched": ("pair", "outcome"),
        "language": ("pair",),
    }
    COORDINATES = {"pair": "items", "outcome": "outcomes"}

    log_probability: Outcomes
    unpatched: Float64[np.ndarray, "pair outcome"]
    outcomes: tuple[str, ...]
    languages: tuple[str, ...]
    language: Int[np.ndarray, " pair"]
    items: tuple[str, ...]
    asked: Asked = "first"
    dropped: Mapping[str, int] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)

    @cached_property
    def shares(self) -> Outcomes:
        """float64 [layer, pair, outcome]: probability among the outcomes; NaN where none is."""
        return _shares(self.log_probability)

    @cached_property
    def covered(self) -> ByLanguage:
        """float64 [layer, language]: mean probability of all outcomes together, 0 to 1."""
        total = np.nansum(np.exp(self.log_probability), axis=-1)
        return self._means(total, np.ones(len(self.items)))

    def share(self, *outcomes: str) -> ByLanguage:
        """Mean share of some outcomes together, float64 [layer, language], 0 to 1.

        ``share("both", "concept")`` is how much of the answer is carried, ``share("both",
        "language")`` how much of the language. Pairs that have none of the outcomes do not count;
        NaN where a language has no pair left.

        Raises:
            LensNeuronsError: an outcome is not known.
        """
        return self._means(*self._chosen(self.shares, outcomes))

    def unpatched_share(self, *outcomes: str) -> ByLanguage:
        """What `share` is without a patch, float64 [1, language]."""
        return self._means(*self._chosen(_shares(self.unpatched[None]), outcomes))

    @plain_options
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

    def _chosen(self, shares: Outcomes, outcomes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Shares of outcomes added up [layer, pair], and which pairs have any of them [pair]."""
        if not outcomes:
            raise LensNeuronsError(f"name at least one outcome of {list(self.outcomes)}")
        known = dict.fromkeys((*OUTCOMES, *self.outcomes))
        wanted = [choose(outcome, known, "outcome") for outcome in outcomes]
        places = [place for place, name in enumerate(self.outcomes) if name in wanted]
        present = ~np.isnan(self.unpatched[:, places]).all(axis=-1)
        return np.nansum(shares[..., places], axis=-1), present.astype(float)

    def _means(self, values: np.ndarray, weights: np.ndarray) -> ByLanguage:
        """Weighted mean by language of values [layer, pair]."""
        n = len(self.languages)
        sums = np.stack([np.bincount(self.language, row * weights, minlength=n) for row in values])
        whole = np.bincount(self.language, weights, minlength=n)
        return np.divide(sums, whole, out=np.full_like(sums, np.nan), where=whole > 0)

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
        """One row a layer, pair and outcome: log_probability (nats) and share.

        Layer -1 is the target without a patch.
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

    def _brief(self) -> str:
        n, layers = len(self.items), len(self.log_probability)
        return f"{n} pairs into {' '.join(self.languages)}, {layers} layers"

    def _overview(self) -> Overview:
        """Mean share of each outcome over all pairs that have it, and what they cover."""
        values = np.concatenate([self.unpatched[None], self.log_probability])
        means = np.stack([np.nanmean(one, axis=0) for one in _shares(values)])
        covered = np.nansum(np.exp(values), axis=-1).mean(axis=-1)
        rows = [
            (layer, *(f"{value:.3f}" for value in row))
            for layer, row in zip(("-", *range(len(means) - 1)), np.c_[means, covered], strict=True)
        ]
        return Overview(repr(self), ("layer", *self.outcomes, "covered"), rows)


def _shares(values: np.ndarray) -> np.ndarray:
    """Softmax over the last axis; NaN entries stay out of it."""
    odds = np.exp(values - np.nanmax(values, axis=-1, keepdims=True))
    return odds / np.nansum(odds, axis=-1, keepdims=True)


class _Row(NamedTuple):
    """A target to read, its last token, and the questions: position, token, number of outcome."""

    pair: int
    ids: list[int]
    end: int
    questions: list[tuple[int, int, int]]


@plain_options
@runs_model
def carry_over(
    model: Any,
    pairs: Sequence[PatchPair],
    *,
    asked: Asked = "first",
    batch_tokens: int = 4096,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> CarryOver:
    """Put every layer's residual stream from the source of each pair into its target.

    Args:
        model: a TransformerLens model; hooks on it act on both runs.
        pairs: what `answer_pairs` gives, or your own.
        asked: whether the ``"first"`` token of each continuation is asked about, or ``"all"``, one
            after the other, each as if those before it had been said.
        batch_tokens: most tokens in a batch.
        tokenizer: None for the model's own, as it was saved.
        progress: show a progress bar.

    Returns:
        Log-probabilities by layer, pair and outcome. Pairs whose continuations begin with the same
        token are left out, and counted in `CarryOver.dropped`.

    Raises:
        LensNeuronsError: no pairs, none whose continuations can be told apart, or pairs of several
            chat templates.
        CorpusError: a text is longer than the model's context.
    """
    choose(asked, get_args(Asked), "asked")
    if len(templates := {pair.template for pair in pairs}) > 1:
        raise LensNeuronsError(
            f"the pairs are written in {len(templates)} chat templates (none is one): patch those "
            "of each apart"
        )
    template = next(iter(templates), "none")
    site, tokenizer = neuron_site(model), tokenizer or original_tokenizer(model)
    found = zip(pairs, encode_pairs(pairs, tokenizer), strict=True)
    distinct = [(pair, ids) for pair, ids in found if ids is not None]
    if not distinct:
        raise LensNeuronsError(
            f"in all {len(pairs)} pairs two continuations begin with the same token, so the next "
            "token cannot tell them apart: give more items, or another cut="
        )
    kept, encoded = [pair for pair, _ in distinct], [ids for _, ids in distinct]
    named = {name for pair in kept for name in pair.continuations}
    outcomes = (*(o for o in OUTCOMES if o in named), *sorted(named - set(OUTCOMES)))
    rows = [row for n, one in enumerate(encoded) for row in _rows(n, one, outcomes, asked)]
    rows.sort(key=lambda row: -len(row.ids))
    context = context_length(model)
    longest = max(len(rows[0].ids), *(len(one.source) for one in encoded))
    if longest > context:
        raise CorpusError(f"a text of {longest} tokens is beyond the model's context of {context}")
    values = np.full((site.n_layers + 1, len(kept), len(outcomes)), np.nan)
    plan = list(divide([len(row.ids) for row in rows], fitting(model, batch_tokens)))
    for part in with_bar(plan, "carry over", "batch", shown=progress):
        batch = rows[part]
        sources = [encoded[row.pair].source for row in batch]
        pair, outcome = np.array([(row.pair, o) for row in batch for *_, o in row.questions]).T
        for layer, said in enumerate(_ask(model, batch, sources, site.n_layers)):
            values[layer, pair, outcome] = 0  # NaN where nothing is asked
            np.add.at(values[layer], (pair, outcome), said)
    given, left = (Counter(pair.language for pair in some) for some in (pairs, kept))
    languages = tuple(left)
    fingerprint = hashlib.sha256(json.dumps(encoded).encode()).hexdigest()  # stands for the corpus
    return CarryOver(
        log_probability=values[1:],
        unpatched=values[0],
        outcomes=outcomes,
        languages=languages,
        language=np.array([languages.index(pair.language) for pair in kept]),
        items=tuple(pair.item for pair in kept),
        asked=asked,
        dropped={language: n - left[language] for language, n in given.items()},
        provenance=replace(
            model_provenance(model, tokenizer, fingerprint, template),
            hook="hook_resid_post",
            activation=site.activation_name,
            scope="the end of each text",
        ),
    )


def _rows(number: int, pair: EncodedPair, outcomes: tuple[str, ...], asked: Asked) -> list[_Row]:
    """One row that asks about all next tokens, or one a continuation that asks about all of it."""
    end = len(pair.target) - 1
    questions = {
        name: [(end + i, token, outcomes.index(name)) for i, token in enumerate(ids)]
        for name, ids in pair.continuations.items()
    }
    if asked == "first":
        return [_Row(number, pair.target, end, [one[0] for one in questions.values()])]
    texts = {name: pair.target + ids[:-1] for name, ids in pair.continuations.items()}
    return [_Row(number, texts[name], end, questions[name]) for name in questions]


def _ask(
    model: Any, batch: list[_Row], sources: Sequence[list[int]], n_layers: int
) -> Iterator[np.ndarray]:
    """Log-probability of everything asked about, without a patch and then layer by layer.

    The sources are read once. Texts are padded on the right, where a causal model needs no mask.
    """
    targets = _pad([row.ids for row in batch])
    last = torch.tensor([[len(ids) - 1] for ids in sources])
    ends = torch.tensor([[row.end] for row in batch])
    names = [residual_name(layer) for layer in range(n_layers)]
    streams = read_source(model, _pad(sources), names, last)
    yield _log_probabilities(model, targets, batch)
    for name in names:
        with hooking(model, [(name, Put(streams[name], ends, 1, slice(None)))]):
            yield _log_probabilities(model, targets, batch)


def _pad(texts: Sequence[Sequence[int]]) -> TokenIds:
    """Texts as one rectangle, filled up with id 0 on the right."""
    longest = max(map(len, texts))
    return torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in texts])


@torch.inference_mode()
def _log_probabilities(model: Any, ids: TokenIds, batch: list[_Row]) -> np.ndarray:
    """float64 [question]: in nats, row by row."""
    asked = [(n, place, token) for n, row in enumerate(batch) for place, token, _ in row.questions]
    logits = model(to_device(model, ids), attention_mask=None, return_type="logits")
    rows, places, tokens = torch.tensor(asked).T.to(logits.device)
    chosen = logits[rows, places].double()
    said = chosen.gather(-1, tokens[:, None])[:, 0] - chosen.logsumexp(-1)
    require_finite(said, "the log-probabilities")
    return said.cpu().numpy()
