"""A corpus made ready for one model: encoded with its tokenizer, checked, and its provenance.

Everything that runs a model over a corpus begins here, so that bad input is refused once and in the
same words, before any forward pass.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.models.forward import attention_implementation, has_hooks
from lensneurons.models.loading import (
    context_length,
    hash_config,
    hash_weights,
    original_tokenizer,
    revision_of,
)
from lensneurons.models.sites import NeuronSite
from lensneurons.tokens.encoding import EncodedCorpus, Overlong, Scope, encode, tokenizer_hash
from lensneurons.values.provenance import Provenance, library_versions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_for(
    model: Any,
    corpus: ParallelCorpus,
    *,
    scope: Scope = "response",
    max_length: int | None = None,
    overlong: Overlong = "refuse",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> EncodedCorpus:
    """Encode a corpus for a model, and make sure that the model can read it.

    Args:
        model: a TransformerLens model.
        corpus: the texts.
        scope: which tokens count.
        max_length: longest text in tokens; the model's context length by default.
        overlong: whether longer texts are refused or cut.
        tokenizer: by default the model's own, as it was saved.

    Returns:
        The corpus in tokens.

    Raises:
        CorpusError: texts too long or without counted tokens, a language that has none left, or
            ids outside the vocabulary.
    """
    longest = longest_text(model, max_length)
    encoded = encode(
        corpus,
        tokenizer or original_tokenizer(model),
        scope=scope,
        max_length=longest,
        overlong=overlong,
    )
    _check_counted(encoded, longest)
    _check_vocabulary(model, encoded)
    return encoded


def longest_text(model: Any, max_length: int | None) -> int:
    """Most tokens of a text: what was asked for, within the context of the model.

    Raises:
        CorpusError: more was asked for than the context holds.
    """
    context = context_length(model)
    if max_length is not None and max_length > context:
        raise CorpusError(f"max_length={max_length} is beyond the model's context of {context}")
    return context if max_length is None else max_length


def _check_vocabulary(model: Any, encoded: EncodedCorpus) -> None:
    largest, size = int(encoded.ids.max(initial=0)), int(model.cfg.d_vocab)
    if largest >= size:
        raise CorpusError(
            f"the tokenizer gives id {largest}, but the model's vocabulary has {size}: "
            "pass the tokenizer that belongs to the model"
        )


def _check_counted(encoded: EncodedCorpus, max_length: int) -> None:
    if empty := [row.language for row in encoded.report.languages if row.counted == 0]:
        raise CorpusError(
            f"no counted token of {empty} is left within max_length={max_length}: raise it, or "
            "select other languages"
        )


def refuse_hooks(model: Any, run_dir: str | Path | None) -> None:
    """Raise where a run that is to be resumed would depend on somebody's hooks.

    Raises:
        LensNeuronsError: there are hooks on the model, and `run_dir` is given.
    """
    if run_dir is not None and has_hooks(model):
        raise LensNeuronsError(
            f"there are hooks on the model, and run_dir={run_dir} could not tell whether they are "
            "the same when it goes on: run without run_dir and save() the result"
        )


def provenance_of(
    model: Any,
    site: NeuronSite,
    encoded: EncodedCorpus,
    corpus: ParallelCorpus,
    tokenizer: PreTrainedTokenizerBase,
) -> Provenance:
    """Where counts come from: model, tokenizer, corpus, hook, activation function and scope."""
    return replace(
        model_provenance(model, tokenizer, corpus.fingerprint),
        attention=attention_implementation(model),
        hook="hook_pre",
        activation=site.activation_name,
        scope=_scope(encoded),
    )


def model_provenance(
    model: Any, tokenizer: PreTrainedTokenizerBase, fingerprint: str
) -> Provenance:
    """Where a result of whole forward passes comes from: model, tokenizer, texts, versions.

    Logits and residual streams come from the bridge, whose attention is eager. What was read of
    the neurons (hook, activation function, scope) is for the caller to add.
    """
    return Provenance(
        model=str(model.cfg.model_name),
        revision=revision_of(model),
        config=hash_config(model),
        weights=hash_weights(model),
        dtype=str(next(iter(model.parameters())).dtype).removeprefix("torch."),
        attention=attention_implementation(model, "bridge"),
        tokenizer=tokenizer_hash(tokenizer),
        interventions="hooks" if has_hooks(model) else "none",
        corpora=(fingerprint,),
        versions=library_versions(),
    )


def _scope(encoded: EncodedCorpus) -> str:
    """The scope, and how far texts were read where some were cut: another cut is another count."""
    cut = encoded.report.total.cut
    return f"{encoded.scope}, cut at {int(encoded.lengths.max())} tokens" if cut else encoded.scope
