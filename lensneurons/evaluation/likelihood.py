"""How well a model predicts texts: negative log-likelihood and perplexity, by language.

For a text with tokens x_1 ... x_n and the counted ones C (those of the response, by default)

    NLL(text)      = - sum over t in C of ln p(x_t | x_1 ... x_{t-1})            nats
    mean NLL       = sum of NLL over the texts / sum of |C|                       nats a token
    perplexity     = exp(mean NLL)

Only the true token counts; the published code of arXiv 2505.21505 averages it with the most likely
one. The paper's figure for an ablation is ``ln(1 + change of perplexity)``.

Intervals come from a bootstrap over items. An item is drawn with all its languages, and a
difference is drawn in pairs, so that the difficulty of the items drops out.

>>> plain = ln.nll(model, corpus)                                        # doctest: +SKIP
>>> with ln.ablate(model, neurons["zh"]):                                # doctest: +SKIP
...     difference = ln.nll(model, corpus).difference(plain)  # nats a token, with an interval

What it does not show: perplexities of different languages do not compare, because their tokens
carry different amounts of text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Float64

from lensneurons.errors import CorpusError, LensNeuronsError, ProvenanceError
from lensneurons.models.forward import to_device
from lensneurons.models.running import require_finite, runs_model
from lensneurons.options import plain_options
from lensneurons.shapes import AttentionMask, TextNumbers, TokenIds
from lensneurons.tokens.batches import PaddingSide, make_batch
from lensneurons.tokens.encoding import EncodedCorpus, Scope
from lensneurons.tokens.pieces import Pieces
from lensneurons.tokens.prepared import Texts, prepare
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import item_bootstrap
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance, require_same

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

LanguageValues = Float64[np.ndarray, "language"]
TextValues = Float64[np.ndarray, "text"]
TextMeasure = Callable[[Sequence[int] | np.ndarray], tuple[np.ndarray, np.ndarray]]

# Most logits that are held at once: 2^27 float32 are half a GB.
LOGITS = 2**27
IN_CACHE = 2**20  # logits of which logsumexp makes a copy at a time: 4 MB in float32


@dataclass(frozen=True, eq=False, repr=False)
class CorpusNLL(Value):
    """Negative log-likelihood of every text of a corpus. Made by `nll`.

    Attributes:
        languages: codes; the order of every result by language.
        nll: float64 [text], sum over the counted tokens, in nats.
        tokens: int64 [text], counted tokens.
        language: int [text], number of each text's language.
        item_ids: name of each text's item, the same in every language.
        provenance: model, corpus and scope.
    """

    FILE_KIND = "negative log-likelihoods"

    languages: tuple[str, ...]
    nll: TextValues
    tokens: TextNumbers
    language: TextNumbers
    item_ids: tuple[str, ...]
    provenance: Provenance = field(default_factory=Provenance)

    @cached_property
    def mean(self) -> LanguageValues:
        """float64 [language]: mean NLL in nats a token."""
        return self._by_language(self.nll) / self._by_language(self.tokens)

    @cached_property
    def perplexity(self) -> LanguageValues:
        """float64 [language]: exp of the mean NLL, 1 at best."""
        return np.exp(self.mean)

    def _by_language(self, values: np.ndarray) -> LanguageValues:
        return np.bincount(self.language, values, minlength=len(self.languages))

    @plain_options
    def interval(self, *, draws: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
        """Mean NLL by language with its bootstrap interval over items, in nats a token.

        Raises:
            LensNeuronsError: fewer than two items.
        """
        return item_bootstrap(
            self.item_ids, self.language, self.nll, self.tokens, draws=draws, level=level, seed=seed
        )

    @plain_options
    def difference(
        self, before: CorpusNLL, *, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Mean NLL by language less that of `before`, with a paired bootstrap interval.

        Args:
            before: the same texts, under another model or another intervention.
            draws: how many corpora to draw.
            level: coverage.
            seed: the same seed gives the same interval.

        Returns:
            [language], in nats a token; positive where the texts became less likely.

        Raises:
            ProvenanceError: `before` read other texts, or another scope.
            LensNeuronsError: fewer than two items.
        """
        _require_same_texts(before, self)
        change = replace(self, nll=self.nll - before.nll)
        return change.interval(draws=draws, level=level, seed=seed)

    def log_perplexity_difference(self, before: CorpusNLL) -> LanguageValues:
        """float64 [language]: ``ln(1 + difference of perplexity)``, the paper's figure.

        NaN where the perplexity falls by 1 or more.

        Raises:
            ProvenanceError: `before` read other texts, or another scope.
        """
        _require_same_texts(before, self)
        change = self.perplexity - before.perplexity
        return np.log1p(change, out=np.full_like(change, np.nan), where=change > -1)

    def to_pandas(self) -> pd.DataFrame:
        """One row a text: item, language, nll (nats), tokens."""
        import pandas as pd

        language = np.array(self.languages)[self.language]
        texts = {"item": self.item_ids, "language": language}
        return pd.DataFrame({**texts, "nll": self.nll, "tokens": self.tokens})

    def _brief(self) -> str:
        means = ", ".join(f"{k} {m:.3f}" for k, m in zip(self.languages, self.mean, strict=True))
        return f"{self.provenance.scope} tokens, nats a token: {means}"

    def _overview(self) -> Overview:
        tokens = self._by_language(self.tokens)
        rows = [
            (language, f"{n:,.0f}", f"{mean:.4f}", f"{np.exp(mean):.3f}")
            for language, n, mean in zip(self.languages, tokens, self.mean, strict=True)
        ]
        heads = ("language", "counted tokens", "NLL, nats a token", "perplexity")
        return Overview(f"CorpusNLL: {len(self.nll)} texts", heads, rows)


