"""From texts to token ids, with the tokens that count marked in each text.

A neuron's activation probability is a share of *counted tokens*, so what counts is decided here,
once. Prompt and response are encoded together, as the model reads them, and told apart by the
characters each token holds:

* **a token that holds at least one character of the response belongs to the response**, also where
  it begins in the prompt (a merged ``" 42"`` across the seam); all others belong to the prompt, so
  the two scopes are disjoint and together make ``"all"``;
* a token that is one of several for the same character (the byte pieces of an ideograph) goes where
  that character is;
* special tokens never count, whether the tokenizer adds them or a text spells them;
* the counted tokens of a text are one run ``[start, stop)``, or the text is refused.

The tokenizer is used as it is, with its own rule for BOS, and stays as it is.

    >>> encoded = encode(corpus, tokenizer, scope="response")  # doctest: +SKIP
    >>> for rows in plan_batches(encoded, batch_tokens=4096):  # doctest: +SKIP
    ...     batch = make_batch(encoded, rows)

What it does not settle: a straddling token is read with the prompt *and* the response in view.
Their number is in the report; a line break at the end of the prompt avoids nearly all of them.

An encoded corpus: flat arrays of token ids, the counted run of each text, and a report.

Four bytes a token and a few numbers a text, so that a corpus of 100 million tokens takes 400 MB.

Which tokens hold which characters: a tokenizer's backend, read exactly.

The offsets that fast tokenizers report are nearly what is wanted, with two traps, and both are
closed on a private copy of the backend, so that the user's tokenizer stays as it is:

* byte-level tokenizers trim spaces from the offsets (`trim_offsets`): the token ``" 42"`` claims
  the characters of ``"42"`` only, and a lone space claims none. Untrimmed, the tokens cover the
  text, and a token across the seam can be seen;
* truncation and padding that an earlier call left on the backend would cut or fill texts.

That the copy encodes as the tokenizer itself does is checked on real texts, not assumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from lensneurons.corpora.checks import SHOWN, and_more
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.corpora.items import Item
from lensneurons.errors import CorpusError, choose
from lensneurons.shapes import FlatIds, TextNumbers, TextOffsets
from lensneurons.values.tables import html_table

if TYPE_CHECKING:
    import pandas as pd
    import tokenizers
    from transformers import PreTrainedTokenizerBase


Scope = Literal["response", "prompt", "all"]


@dataclass(frozen=True, slots=True)
class LanguageTokens:
    """What encoding did to the texts of one language.

    Attributes:
        language: the tag, or "all" for the sum over languages.
        texts: number of texts.
        tokens: tokens kept, special tokens included.
        counted: tokens kept that count.
        straddling: tokens that hold characters of both prompt and response, cut off or not.
        cut: texts that were longer than the limit.
        lost: counted tokens beyond the limit.
        emptied: texts left without any counted token by the cut.
    """

    language: str
    texts: int = 0
    tokens: int = 0
    counted: int = 0
    straddling: int = 0
    cut: int = 0
    lost: int = 0
    emptied: int = 0


@dataclass(frozen=True, repr=False)
class EncodingReport:
    """The numbers of an encoding, language by language.

    Attributes:
        scope: which tokens count.
        languages: one row a language, in the order of the corpus.
    """

    scope: Scope
    languages: tuple[LanguageTokens, ...]

    @property
    def total(self) -> LanguageTokens:
        """The sum over the languages, under the name "all"."""
        names = [field.name for field in fields(LanguageTokens)[1:]]
        sums = {name: sum(getattr(row, name) for row in self.languages) for name in names}
        return LanguageTokens("all", **sums)

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with one row a language and the columns of `LanguageTokens`."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.languages])

    def __repr__(self) -> str:
        all_ = self.total
        cut = f", {all_.cut} texts cut ({all_.lost} tokens lost)" if all_.cut else ""
        seam = f", {all_.straddling} across the seam" if all_.straddling else ""
        return (
            f"EncodingReport({len(self.languages)} languages, {all_.texts} texts, {all_.tokens}"
            f" tokens, {all_.counted} counted in scope {self.scope!r}{seam}{cut})"
        )

    def _repr_html_(self) -> str:
        rows = [list(asdict(row).values()) for row in (*self.languages, self.total)]
        return html_table(repr(self), [field.name for field in fields(LanguageTokens)], rows)


@dataclass(frozen=True, eq=False, repr=False)
class EncodedCorpus:
    """All texts of a corpus as token ids. Made by `tokens.encode`; treat the arrays as read-only.

    Attributes:
        ids: token ids of all texts, one after the other; special tokens included.
        offsets: text i is ``ids[offsets[i]:offsets[i + 1]]``.
        start: first counted token of each text, counted from the text's own first token.
        stop: end (exclusive) of the counted tokens of each text; equal to start where none count.
        language: the language of each text, as an index into `languages`.
        languages: the tags, in the order of the corpus.
        item_ids: the item each text belongs to.
        scope: which tokens count.
        pad_id: the id that fills up batches; it is masked and never counts.
        report: what encoding did, language by language.
    """

    ids: FlatIds
    offsets: TextOffsets
    start: TextNumbers
    stop: TextNumbers
    language: TextNumbers
    languages: tuple[str, ...]
    item_ids: tuple[str, ...]
    scope: Scope
    pad_id: int
    report: EncodingReport

    @property
    def lengths(self) -> TextNumbers:
        """The number of tokens of each text, special tokens included."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def predicted(self) -> TextNumbers:
        """The number of counted tokens of each text that have a token before them."""
        return np.maximum(self.stop - np.maximum(self.start, 1), 0)

    def __len__(self) -> int:
        """The number of texts."""
        return len(self.item_ids)

    def __repr__(self) -> str:
        return f"EncodedCorpus({repr(self.report).partition('(')[2]}"


