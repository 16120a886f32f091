"""The logit lens, by language: in which language would each layer go on?

The residual stream after layer l at the position before a token is read as if it were the last:

    p_l(. | text so far) = softmax(unembed(final norm(resid_post_l)))

(Wendler et al. 2024, "Do Llamas Work in English?", arXiv 2402.10588, who ask it about single
words). The final norm is applied once: ``hook_resid_post`` lies before it in every layer, the last
one included, where the lens therefore says what the model says. A short probe checks this before
every run.

Parallel texts tell which tokens belong to a language. With ``c_k(v)`` uses of token v among the
counted tokens of language k,

    r_k(v) = c_k(v) / sum over v' of c_k(v')            relative frequency
    v is rare            if sum over k of c_k(v) < least
    v is shared          if it has no letter (digits, punctuation, spaces), or no language reaches:
    v is of language k   if r_k(v) >= share * sum over j of r_j(v)

Pieces of characters (bytes) are counted as any other token. The probability is then added up:

    own      tokens of the language that the text is written in
    pivot    tokens of the pivot, English by default; not defined for texts in the pivot
    others   tokens of all other languages together
    shared   tokens of no one language: used by several, or without a letter
    rare     tokens that the texts hardly use, and numbers that no token has
    true     the token that does come next: one token, and part of one of the others

Own, pivot, others, shared and rare add up to 1. The mean of a language is weighted by tokens;
pooled means weigh the languages alike and leave the pivot out. A language has a share of the
vocabulary, so some of its mass is chance: `LensCurves.pivot_lead` is the control for "the pivot is
special", the mass of the pivot less the mean mass of one other language.

>>> curves = ln.logit_lens(model, corpus)                                  # doctest: +SKIP
>>> curves.interval("pivot", pooled=True), curves.pivot_lead(pooled=True)  # doctest: +SKIP
>>> ln.plots.lens_curves(curves).show()                                    # doctest: +SKIP

What this does not show: that a model thinks in the pivot. Mass on its tokens says that the stream
points to where the unembedding keeps them; later layers may read something else from it. Words that
two languages spell alike are shared whatever a layer means by them, and related languages own few
tokens. By default the tokens are counted in the very texts that are read, which favours own tokens
in late layers; `reference` takes other texts. In early layers the lens reads poorly: little mass on
a language does not prove its absence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import CorpusError, LensNeuronsError, ModelError, choose
from lensneurons.evaluation.likelihood import LOGITS, fitting, require_predicted
from lensneurons.interventions.patching import residual_name
from lensneurons.models.family import model_family
from lensneurons.models.forward import least_logits, to_device
from lensneurons.models.running import require_finite, runs_model
from lensneurons.models.sites import probe_tokens
from lensneurons.options import plain_options
from lensneurons.tokens.batches import Batch
from lensneurons.tokens.characters import token_texts
from lensneurons.tokens.encoding import EncodedCorpus, Scope
from lensneurons.tokens.prepared import PreparedCorpus, model_provenance, prepare
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import ItemDraws
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    import tokenizers
    from transformers import PreTrainedTokenizerBase

LensKind = Literal["own", "pivot", "others", "shared", "rare", "true"]
KINDS: tuple[LensKind, ...] = get_args(LensKind)


@dataclass(frozen=True, eq=False, repr=False)
class LensCurves(Value):
    """Probability by layer, text and kind of token. Made by `logit_lens`.

    Attributes:
        mass: float64 [layer, text, token kind], probability summed over the counted tokens of the
            text; token kinds are `owners`, then shared, then rare.
        true: float64 [layer, text], probability of the true next token, summed likewise.
        tokens: int64 [text], counted tokens that have a token before them.
        language: int [text], number of each text's language.
        item_ids: name of each text's item, the same in every language.
        languages: codes of the texts' languages; the order of every result by language.
        owners: languages that a token can belong to.
        vocabulary: int64 [token kind], how many numbers of the vocabulary are of each kind.
        pivot: one of the owners, or None.
        share: least share of a token's relative frequency for it to belong to one language.
        least: a token used less often is rare.
        provenance: model and texts.
    """

    FILE_KIND = "logit-lens curves"
    AXES = {
        "mass": ("layer", "text", "token_kind"),
        "true": ("layer", "text"),
        "tokens": ("text",),
        "language": ("text",),
        "vocabulary": ("token_kind",),
    }
    COORDINATES = {"text": "item_ids", "token_kind": "token_kinds"}

    mass: Float64[np.ndarray, "layer text token_kind"]
    true: Float64[np.ndarray, "layer text"]
    tokens: Int64[np.ndarray, " text"]
    language: Int[np.ndarray, " text"]
    item_ids: tuple[str, ...]
    languages: tuple[str, ...]
    owners: tuple[str, ...]
    vocabulary: Int64[np.ndarray, " token_kind"]
    pivot: str | None = "en"
    share: float = 0.9
    least: int = 2
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.mass)

    @property
    def token_kinds(self) -> tuple[str, ...]:
        """The order of the last axis of `mass`."""
        return (*self.owners, "shared", "rare")

    @property
    def kinds(self) -> tuple[LensKind, ...]:
        """The kinds that the curves have: without a pivot, all but ``"pivot"``."""
        return KINDS if self.pivot else tuple(kind for kind in KINDS if kind != "pivot")

    @cached_property
    def means(self) -> Float64[np.ndarray, "layer language kind"]:
        """float64 [layer, language, kind]: mean probability, 0 to 1, in the order of `KINDS`.

        NaN for the pivot's mass in its own texts, and without a pivot.
        """
        found = np.full((self.n_layers, len(self.languages), len(KINDS)), np.nan)
        for kind in self.kinds:
            shown = ~self._in_pivot if kind == "pivot" else slice(None)
            found[:, shown, KINDS.index(kind)] = self._mean(self._sums(kind))[:, shown]
        return found

    def mass_on(self, owner: str) -> np.ndarray:
        """float64 [layer, language]: mean probability of the tokens of one language.

        Raises:
            LensNeuronsError: no token belongs to such a language.
        """
        place = self.owners.index(choose(owner, self.owners, "language"))
        return self._mean(self.mass[..., place])

    @plain_options
    def interval(
        self, kind: LensKind, *, pooled: bool = False, draws: int = 1000, level: float = 0.95,
        seed: int = 0,
    ) -> Interval:  # fmt: skip
        """Mean probability of a kind of tokens with its bootstrap interval over items.

        Args:
            kind: ``"own"``, ``"pivot"``, ``"others"``, ``"shared"``, ``"rare"`` or ``"true"``.
            pooled: whether the languages but the pivot are averaged, each counting the same.
            draws: how many corpora to draw; an item is drawn with all its languages.
            level: coverage.
            seed: the same seed gives the same interval.

        Returns:
            [layer, language], or [layer] where pooled; NaN where `means` is.

        Raises:
            LensNeuronsError: no such kind, or fewer than two items.
        """
        return self._bootstrap(self._sums(kind), pooled, draws, level, seed, kind == "pivot")

    @plain_options
    def difference(
        self, first: LensKind, second: LensKind, *, pooled: bool = False, draws: int = 1000,
        level: float = 0.95, seed: int = 0,
    ) -> Interval:  # fmt: skip
        """How much more probable one kind of tokens is than another, paired over the same items.

        The options are those of `interval`.

        Raises:
            LensNeuronsError: no such kind, or fewer than two items.
        """
        values = self._sums(first) - self._sums(second)
        return self._bootstrap(values, pooled, draws, level, seed, "pivot" in (first, second))

    @plain_options
    def pivot_lead(
        self, *, pooled: bool = False, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Mass of the pivot less the mean mass of one other language that is not the text's own.

        The options are those of `interval`.

        Raises:
            LensNeuronsError: no pivot, no third language, or fewer than two items.
        """
        others = len(self.owners) - 2
        if others < 1:
            raise LensNeuronsError(
                f"tokens belong to {list(self.owners)} alone: comparing the pivot with another "
                "language than the text's own needs three; give reference= more languages"
            )
        values = self._sums("pivot") - self._sums("others") / others
        return self._bootstrap(values, pooled, draws, level, seed, True)

    @property
    def _in_pivot(self) -> np.ndarray:
        """Bool [language]: the pivot."""
        return np.array([language == self.pivot for language in self.languages])

    @property
    def _pooled(self) -> np.ndarray:
        """Bool [language]: the languages of a pooled mean."""
        return ~self._in_pivot if (~self._in_pivot).any() else self._in_pivot

    def _sums(self, kind: str) -> np.ndarray:
        """float64 [layer, text]: probability of a kind, summed over the tokens of each text."""
        choose(kind, self.kinds, "kind")
        if kind == "true":
            return self.true
        if kind in ("shared", "rare"):
            return self.mass[..., self.token_kinds.index(kind)]
        owners = np.array(self.owners)
        is_own = owners == np.array(self.languages)[self.language][:, None]
        is_pivot = (owners == self.pivot) & ~is_own
        chosen = {"own": is_own, "pivot": is_pivot, "others": ~(is_own | is_pivot)}[kind]
        return (self.mass[..., : len(owners)] * chosen).sum(axis=-1)

    def _mean(self, sums: np.ndarray) -> np.ndarray:
        """float64 [layer, language] from sums [layer, text]."""
        n = len(self.languages)
        by_language = np.stack([np.bincount(self.language, row, minlength=n) for row in sums])
        return by_language / np.bincount(self.language, self.tokens, minlength=n)

    def _bootstrap(
        self, sums: np.ndarray, pooled: bool, draws: int, level: float, seed: int, no_pivot: bool
    ) -> Interval:
        corpora = ItemDraws(self.item_ids, self.language, draws, seed)
        estimate, drawn = self._mean(sums), corpora.means(sums, self.tokens)
        if pooled:
            kept = self._pooled
            return corpora.interval(estimate[:, kept].mean(-1), drawn[..., kept].mean(-1), level)
        found = corpora.interval(estimate, drawn, level)
        ends = np.stack([found.estimate, found.low, found.high])
        ends[..., self._in_pivot & no_pivot] = np.nan
        return Interval(ends[0], ends[1], ends[2], found.level, found.method)

    @plain_options
    def to_pandas(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row a layer, language and kind: probability, low, high (NaN with one item alone).

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        import pandas as pd

        places = [KINDS.index(kind) for kind in self.kinds]
        ends = np.full((2, *self.means.shape), np.nan)
        if len(set(self.item_ids)) > 1:
            for kind, place in zip(self.kinds, places, strict=True):
                found = self.interval(kind, level=level)
                ends[..., place] = found.low, found.high
        values = np.concatenate([self.means[None], ends])[..., places]
        axes = (range(self.n_layers), self.languages, self.kinds)
        rows = pd.MultiIndex.from_product(axes, names=["layer", "language", "kind"])
        numbers = values.reshape(3, -1).T
        return pd.DataFrame(numbers, rows, ["probability", "low", "high"]).reset_index()

    @property
    def description(self) -> str:
        """Texts and tokens in one line, for the subtitle of every figure."""
        tokens = f"{int(self.tokens.sum()):,} {self.provenance.scope} tokens"
        return (
            f"{tokens} of {len(set(self.item_ids))} items in {len(self.languages)} languages; "
            f"a token is of the language with {self.share:.0%} of its use, rare below "
            f"{self.least} uses"
        )

    def _brief(self) -> str:
        return f"{self.n_layers} layers; {' '.join(self.languages)}; {self.description}"

    def _overview(self) -> Overview:
        places = [KINDS.index(kind) for kind in self.kinds]
        means = self.means[:, self._pooled].mean(axis=1)[:, places]
        rows = [(layer, *(f"{value:.3f}" for value in row)) for layer, row in enumerate(means)]
        title = f"Probability by kind of token, mean over languages: {self.description}"
        return Overview(title, ("layer", *self.kinds), rows)


@plain_options
@runs_model
def logit_lens(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    *,
    reference: ParallelCorpus | None = None,
    pivot: str | None = "en",
    share: float = 0.9,
    least: int = 2,
    scope: Scope | None = None,
    batch_tokens: int = 4096,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = False,
) -> LensCurves:
    """Read every layer of a model over a corpus, by the language of the tokens it would say.

    Args:
        model: a TransformerLens model; hooks that are on it (an ablation, say) act.
        corpus: the texts that are read, teacher-forced.
        reference: texts that tell which tokens belong to which language, in at least the languages
            of the corpus; None for the corpus itself.
        pivot: the language whose tokens are told apart; ``"en"`` does nothing without English.
        share: least share of a token's relative frequency for it to belong to one language, above
            one half.
        least: a token that is used less often in the reference is rare.
        scope: whose tokens count; the first token of a text that begins without a BOS has nothing
            before it and does not count.
        batch_tokens: most tokens in a batch, padding included; fewer where the vocabulary is large.
            Memory holds one batch and, for some of its positions, one layer's distribution.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.
        progress: show a progress bar, in texts.

    Returns:
        Probability by layer, text and kind of token; float64 sums of float32 probabilities.

    Raises:
        CorpusError: texts that cannot be read, or a language that the reference lacks.
        LensNeuronsError: a share, a least number or a pivot that makes no sense.
        ModelError: not a TransformerLens model, or one whose last layer the lens misreads.
    """
    model_family(model)
    if not 0.5 < share <= 1:
        raise LensNeuronsError(
            f"share={share}: a token belongs to one language alone only where the share is above "
            "0.5; give up to 1"
        )
    if least < 1:
        raise LensNeuronsError(f"least={least}: tokens that are used never belong to no language")
    batch_tokens = fitting(model, batch_tokens)
    texts = corpus.corpus if isinstance(corpus, PreparedCorpus) else corpus
    names = texts.languages if reference is None else reference.languages
    if pivot == "en" and pivot not in names:
        pivot = None  # the default may be missing
    if pivot is not None:
        choose(pivot, names, "pivot")
    if missing := [language for language in texts.languages if language not in names]:
        raise CorpusError(
            f"reference has no texts in {missing}, which are to be read: give it these languages, "
            "or select others of the corpus"
        )
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    encoded, tokenizer, scope = prepared.encoded, prepared.tokenizer, prepared.scope
    require_predicted(encoded)
    counted = encoded
    if reference is not None:
        counted = prepare(model, reference, scope=scope, tokenizer=tokenizer).encoded
    backend = getattr(tokenizer, "backend_tokenizer")  # noqa: B009
    kinds = token_kinds(counted, backend, int(model.cfg.d_vocab), share=share, least=least)
    require_readable(model)
    members = np.eye(len(counted.languages) + 2, dtype=np.float32)[kinds]
    mass = np.zeros((int(model.cfg.n_layers), len(encoded), members.shape[1]))
    true = np.zeros(mass.shape[:2])
    for batch in prepared.read(batch_tokens, "logit lens", progress=progress):
        mass[:, batch.rows], true[:, batch.rows] = _read(model, batch, torch.from_numpy(members))
    fingerprints = sorted(one.fingerprint for one in (texts, reference) if one is not None)
    return LensCurves(
        mass=mass,
        true=true,
        tokens=encoded.predicted,
        language=encoded.language,
        item_ids=encoded.item_ids,
        languages=encoded.languages,
        owners=counted.languages,
        vocabulary=members.sum(axis=0).astype(np.int64),
        pivot=pivot,
        share=share,
        least=least,
        provenance=replace(
            model_provenance(model, tokenizer, texts.fingerprint, texts.template),
            hook="hook_resid_post",
            scope=scope,
            corpora=tuple(fingerprints),
        ),
    )


def token_kinds(
    encoded: EncodedCorpus, backend: tokenizers.Tokenizer, size: int, *, share: float, least: int
) -> Int64[np.ndarray, " vocabulary"]:
    """Which language every token of the vocabulary belongs to, as counted in texts.

    Args:
        encoded: the texts; their counted tokens count.
        backend: the tokenizer's backend, which knows the characters of a token.
        size: of the vocabulary.
        share: least share of a token's relative frequency for it to belong to one language.
        least: a token that is used less often is rare.

    Returns:
        int64 [vocabulary]: number of a language of `encoded`, K for shared, K + 1 for rare.
    """
    k = len(encoded.languages)
    counts = np.zeros((k, size), np.int64)
    for row, language in enumerate(encoded.language):
        begin, first, last = encoded.offsets[row], encoded.start[row], encoded.stop[row]
        np.add.at(counts[language], encoded.ids[begin + first : begin + last], 1)
    rates = counts / counts.sum(axis=1, keepdims=True)
    used = counts.sum(axis=0) >= least
    single = rates.max(axis=0) >= share * rates.sum(axis=0)
    kinds = np.full(size, k + 1, np.int64)
    kinds[used] = np.where(single, rates.argmax(axis=0), k)[used]
    ids = np.flatnonzero(used)
    texts = token_texts(backend, ids.tolist())
    kinds[ids[np.array([not _has_letter(text) for text in texts], bool)]] = k
    return kinds


_BYTES = re.compile("<(0x)?[0-9A-F]{2}( [0-9A-F]{2})*>")


def _has_letter(text: str) -> bool:
    """Whether a token has a letter or a vowel mark, or is a piece of a character."""
    if _BYTES.fullmatch(text):
        return True
    return any(unicodedata.category(character)[0] in "LM" for character in text)


def _read(model: Any, batch: Batch, members: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mass [layer, row, kind] and truth [layer, row] of one batch."""
    mass = np.zeros((int(model.cfg.n_layers), len(batch.rows), members.shape[1]))
    true = np.zeros(mass.shape[:2])
    members = to_device(model, members)

    def take(layer: int, p: torch.Tensor, rows: torch.Tensor, following: torch.Tensor) -> None:
        truth = p.gather(1, following[:, None].to(p.device))[:, 0]
        by_kind = p @ members.to(p.device)
        np.add.at(mass[layer], rows.numpy(), by_kind.cpu().double().numpy())
        np.add.at(true[layer], rows.numpy(), truth.cpu().double().numpy())

    read_layers(model, batch, take)
    return mass, true


Take = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], None]


@torch.inference_mode()
def read_layers(model: Any, batch: Batch, take: Take) -> None:
    """Read every layer of one batch through the lens, some positions at once.

    The residual stream is read inside the hook, layer by layer: none is kept. Padding is on the
    right, where a causal model needs no mask.

    Args:
        model: a TransformerLens model.
        batch: some texts; the counted tokens that have a token before them are looked at.
        take: called as ``take(layer, p, rows, following)`` with probabilities float32 [token,
            vocabulary], the row of each token int64 [token], and the token that does come next.

    Raises:
        ModelError: a layer gives numbers that are not finite.
    """
    row = batch.predicted.nonzero()[:, 0]
    following = batch.tokens[:, 1:][batch.predicted]
    at_once = max(1, LOGITS // 8 // int(model.cfg.d_vocab))

    def reader(layer: int) -> Callable[..., None]:
        def read(residual: torch.Tensor, hook: Any) -> None:
            vectors = residual[:, :-1][batch.predicted.to(residual.device)]
            parts = (one.split(at_once) for one in (vectors, row, following))
            for some, rows, ids in zip(*parts, strict=True):
                p = read_next(model, some)
                require_finite(p, f"the probabilities read from layer {layer}")
                take(layer, p, rows, ids)

        return read

    hooks = [(residual_name(layer), reader(layer)) for layer in range(int(model.cfg.n_layers))]
    with model.hooks(fwd_hooks=hooks):
        model(to_device(model, batch.tokens), attention_mask=None, **least_logits(model))


def read_next(model: Any, vectors: torch.Tensor) -> Float[torch.Tensor, "token vocabulary"]:
    """What the model would say next if vectors of the residual stream were its last.

    Args:
        model: a TransformerLens model.
        vectors: [token, d_model], from before the final norm.

    Returns:
        Probabilities [token, vocabulary], float32.
    """
    from transformer_lens.tools import analysis

    readout = getattr(analysis, "logit_readout", None)  # TransformerLens 3.9 has none
    if readout is not None and model_family(model) == "bridge":
        return readout(model, vectors, return_type="probs", chunk_size=len(vectors)).values
    logits = model.unembed(model.ln_final(vectors[None]))[0].float()
    cap = getattr(model.cfg, "output_logits_soft_cap", 0) or 0
    return (torch.tanh(logits / cap) * cap if cap > 0 else logits).softmax(-1)


@torch.inference_mode()
def require_readable(model: Any) -> None:
    """Prove on a short probe that the lens says in the last layer what the model says.

    Raises:
        ModelError: it does not; or the model has no such hook.
    """
    kept: list[torch.Tensor] = []
    name, tokens = residual_name(int(model.cfg.n_layers) - 1), probe_tokens(model)
    if name not in model.hook_dict:
        raise ModelError(f"{type(model).__name__} has no {name}: the lens has nothing to read")
    try:
        with model.hooks(fwd_hooks=[(name, lambda tensor, hook: kept.append(tensor[0].clone()))]):
            logits = model(tokens, attention_mask=None, return_type="logits")[0]
        ours = read_next(model, kept[0])
    except (ValueError, NotImplementedError) as error:
        raise ModelError(f"TransformerLens cannot read this model's layers: {error}") from error
    worst = float((ours - logits.float().softmax(-1).to(ours.device)).abs().max())
    # 1e-7 to 1e-6 in fp32 over 16 architectures; bf16 rounds logits to 1 part in 256.
    if worst > (1e-3 if logits.dtype in (torch.float32, torch.float64) else 0.1):
        raise ModelError(
            f"in the last layer the lens differs from the model by a probability of {worst:.1e}: "
            "something after the last layer is not in final norm and unembedding (a hook of yours "
            "there, or an unknown architecture)"
        )