def _require_same_texts(before: CorpusNLL, after: CorpusNLL) -> None:
    """Raise unless two results are about the same tokens of the same texts.

    The model, its attention kernel and what was done to it may differ.
    """
    changed = ("model", "revision", "weights", "config", "interventions", "attention", "dtype")
    require_same(before.provenance, after.provenance, ignoring=(*changed, "activation"))
    for name in ("languages", "item_ids", "language"):
        if not np.array_equal(getattr(before, name), getattr(after, name)):
            raise ProvenanceError(f"the two are about other texts: their {name} differ")
    if not np.array_equal(before.tokens, after.tokens):
        raise ProvenanceError("the two counted other tokens of the same texts")


@plain_options
@runs_model
def nll(
    model: Any,
    corpus: Texts,
    *,
    scope: Scope | None = None,
    batch_tokens: int = 4096,
    padding_side: PaddingSide = "right",
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = False,
) -> CorpusNLL:
    """Negative log-likelihood of the texts of a corpus, teacher-forced.

    Args:
        model: a TransformerLens model; hooks that are on it (an ablation, say) act.
        corpus: the texts: a corpus, prepared or not, a text, or a list of texts.
        scope: whose tokens count; None for the response. The first token of a text that begins
            without a BOS has nothing before it and does not count.
        batch_tokens: most tokens in a batch, padding included; fewer where the vocabulary is large.
        padding_side: where short texts of a batch are padded.
        tokenizer: encodes the corpus; by default the model's own, as it was saved.
        progress: show a progress bar.

    Returns:
        The NLL of every text; float64 sums of float32 logarithms.

    Raises:
        CorpusError: texts without counted tokens, too long, or ids outside the vocabulary; a
            language whose counted tokens are all the first of their texts.
        ModelError: not a TransformerLens model, or its tokenizer cannot be read.
        LensNeuronsError: a single text does not fit into memory.

    Warns:
        MemoryWarning: once, if a batch did not fit into memory and was run in halves.
    """
    from tqdm.auto import tqdm

    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    encoded = prepared.encoded
    require_predicted(encoded)
    score = text_scorer(model, encoded, padding_side=padding_side)
    sums, tokens = np.zeros(len(encoded)), np.zeros(len(encoded), np.int64)
    plan, pieces = prepared.batches(fitting(model, batch_tokens)), Pieces()
    for rows in tqdm(plan, desc="nll", unit="batch", disable=not progress):
        sums[rows], tokens[rows] = in_pieces(pieces, score, encoded, rows)
    return CorpusNLL(
        languages=encoded.languages,
        nll=sums,
        tokens=tokens,
        language=encoded.language,
        item_ids=encoded.item_ids,
        provenance=replace(prepared.provenance(), attention="eager"),  # logits need the bridge
    )