_PARTS = ("normalizer", "pre_tokenizer", "post_processor")


class CountedTokens(NamedTuple):
    """One encoded text: its ids (int32), its counted run [start, stop), its straddling tokens."""

    ids: np.ndarray
    start: int
    stop: int
    straddling: int


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a fingerprint of how a tokenizer turns text into counted tokens.

    Args:
        tokenizer: a Hugging Face fast tokenizer.

    Returns:
        SHA-256 (64 hex digits) over its parts (vocabulary and merges, normaliser, pre-tokenizer,
        special-token template, added tokens) and over which ids are special. The same in every
        load; truncation, padding and the padding token, which change no count, are left out.

    Raises:
        CorpusError: the tokenizer is slow, or has a part written in Python.
    """
    backend = _backend(tokenizer)
    digest = sha256(b"lensneurons tokenizer 1\n")
    digest.update(_part_json(backend.model))
    added = sorted(backend.get_added_tokens_decoder().items())
    rules = {
        "parts": [json.loads(_part_json(getattr(backend, name))) for name in _PARTS],
        "added": [[number, *_spelling(token)] for number, token in added],
        "special": special_ids(tokenizer).tolist(),
        "split special": _splits_special(tokenizer),
    }
    digest.update(json.dumps(rules, sort_keys=True).encode())
    return digest.hexdigest()


def special_ids(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return the ids (sorted int64) that never count: all special tokens but "unknown".

    An unknown token holds a real character, so it counts, unless it doubles as BOS or EOS. What
    pads is no matter: people pad with whatever is at hand.

    Args:
        tokenizer: a Hugging Face fast tokenizer.
    """
    added = tokenizer.added_tokens_decoder
    special = {number for number, token in added.items() if token.special}
    special.discard(tokenizer.unk_token_id)
    names = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    framing: set[int] = {getattr(tokenizer, name) for name in names} - {None}
    return np.array(sorted(special | framing), dtype=np.int64)


def exact_backend(
    tokenizer: PreTrainedTokenizerBase, samples: Sequence[str]
) -> tokenizers.Tokenizer:
    """Return a copy of a tokenizer's backend whose offsets cover every character of its tokens.

    Args:
        tokenizer: a Hugging Face fast tokenizer; it stays as it is.
        samples: texts on which the copy must give the ids that the tokenizer gives.

    Raises:
        CorpusError: the tokenizer is slow, or does more than its backend.
    """
    backend = _copy_backend(_backend(tokenizer))
    backend.encode_special_tokens = _splits_special(tokenizer)
    for sample in samples:
        theirs = list(tokenizer(sample, verbose=False)["input_ids"])
        if backend.encode(sample).ids != theirs:
            raise CorpusError(
                f"{type(tokenizer).__name__} changes what its backend encodes, first in"
                f" {sample!r:.60}: its tokens cannot be located; give the plain fast tokenizer"
            )
    return backend


