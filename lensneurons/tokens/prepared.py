"""A corpus as one model reads it: encoded once, checked once, used by everything that runs a model.

    prepared = ln.prepare(model, corpus, scope="response")
    ln.nll(model, prepared); ln.collect(model, prepared)      # neither encodes or checks again

Every function that runs a model over a corpus takes a `ParallelCorpus`, which it prepares, or a
`PreparedCorpus`; many take a text or a list of texts as well (`corpus_of_texts`). Bad input is
refused here, before any forward pass.

What belongs to the moment of a run is not kept but read then: hooks on the model, its attention
kernel, and the hash of its weights (`PreparedCorpus.provenance`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.corpora.items import Item
from lensneurons.corpora.streams import CorpusStream
from lensneurons.errors import CorpusError, LensNeuronsError, shown
from lensneurons.models.family import context_length
from lensneurons.models.forward import attention_implementation
from lensneurons.models.identity import (
    hash_config,
    hash_weights,
    original_tokenizer,
    quantisation_of,
    revision_of,
)
from lensneurons.models.routers import expert_site, has_routers
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.models.views import has_hooks
from lensneurons.options import plain_options
from lensneurons.tokens.batches import Batch, make_batch, plan_batches
from lensneurons.tokens.chat import Template, chat_corpus, refuse_system_alone, template_hash
from lensneurons.tokens.encoding import EncodedCorpus, Overlong, Scope, encode, tokenizer_hash
from lensneurons.values.provenance import Provenance, library_versions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False, repr=False)
class PreparedCorpus:
    """A corpus as one model reads it. Made by `prepare`.

    Attributes:
        model: the TransformerLens model.
        corpus: the texts.
        tokenizer: what encoded them.
        tokenizer_hash: its fingerprint when it did.
        encoded: the texts as token ids, with the counted tokens of each.
        max_length: most tokens of a text.
        overlong: what was done with longer texts.
    """

    model: Any
    corpus: ParallelCorpus
    tokenizer: PreTrainedTokenizerBase
    tokenizer_hash: str
    encoded: EncodedCorpus
    max_length: int
    overlong: Overlong

    @property
    def site(self) -> NeuronSite:
        """Where the model's neurons are; raises a ModelError for a mixture of experts."""
        return neuron_site(self.model)

    @property
    def scope(self) -> Scope:
        """Which tokens count."""
        return self.encoded.scope

    @plain_options
    def batches(self, batch_tokens: int) -> list[np.ndarray]:
        """Numbers of the texts of each batch; see `lensneurons.tokens.batches.plan_batches`."""
        return plan_batches(self.encoded, batch_tokens=batch_tokens)

    @plain_options
    def read(self, batch_tokens: int, label: str, *, progress: bool) -> Iterator[Batch]:
        """Yield all texts in batches, padded on the right, with a progress bar in texts."""
        from tqdm.auto import tqdm

        with tqdm(total=len(self.encoded), desc=label, unit="text", disable=not progress) as bar:
            for rows in self.batches(batch_tokens):
                yield make_batch(self.encoded, rows)
                bar.update(len(rows))

    def provenance(self) -> Provenance:
        """Where the numbers of a run that begins now come from.

        Names the model, tokenizer, corpus, hook, activation function and scope, and says whether
        hooks are on the model.
        """
        site = expert_site(self.model) if has_routers(self.model) else self.site
        scope: str = self.scope
        if self.encoded.report.total.cut:  # other cuts give other counts
            scope = f"{scope}, cut at {int(self.encoded.lengths.max())} tokens"
        return replace(
            model_provenance(
                self.model, self.tokenizer_hash, self.corpus.fingerprint, self.corpus.template
            ),
            attention=attention_implementation(self.model),
            hook=site.hook,
            activation=site.activation_name,
            scope=scope,
        )

    def __repr__(self) -> str:
        total = self.encoded.report.total
        return (
            f"PreparedCorpus({self.corpus.name} for {self.model.cfg.model_name}: {total.texts} "
            f"texts, {total.counted} counted tokens in scope {self.scope!r})"
        )


Texts = ParallelCorpus | PreparedCorpus | str | Sequence[str]
UNTOLD = "und"  # the language of texts that come without one: BCP 47's "undetermined"


def corpus_of_texts(texts: object) -> ParallelCorpus:
    """A corpus of bare texts, each an item of its own, in the undetermined language ``"und"``.

    All of a text is the response, so every token counts but the special ones.

    Raises:
        CorpusError: no text, an empty one, something that is no text, or the name of a file.
    """
    listed = [texts] if isinstance(texts, str) else texts
    if isinstance(texts, CorpusStream):
        raise CorpusError(
            f"{texts!r} is read shard by shard, which collect() does; for all else take a shard, "
            "such as next(iter(stream)), or load_corpus()"
        )
    if isinstance(listed, Mapping) or not isinstance(listed, Iterable):
        raise CorpusError(f"{shown(texts)} is no corpus: load_corpus() makes one; or give a text")
    listed = list(listed)
    for one in listed:
        if not isinstance(one, str) or not one.strip():
            raise CorpusError(f"{shown(one)} is no text: give a text, a list of texts, or a corpus")
    if not listed:
        raise CorpusError("no texts: give one or more, or a corpus")
    if isinstance(texts, str) and len(texts) < 200 and "\0" not in texts and os.path.exists(texts):
        raise CorpusError(f"{texts!r} is a file or a folder: load_corpus({texts!r}) reads it")
    return ParallelCorpus(
        "texts", tuple(Item(f"text {n}", UNTOLD, "", one) for n, one in enumerate(listed, 1))
    )


