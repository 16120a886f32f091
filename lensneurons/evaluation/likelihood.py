"""How well a model predicts texts: negative log-likelihood and perplexity, by language.

For a text with tokens x_1 ... x_n and the counted ones C (those of the response, by default)

    NLL(text)      = - sum over t in C of ln p(x_t | x_1 ... x_{t-1})            nats
    mean NLL       = sum of NLL over the texts / sum of |C|                       nats a token
    perplexity     = exp(mean NLL)

Only the true token counts: the published code of arXiv 2505.21505 averages it with the most likely
one. The paper's figure for an ablation is ``ln(1 + change of perplexity)``.

Intervals come from a bootstrap over items: a parallel item is drawn with all its languages, and a
change is drawn in pairs, so that only the change varies and not the difficulty of the items.

>>> plain = ln.nll(model, corpus)                                        # doctest: +SKIP
>>> with ln.ablate(model, neurons["zh"]):                                # doctest: +SKIP
...     change = ln.nll(model, corpus).difference(plain)     # nats a token, with an interval

Perplexities of different languages do not compare: their tokens carry different amounts of text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import CorpusError, LensNeuronsError, ProvenanceError
from lensneurons.models.forward import to_device
from lensneurons.shapes import (
    AttentionMask,
    LanguageValues,
    TextNumbers,
    TextValues,
    TokenIds,
    TokenNLL,
)
from lensneurons.tokens.batches import Batch, PaddingSide, make_batch
from lensneurons.tokens.encoding import EncodedCorpus, Scope
from lensneurons.tokens.prepared import PreparedCorpus, prepare
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import item_bootstrap
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.provenance import Provenance, require_same
from lensneurons.values.tables import html_table

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

KIND = "negative log-likelihoods"
# Most logits that are held at once: 2^27 float32 are half a GB, twice that with their logarithms.
LOGITS = 2**27


@dataclass(frozen=True, eq=False, repr=False)
class CorpusNLL:
    """Negative log-likelihood of every text of a corpus; immutable.

    Attributes:
        languages: codes; the order of every result by language.
        nll: float64 [text], sum over the counted tokens, in nats.
        tokens: int64 [text], counted tokens.
        language: int [text], number of each text's language.
        item_ids: name of each text's item, the same in every language.
        provenance: model, corpus and scope.
    """

    languages: tuple[str, ...]
    nll: TextValues
    tokens: TextNumbers
    language: TextNumbers
    item_ids: tuple[str, ...]
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        for name in ("nll", "tokens", "language"):
            view = getattr(self, name).view()  # the caller's own array stays writable
            view.flags.writeable = False
            object.__setattr__(self, name, view)

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

    def interval(self, *, draws: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
        """Mean NLL by language with its bootstrap interval over items, in nats a token.

        Raises:
            LensNeuronsError: fewer than two items.
        """
        return self._bootstrap(self.nll, draws, level, seed)

    def difference(
        self, before: CorpusNLL, *, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Change of the mean NLL by language since `before`, with a paired bootstrap interval.

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
        require_same_texts(before, self)
        return self._bootstrap(self.nll - before.nll, draws, level, seed)

    def _bootstrap(self, sums: TextValues, draws: int, level: float, seed: int) -> Interval:
        return item_bootstrap(
            self.item_ids, self.language, sums, self.tokens, draws=draws, level=level, seed=seed
        )

    def log_perplexity_difference(self, before: CorpusNLL) -> LanguageValues:
        """float64 [language]: ``ln(1 + change of perplexity)``, the paper's figure.

        NaN where the perplexity falls by 1 or more.
        """
        require_same_texts(before, self)
        change = self.perplexity - before.perplexity
        return np.log1p(change, out=np.full_like(change, np.nan), where=change > -1)

    def to_pandas(self) -> pd.DataFrame:
        """One row a text: item, language, nll (nats), tokens."""
        import pandas as pd

        return pd.DataFrame(
            {
                "item": self.item_ids,
                "language": np.array(self.languages)[self.language],
                "nll": self.nll,
                "tokens": self.tokens,
            }
        )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        arrays = {"nll": self.nll, "tokens": self.tokens, "language": self.language}
        details = {"languages": self.languages, "item_ids": self.item_ids}
        return save_arrays(path, KIND, arrays, {**details, "provenance": self.provenance.to_dict()})

    @classmethod
    def load(cls, path: str | Path) -> CorpusNLL:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        arrays, details = load_arrays(path, KIND)
        return cls(
            **arrays,
            languages=tuple(details["languages"]),
            item_ids=tuple(details["item_ids"]),
            provenance=Provenance.from_dict(details["provenance"]),
        )

    def __repr__(self) -> str:
        means = ", ".join(f"{k} {m:.3f}" for k, m in zip(self.languages, self.mean, strict=True))
        return f"CorpusNLL({self.provenance.scope} tokens, nats a token: {means})"

    def _repr_html_(self) -> str:
        tokens = self._by_language(self.tokens)
        rows = [
            (language, f"{n:,.0f}", f"{mean:.4f}", f"{np.exp(mean):.3f}")
            for language, n, mean in zip(self.languages, tokens, self.mean, strict=True)
        ]
        heads = ("language", "counted tokens", "NLL, nats a token", "perplexity")
        return html_table(f"CorpusNLL: {len(self.nll)} texts", heads, rows)


def nll(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
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
        corpus: the texts, prepared or not.
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
    """
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    encoded = prepared.encoded
    require_predicted(encoded)
    score = text_scorer(model, encoded, padding_side=padding_side)
    sums, tokens = np.zeros(len(encoded)), np.zeros(len(encoded), np.int64)
    plan = prepared.batches(fitting(model, batch_tokens))
    for rows in _with_progress(plan, progress):
        sums[rows], tokens[rows] = score(rows)
    return CorpusNLL(
        languages=encoded.languages,
        nll=sums,
        tokens=tokens,
        language=encoded.language,
        item_ids=encoded.item_ids,
        provenance=replace(prepared.provenance(), attention="eager"),  # logits need the bridge
    )