def require_predicted(encoded: EncodedCorpus) -> None:
    """Raise if all counted tokens of a language are the first ones of their texts.

    Raises:
        CorpusError: names those languages.
    """
    counted = np.bincount(encoded.language, encoded.predicted, len(encoded.languages))
    if empty := [k for k, n in zip(encoded.languages, counted, strict=True) if n == 0]:
        raise CorpusError(
            f"every counted token of {empty} is the first of its text, with nothing before it to "
            "be predicted from: give longer texts, or another scope"
        )


def fitting(model: Any, batch_tokens: int) -> int:
    """Tokens of a batch whose logits fit into half a gigabyte, at most `batch_tokens`.

    Raises:
        LensNeuronsError: `batch_tokens` is less than 1.
    """
    if batch_tokens < 1:
        raise LensNeuronsError(f"batch_tokens={batch_tokens} holds nothing; give 1 or more")
    return max(1, min(batch_tokens, LOGITS // int(model.cfg.d_vocab)))


def in_pieces(
    pieces: Pieces, score: TextMeasure, encoded: EncodedCorpus, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What `score` gives for the texts of a batch, run whole or in the parts that fit into memory.

    Args:
        pieces: knows what fits.
        score: the measure.
        encoded: the corpus.
        rows: int [row], the texts, the longest first.
    """
    found = [one for _, one in pieces.run(encoded.lengths[rows], lambda part: score(rows[part]))]
    sums, weights = zip(*found, strict=True)
    return np.concatenate(sums), np.concatenate(weights)


def text_scorer(
    model: Any, encoded: EncodedCorpus, *, padding_side: PaddingSide = "right"
) -> TextMeasure:
    """Make the function that scores texts of an encoded corpus, one batch a call.

    Returns:
        ``score(rows)``: NLL of each text, float64 [row] in nats, and its counted tokens, int64
        [row]. A text may be named several times, for rows under different conditions.
    """

    def score(rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch = make_batch(encoded, rows, padding_side=padding_side)
        mask = batch.attention_mask if padding_side == "left" else None
        losses = token_nll(model, batch.tokens, mask).cpu().double()
        losses = losses.masked_fill(~batch.predicted, 0.0)
        require_finite(losses, "the log-probabilities")
        return losses.sum(1).numpy(), batch.predicted.sum(1).numpy()

    return score


@torch.inference_mode()
def token_nll(
    model: Any, tokens: TokenIds, attention_mask: AttentionMask | None = None
) -> Float[torch.Tensor, "batch next"]:
    """Negative log-likelihood of every token but the first of every row.

    Padding on the left needs the mask.

    Returns:
        [batch, pos - 1], in nats, float32 (float64 for a float64 model): entry t is of token
        t + 1. Entries of padding mean nothing.
    """
    ids = to_device(model, tokens)
    mask = None if attention_mask is None else to_device(model, attention_mask)
    logits = model(ids, attention_mask=mask, return_type="logits")[:, :-1]
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    true = logits.gather(-1, ids[:, 1:, None].to(logits.device))[..., 0]
    # A few tokens at a time: the temporaries then stay in the cache, and the bits are the same.
    few = max(1, IN_CACHE // logits.shape[-1])
    whole = [torch.cat([part.logsumexp(-1) for part in row.split(few)]) for row in logits]
    return torch.stack(whole) - true