def count_tokens(
    encoding: tokenizers.Encoding, seam: int, length: int, scope: Scope, special: np.ndarray
) -> CountedTokens:
    """Find the counted tokens of one encoded text.

    Args:
        encoding: ids and untrimmed offsets of prompt + response.
        seam: the number of characters of the prompt.
        length: the number of characters of the whole text.
        scope: which tokens count.
        special: ids that never count.

    Raises:
        CorpusError: the counted tokens are not one run.
    """
    ids = np.array(encoding.ids, dtype=np.int32)
    begin, end = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2).T
    mute = np.array(encoding.special_tokens_mask, dtype=bool) | np.isin(ids, special)
    # A token without characters (a marker some tokenizers add) stands where it begins.
    in_response = np.where(end > begin, end > seam, begin >= seam) & (seam < length)
    chosen = {"response": in_response, "prompt": ~in_response, "all": np.ones_like(mute)}[scope]
    places = np.flatnonzero(chosen & ~mute)
    straddling = int(((begin < seam) & (end > seam) & ~mute).sum())
    if not places.size:
        return CountedTokens(ids, 0, 0, straddling)
    start, stop = int(places[0]), int(places[-1]) + 1
    if stop - start != places.size:
        raise CorpusError(_broken_run(encoding, start, stop, mute, scope))
    return CountedTokens(ids, start, stop, straddling)


def _broken_run(
    encoding: tokenizers.Encoding, start: int, stop: int, mute: np.ndarray, scope: Scope
) -> str:
    inside = np.flatnonzero(mute[start:stop])
    if inside.size:
        token = encoding.tokens[start + int(inside[0])]
        return (
            f"the special token {token!r} stands between counted tokens in scope {scope!r}; it"
            " never counts and would break the run: remove it from the text, or count the"
            " response of a prompt that holds it"
        )
    return (
        "the tokenizer's offsets are out of order, so prompt and response cannot be told apart;"
        " use another tokenizer or scope='all'"
    )


def _backend(tokenizer: PreTrainedTokenizerBase) -> tokenizers.Tokenizer:
    if not getattr(tokenizer, "is_fast", False):
        raise CorpusError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so it cannot say which"
            " characters a token holds; load one that has a tokenizer.json, with"
            " AutoTokenizer.from_pretrained"
        )
    return getattr(tokenizer, "backend_tokenizer")  # noqa: B009 (its type is that of any id)