TextMeasure = Callable[[Sequence[int] | np.ndarray], tuple[np.ndarray, np.ndarray]]


def text_scorer(
    model: Any, encoded: EncodedCorpus, *, padding_side: PaddingSide = "right"
) -> TextMeasure:
    """Make the function that scores texts of an encoded corpus, as one batch a call.

    Args:
        model: a TransformerLens model.
        encoded: a corpus in its tokens.
        padding_side: where short texts are padded.

    Returns:
        ``score(rows)``: NLL of each text, float64 [row] in nats, and its counted tokens, int64
        [row]. A text may be named several times: rows that differ in their condition.
    """

    def score(rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch = make_batch(encoded, rows, padding_side=padding_side)
        needs_mask = padding_side == "left"
        losses = token_nll(model, batch.tokens, batch.attention_mask if needs_mask else None)
        counted = _predicted(batch)
        losses = losses.cpu().double().masked_fill(~counted, 0.0)
        return losses.sum(1).numpy(), counted.sum(1).numpy()

    return score


def _predicted(batch: Batch) -> torch.Tensor:
    """Bool [batch, pos - 1]: counted tokens that have a token before them, from the second on."""
    real = batch.attention_mask.bool()
    return batch.counted[:, 1:] & real[:, :-1]


def require_predicted(encoded: EncodedCorpus) -> None:
    """Raise where all counted tokens of a language are the first ones of their texts."""
    predicted = np.maximum(encoded.stop - np.maximum(encoded.start, 1), 0)
    counted = np.bincount(encoded.language, predicted, len(encoded.languages))
    if not counted.all():
        empty = [k for k, n in zip(encoded.languages, counted, strict=True) if n == 0]
        raise CorpusError(
            f"every counted token of {empty} is the first of its text, with nothing before it to "
            "be predicted from: give longer texts, or another scope"
        )


@torch.inference_mode()
def token_nll(
    model: Any, tokens: TokenIds, attention_mask: AttentionMask | None = None
) -> TokenNLL:
    """Negative log-likelihood of every token but the first of every row.

    Args:
        model: a TransformerLens model.
        tokens: int64 [batch, pos].
        attention_mask: int64 [batch, pos], 0 on padding; needed for padding on the left.

    Returns:
        [batch, pos - 1], in nats, float32 (float64 for a float64 model): entry t is of token
        t + 1. Entries of padding mean nothing.
    """
    ids = to_device(model, tokens)
    mask = None if attention_mask is None else to_device(model, attention_mask)
    logits = model(ids, attention_mask=mask, return_type="logits")[:, :-1]
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    true = logits.gather(-1, ids[:, 1:, None].to(logits.device))[..., 0]
    return logits.logsumexp(-1) - true


def fitting(model: Any, batch_tokens: int) -> int:
    """Tokens of a batch whose logits fit into half a gigabyte, at most `batch_tokens`.

    Raises:
        LensNeuronsError: `batch_tokens` is less than 1.
    """
    if batch_tokens < 1:
        raise LensNeuronsError(f"batch_tokens={batch_tokens} holds nothing; give 1 or more")
    return max(1, min(batch_tokens, LOGITS // int(model.cfg.d_vocab)))


def require_same_texts(before: CorpusNLL, after: CorpusNLL) -> None:
    """Raise unless two results are about the same tokens of the same texts.

    Raises:
        ProvenanceError: what differs. The model, its attention kernel and what was done to it may.
    """
    changed = ("model", "revision", "weights", "config", "interventions", "attention", "dtype")
    require_same(before.provenance, after.provenance, ignoring=(*changed, "activation"))
    for name in ("languages", "item_ids", "language"):
        if not np.array_equal(getattr(before, name), getattr(after, name)):
            raise ProvenanceError(f"the two are about other texts: their {name} differ")
    if not np.array_equal(before.tokens, after.tokens):
        raise ProvenanceError("the two counted other tokens of the same texts")


def _with_progress(plan: list[np.ndarray], shown: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(plan, desc="nll", unit="batch", disable=not shown)
