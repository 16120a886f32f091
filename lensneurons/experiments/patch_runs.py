"""The runs behind `CarryOver`: every layer of every source put into its target.

A source is read once, with the residual stream after every layer at its last token. Its target is
then read once without a patch and once a layer with one. Targets are padded on the right, where a
causal model needs no mask; what is asked about stands at positions of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import torch

from lensneurons.errors import CorpusError, LensNeuronsError, choose
from lensneurons.evaluation.likelihood import fitting
from lensneurons.experiments.patch_pairs import OUTCOMES, EncodedPair, PatchPair, encode_pairs
from lensneurons.experiments.patch_results import Asked, CarryOver
from lensneurons.interventions.patching import Put, putting, read_source, residual_name
from lensneurons.models.forward import to_device
from lensneurons.models.loading import (
    context_length,
    original_tokenizer,
)
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.provenance import Provenance
from lensneurons.shapes import TokenIds
from lensneurons.tokens.prepared import model_provenance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