def _copy_backend(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return a backend of the same parts, which are shared, not copied.

    With 250,000 words a copy by way of JSON takes 8 s; this takes milliseconds.
    """
    import tokenizers

    own = tokenizers.Tokenizer(backend.model)
    for name in _PARTS:
        setattr(own, name, getattr(backend, name))
    own.post_processor = _untrimmed(backend.post_processor)
    added = backend.get_added_tokens_decoder()
    own.add_tokens([added[number] for number in sorted(added)])
    return own


def _untrimmed(processor: Any) -> Any:
    """Return a copy of a post-processor with `trim_offsets` off in it and in all it is made of."""
    if processor is None:
        return None
    state = json.loads(processor.__getstate__())
    _keep_spaces(state)
    own = deepcopy(processor)
    own.__setstate__(json.dumps(state).encode())
    return own


def _keep_spaces(state: Any) -> None:
    if isinstance(state, dict):
        if "trim_offsets" in state:
            state["trim_offsets"] = False
        state = list(state.values())
    if isinstance(state, list):
        for part in state:
            _keep_spaces(part)


def _spelling(token: tokenizers.AddedToken) -> list[str | bool]:
    flags = (token.single_word, token.lstrip, token.rstrip, token.normalized, token.special)
    return [token.content, *flags]


def _splits_special(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether special tokens that a text spells are encoded as ordinary text."""
    return bool(getattr(tokenizer, "split_special_tokens", False))


def _part_json(part: Any) -> bytes:
    try:
        return b"null" if part is None else part.__getstate__()
    except Exception as cause:  # the Rust side raises bare Exceptions
        raise CorpusError(
            f"the tokenizer's {type(part).__name__} is written in Python and cannot be"
            " fingerprinted; use the tokenizer.json of its model"
        ) from cause


Overlong = Literal["refuse", "cut"]

# Texts handed to the tokenizer at once: enough to keep its threads busy, few enough that their
# offsets (which take some hundred bytes a token) do not add up.
_TEXTS_AT_ONCE = 512


def encode(
    corpus: ParallelCorpus,
    tokenizer: PreTrainedTokenizerBase,
    *,
    scope: Scope = "response",
    max_length: int | None = None,
    overlong: Overlong = "refuse",
) -> EncodedCorpus:
    """Encode a corpus and mark the tokens that count.

    Args:
        corpus: the texts.
        tokenizer: a Hugging Face fast tokenizer; it stays as it is.
        scope: which tokens count: those of the response, of the prompt, or all of the text.
        max_length: the most tokens a text may have, special tokens included; None for no limit.
        overlong: what to do with longer texts: refuse them all in one error, or cut each after
            its first `max_length` tokens (the report says what was lost).

    Returns:
        The corpus as flat arrays, text by text in its order.

    Raises:
        CorpusError: the tokenizer is slow; a text is too long; a text has no counted token, cut or
            not; or its counted tokens are not one run.
    """
    choose(scope, get_args(Scope), "scope")
    choose(overlong, get_args(Overlong), "overlong")
    if max_length is not None and max_length < 1:
        raise CorpusError(f"max_length={max_length} leaves no token; give 1 or more")
    texts = list(_encode_texts(corpus, tokenizer, scope))
    _refuse_empty(corpus, texts, scope)
    if max_length is not None and overlong == "refuse":
        _refuse_long(corpus, texts, max_length)
    kept = [_cut(text, max_length) for text in texts]
    return EncodedCorpus(
        ids=np.concatenate([text.ids for text in kept]),
        offsets=np.cumsum([0] + [len(text.ids) for text in kept], dtype=np.int64),
        start=np.array([text.start for text in kept], dtype=np.int32),
        stop=np.array([text.stop for text in kept], dtype=np.int32),
        language=np.array([corpus.languages.index(i.language) for i in corpus], dtype=np.int32),
        languages=corpus.languages,
        item_ids=tuple(item.id for item in corpus),
        scope=scope,
        pad_id=_pad_id(tokenizer),
        report=_report(corpus, texts, kept, scope),
    )


def _encode_texts(
    corpus: ParallelCorpus, tokenizer: PreTrainedTokenizerBase, scope: Scope
) -> Iterator[CountedTokens]:
    first_of_each = {item.language: item.text for item in reversed(corpus.items)}
    backend = exact_backend(tokenizer, list(first_of_each.values()))
    special = special_ids(tokenizer)
    for begin in range(0, len(corpus), _TEXTS_AT_ONCE):
        items = corpus.items[begin : begin + _TEXTS_AT_ONCE]
        encodings = backend.encode_batch([item.text for item in items])
        for item, encoding in zip(items, encodings, strict=True):
            try:
                seam, length = len(item.prompt), len(item.text)
                yield count_tokens(encoding, seam, length, scope, special)
            except CorpusError as refusal:
                raise CorpusError(f"{_who(item)}: {refusal}") from None


def _cut(text: CountedTokens, max_length: int | None) -> CountedTokens:
    """Keep the first `max_length` tokens; a counted run beyond them becomes empty."""
    if max_length is None or len(text.ids) <= max_length:
        return text
    start, stop = min(text.start, max_length), min(text.stop, max_length)
    return text._replace(ids=text.ids[:max_length], start=start, stop=stop)


def _refuse_empty(corpus: ParallelCorpus, texts: Sequence[CountedTokens], scope: Scope) -> None:
    pairs = zip(corpus, texts, strict=True)
    empty = [_who(item) for item, text in pairs if text.start == text.stop]
    if empty:
        listed = ", ".join(empty[:SHOWN]) + and_more(empty)
        raise CorpusError(
            f"no token counts in scope {scope!r} for {len(empty)} of {len(corpus)} texts: {listed};"
            " choose another scope, or select other items"
        )


def _refuse_long(corpus: ParallelCorpus, texts: Sequence[CountedTokens], max_length: int) -> None:
    pairs = zip(corpus, texts, strict=True)
    long = [f"{_who(i)}: {len(t.ids)} tokens" for i, t in pairs if len(t.ids) > max_length]
    if long:
        listed = "; ".join(long[:SHOWN]) + and_more(long)
        raise CorpusError(
            f"{len(long)} of {len(corpus)} texts exceed max_length={max_length}: {listed};"
            " raise max_length, select other items, or say overlong='cut'"
        )


def _report(
    corpus: ParallelCorpus,
    texts: Sequence[CountedTokens],
    kept: Sequence[CountedTokens],
    scope: Scope,
) -> EncodingReport:
    """Add up what was encoded (`texts`) and what is left after the cut (`kept`)."""
    rows = {tag: LanguageTokens(tag) for tag in corpus.languages}
    for item, text, rest in zip(corpus, texts, kept, strict=True):
        row, counted = rows[item.language], rest.stop - rest.start
        rows[item.language] = replace(
            row,
            texts=row.texts + 1,
            tokens=row.tokens + len(rest.ids),
            counted=row.counted + counted,
            straddling=row.straddling + text.straddling,
            cut=row.cut + (len(rest.ids) < len(text.ids)),
            lost=row.lost + text.stop - text.start - counted,
            emptied=row.emptied + (counted == 0),
        )
    return EncodingReport(scope, tuple(rows.values()))


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id to fill up with; any id does, because padding is masked and never counts."""
    choices = (getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id"))
    return next((choice for choice in choices if choice is not None), 0)


def _who(item: Item) -> str:
    return f"{item.id!r} ({item.language})"