@plain_options
def prepare(
    model: Any,
    corpus: Texts,
    *,
    scope: Scope | None = None,
    max_length: int | None = None,
    overlong: Overlong | None = None,
    template: Template | None = None,
    system: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> PreparedCorpus:
    """Encode a corpus for a model, and make sure that the model can read it.

    Args:
        model: a TransformerLens model.
        corpus: the texts: a corpus, a text, or a list of texts. A corpus that is prepared already
            is returned, after the options given here were compared with its own.
        scope: which tokens count: those of the response (None), of the prompt, or all.
        max_length: longest text in tokens; None for the model's context length.
        overlong: whether longer texts are refused (None) or cut.
        template: ``"chat"`` writes each prompt into the model's own chat template, and the response
            is the assistant's turn; None leaves the texts as they are.
        system: the system prompt of the chat.
        tokenizer: None for the model's own, as it was saved.

    Raises:
        ModelError: the model has neither dense MLP neurons nor routers, no tokenizer, or no chat
            template.
        CorpusError: texts too long or without counted tokens, a language that has none left, or
            ids outside the vocabulary.
        LensNeuronsError: `corpus` was prepared for another model, or with other options.
    """
    refuse_system_alone(template, system)
    if isinstance(corpus, PreparedCorpus):
        if template is not None and corpus.corpus.template != template_hash(
            corpus.tokenizer, system
        ):
            raise LensNeuronsError(
                f"template={template!r} differs from that of {corpus!r}: leave it out here, or "
                "give it to prepare()"
            )
        if corpus.model is not model:
            raise LensNeuronsError(
                f"{corpus!r} was prepared for another model: prepare(model, corpus) for this one"
            )
        asked = {"scope": scope, "max_length": max_length, "overlong": overlong}
        for name, value in {**asked, "tokenizer": tokenizer}.items():
            if value is not None and value != getattr(corpus, name):
                shown = type(value).__name__ if name == "tokenizer" else repr(value)
                raise LensNeuronsError(
                    f"{name}={shown} differs from that of {corpus!r}: leave it out here, or "
                    "give it to prepare()"
                )
        return corpus

    if not has_routers(model):
        neuron_site(model)
    tokenizer = tokenizer or original_tokenizer(model)
    corpus = corpus if isinstance(corpus, ParallelCorpus) else corpus_of_texts(corpus)
    if template is not None:
        corpus = chat_corpus(model, corpus, system=system, tokenizer=tokenizer)
    longest = longest_text(model, max_length)
    overlong = overlong or "refuse"
    encoded = encode(
        corpus, tokenizer, scope=scope or "response", max_length=longest, overlong=overlong
    )
    if empty := [row.language for row in encoded.report.languages if row.counted == 0]:
        raise CorpusError(
            f"no counted token of {empty} is left within max_length={longest}: raise it, or "
            "select other languages"
        )
    require_known_ids(encoded, int(model.cfg.d_vocab))
    fingerprint = tokenizer_hash(tokenizer)
    return PreparedCorpus(model, corpus, tokenizer, fingerprint, encoded, longest, overlong)


def longest_text(model: Any, max_length: int | None) -> int:
    """Most tokens of a text: `max_length`, or the model's context for None.

    Raises:
        CorpusError: it is beyond the model's context.
    """
    context = context_length(model)
    if max_length is not None and max_length > context:
        raise CorpusError(f"max_length={max_length} is beyond the model's context of {context}")
    return context if max_length is None else max_length


def require_known_ids(encoded: EncodedCorpus, size: int) -> None:
    """Raise unless all ids of an encoded corpus are in a vocabulary of `size`.

    Raises:
        CorpusError: the tokenizer is that of another model.
    """
    if (largest := int(encoded.ids.max(initial=0))) >= size:
        raise CorpusError(
            f"the tokenizer gives id {largest}, but the model's vocabulary has {size}: "
            "pass the tokenizer that belongs to the model"
        )


def refuse_hooks(model: Any, run_dir: str | Path | None) -> None:
    """Raise if a resumable run would depend on somebody's hooks.

    Raises:
        LensNeuronsError: there are hooks on the model, and `run_dir` is given.
    """
    if run_dir is not None and has_hooks(model):
        raise LensNeuronsError(
            f"there are hooks on the model, and run_dir={run_dir} could not tell whether they are "
            "the same when it goes on: run without run_dir and save() the result"
        )


def model_provenance(
    model: Any,
    tokenizer: PreTrainedTokenizerBase | str,
    fingerprint: str,
    template: str = "none",
) -> Provenance:
    """Where a result of whole forward passes comes from: model, tokenizer, texts, versions.

    Logits and residual streams come from the bridge, whose attention is eager. The caller adds what
    it read of the neurons: hook, activation function, scope. The tokenizer may be given by its
    hash.
    """
    return Provenance(
        model=str(model.cfg.model_name),
        revision=revision_of(model),
        config=hash_config(model),
        weights=hash_weights(model),
        quantisation=quantisation_of(model),
        dtype=str(next(iter(model.parameters())).dtype).removeprefix("torch."),
        attention=attention_implementation(model, "bridge"),
        tokenizer=tokenizer if isinstance(tokenizer, str) else tokenizer_hash(tokenizer),
        template=template,
        interventions="hooks" if has_hooks(model) else "none",
        corpora=(fingerprint,),
        versions=library_versions(),
    )
