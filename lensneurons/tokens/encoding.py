"""From texts to token ids, with the tokens that count marked in each text.

A neuron's activation probability is a share of *counted tokens*. The model reads prompt and
response as one text, so both are encoded together and told apart by the characters of each token:

* A token that holds a character of the response belongs to the response, even if it begins in the
  prompt (a merged ``" 42"`` across the seam). All others belong to the prompt. So the two scopes
  are disjoint, and together they are ``"all"``.
* A token that is one of several for a character (the byte pieces of an ideograph) goes where the
  character is.
* Special tokens never count, whether the tokenizer adds them or a text spells them. A BOS that a
  text spells in front is not added again (`lensneurons.tokens.beginnings`).
* The counted tokens of a text are one run ``[start, stop)``. Any other text is refused.

    >>> encoded = encode(corpus, tokenizer, scope="response")  # doctest: +SKIP
    >>> for rows in plan_batches(encoded, batch_tokens=4096):  # doctest: +SKIP
    ...     batch = make_batch(encoded, rows)

Which characters a token holds is read from an exact copy of the tokenizer's backend
(`exact_backend`); the tokenizer itself is used as it is, with its own rule for BOS, and never
changed. An encoded corpus takes four bytes a token: 100 million tokens are 400 MB.

What it does not settle: the model reads a token across the seam with prompt *and* response in view.
The report counts these tokens; a line break at the end of the prompt avoids nearly all of them.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from copy import deepcopy
from dataclasses import astuple, dataclass, fields
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Int32, Int64

from lensneurons.corpora.checks import SHOWN, and_more
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.corpora.items import Item
from lensneurons.errors import CorpusError, choose
from lensneurons.models.identity import added_tokens, copy_backend, once
from lensneurons.options import plain_options
from lensneurons.shapes import TextNumbers
from lensneurons.tokens.beginnings import encode_once, warn_doubled
from lensneurons.values.base import Overview, Value

if TYPE_CHECKING:
    import pandas as pd
    import tokenizers
    from transformers import PreTrainedTokenizerBase

Scope = Literal["response", "prompt", "all"]
Overlong = Literal["refuse", "cut"]

# Texts handed to the tokenizer at once: enough to keep its threads busy, few enough that their
# offsets (some hundred bytes a token) do not add up.
_TEXTS_AT_ONCE = 512


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
class EncodingReport(Value):
    """The numbers of an encoding, language by language.

    Attributes:
        scope: which tokens count.
        languages: one row a language, in the order of the corpus.
    """

    FILE_KIND = "encoding report"

    scope: Scope
    languages: tuple[LanguageTokens, ...]

    @property
    def total(self) -> LanguageTokens:
        """The sum over the languages, under the name "all"."""
        columns = zip(*(astuple(row)[1:] for row in self.languages), strict=True)
        return LanguageTokens("all", *map(sum, columns))

    def to_pandas(self) -> pd.DataFrame:
        """A table with one row a language and the columns of `LanguageTokens`."""
        import pandas as pd

        return pd.DataFrame(list(self.languages))

    def _brief(self) -> str:
        all_ = self.total
        cut = f", {all_.cut} texts cut ({all_.lost} tokens lost)" if all_.cut else ""
        seam = f", {all_.straddling} across the seam" if all_.straddling else ""
        return (
            f"{len(self.languages)} languages, {all_.texts} texts, {all_.tokens} tokens, "
            f"{all_.counted} counted in scope {self.scope!r}{seam}{cut}"
        )

    def _overview(self) -> Overview:
        rows = [astuple(row) for row in (*self.languages, self.total)]
        return Overview(repr(self), [field.name for field in fields(LanguageTokens)], rows)


@dataclass(frozen=True, eq=False, repr=False)
class EncodedCorpus(Value):
    """All texts of a corpus as token ids. Made by `encode`.

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

    FILE_KIND = "encoded corpus"

    ids: Int32[np.ndarray, " tokens"]
    offsets: Int64[np.ndarray, " offsets"]
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
        return np.maximum(self.stop - np.maximum(self.start, 1), 0).astype(np.int64)

    def __len__(self) -> int:
        return len(self.item_ids)

    def _brief(self) -> str:
        return self.report._brief()


@plain_options
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
        overlong: what to do with longer texts: refuse them all in one error, or cut each after its
            first `max_length` tokens (the report says what was lost).

    Returns:
        The corpus as flat arrays, text by text in its order.

    Raises:
        CorpusError: the tokenizer is slow; a text is too long; a text has no counted token even
            before a cut; or its counted tokens are not one run.

    Warns:
        CorpusWarning: once, if texts begin with a BOS that the tokenizer adds as well.
    """
    choose(scope, get_args(Scope), "scope")
    choose(overlong, get_args(Overlong), "overlong")
    if max_length is not None and max_length < 1:
        raise CorpusError(f"max_length={max_length} leaves no token; give 1 or more")
    first_of_each = {item.language: item.text for item in reversed(corpus.items)}
    backend = exact_backend(tokenizer, list(first_of_each.values()))
    special, texts, doubled = special_ids(tokenizer), [], ""
    for begin in range(0, len(corpus), _TEXTS_AT_ONCE):
        items = corpus.items[begin : begin + _TEXTS_AT_ONCE]
        encodings, left_out = encode_once(backend, [item.text for item in items])
        doubled = doubled or left_out
        for item, encoding in zip(items, encodings, strict=True):
            try:
                texts.append(count_tokens(encoding, item, scope, special))
            except CorpusError as refusal:
                raise CorpusError(f"{item.id!r} ({item.language}): {refusal}") from None
    _refuse_empty_and_long(corpus, texts, scope, max_length if overlong == "refuse" else None)
    warn_doubled(doubled)

    whole = np.array([len(text.ids) for text in texts])
    lengths = whole if max_length is None else np.minimum(whole, max_length)
    runs = np.array([(text.start, text.stop) for text in texts], np.int32)
    start, stop = np.minimum(runs, lengths[:, None]).astype(np.int32).T  # empty beyond a cut
    language = np.array([corpus.languages.index(item.language) for item in corpus], np.int32)
    columns = {
        "texts": np.ones_like(lengths),
        "tokens": lengths,
        "counted": stop - start,
        "straddling": np.array([text.straddling for text in texts]),
        "cut": lengths < whole,
        "lost": np.diff(runs, axis=1)[:, 0] - (stop - start),
        "emptied": start == stop,
    }
    rows = []
    for n, tag in enumerate(corpus.languages):
        own = {name: int(values[language == n].sum()) for name, values in columns.items()}
        rows.append(LanguageTokens(tag, **own))
    # Any id does for padding: it is masked and never counts.
    fillers: tuple[Any, ...] = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return EncodedCorpus(
        ids=np.concatenate([text.ids[:n] for text, n in zip(texts, lengths, strict=True)]),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        start=start,
        stop=stop,
        language=language,
        languages=corpus.languages,
        item_ids=tuple(item.id for item in corpus),
        scope=scope,
        pad_id=next(filler for filler in fillers if filler is not None),
        report=EncodingReport(scope, tuple(rows)),
    )


class CountedTokens(NamedTuple):
    """One encoded text: its ids (int32), its counted run [start, stop), its straddling tokens."""

    ids: np.ndarray
    start: int
    stop: int
    straddling: int


def count_tokens(
    encoding: tokenizers.Encoding, item: Item, scope: Scope, special: np.ndarray
) -> CountedTokens:
    """Find the counted tokens of one text, from its ids and untrimmed offsets.

    Raises:
        CorpusError: the counted tokens are not one run.
    """
    seam, length = len(item.prompt), len(item.text)
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
    if stop - start == places.size:
        return CountedTokens(ids, start, stop, straddling)
    if mute[start:stop].any():
        token = encoding.tokens[start + int(mute[start:stop].argmax())]
        raise CorpusError(
            f"the special token {token!r} stands between counted tokens in scope {scope!r}; it"
            " never counts and would break the run: remove it from the text, or count the"
            " response of a prompt that holds it"
        )
    raise CorpusError(
        "the tokenizer's offsets are out of order, so prompt and response cannot be told apart;"
        " use another tokenizer or scope='all'"
    )


def _refuse_empty_and_long(
    corpus: ParallelCorpus, texts: Sequence[CountedTokens], scope: Scope, most: int | None
) -> None:
    empty, long = [], []
    for item, text in zip(corpus, texts, strict=True):
        name, size = f"{item.id!r} ({item.language})", len(text.ids)
        if text.start == text.stop:
            empty.append(name)
        if most is not None and size > most:
            long.append(f"{name}: {size} tokens")
    if empty:
        raise CorpusError(
            f"no token counts in scope {scope!r} for {len(empty)} of {len(corpus)} texts: "
            f"{', '.join(empty[:SHOWN])}{and_more(empty)}; choose another scope, or select other "
            "items"
        )
    if long:
        raise CorpusError(
            f"{len(long)} of {len(corpus)} texts exceed max_length={most}: "
            f"{'; '.join(long[:SHOWN])}{and_more(long)}; raise max_length, select other items, or "
            "say overlong='cut'"
        )


# The tokenizer, read exactly

_PARTS = ("normalizer", "pre_tokenizer", "post_processor")


def exact_backend(
    tokenizer: PreTrainedTokenizerBase, samples: Sequence[str]
) -> tokenizers.Tokenizer:
    """Copy a tokenizer's backend so that its offsets cover every character of its tokens.

    Byte-level tokenizers trim spaces from the offsets: the token ``" 42"`` claims only the
    characters of ``"42"``, and a lone space claims none. The copy does not trim, so a token across
    the seam can be seen. It also forgets any truncation and padding that an earlier call set. On
    the samples it must give the ids that the tokenizer gives.

    Raises:
        CorpusError: the tokenizer is slow, or does more than its backend.
    """
    backend = _backend(tokenizer)
    own = copy_backend(backend)
    if backend.post_processor is not None:  # it alone trims
        own.post_processor = _untrimmed(backend.post_processor)
    own.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
    for sample in samples:
        if own.encode(sample).ids != list(tokenizer(sample, verbose=False)["input_ids"]):
            raise CorpusError(
                f"{type(tokenizer).__name__} changes what its backend encodes, first in"
                f" {sample!r:.60}: its tokens cannot be located; give the plain fast tokenizer"
            )
    return own


def _backend(tokenizer: PreTrainedTokenizerBase) -> tokenizers.Tokenizer:
    if not getattr(tokenizer, "is_fast", False):
        raise CorpusError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so it cannot say which"
            " characters a token holds; load one that has a tokenizer.json, with"
            " AutoTokenizer.from_pretrained"
        )
    return getattr(tokenizer, "backend_tokenizer")  # noqa: B009 (its type is that of any id)


def _untrimmed(processor: Any) -> Any:
    """Copy a post-processor with `trim_offsets` off in it and in all processors inside it."""

    def keep_spaces(state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "trim_offsets": False} if "trim_offsets" in state else state

    own = deepcopy(processor)
    state = json.loads(processor.__getstate__(), object_hook=keep_spaces)
    own.__setstate__(json.dumps(state).encode())
    return own


def special_ids(tokenizer: PreTrainedTokenizerBase) -> Int64[np.ndarray, " special"]:
    """The sorted ids that never count: all special tokens but "unknown".

    An unknown token holds a real character, so it counts, unless it doubles as BOS or EOS. The
    padding token plays no role: people pad with whatever is at hand.
    """
    added = added_tokens(_backend(tokenizer))
    special = {number for number, token in added.items() if token.special}
    special.discard(tokenizer.unk_token_id)
    names = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    framing: set[int] = {getattr(tokenizer, name) for name in names} - {None}
    return np.array(sorted(special | framing), dtype=np.int64)


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (64 hex digits) of how a tokenizer turns text into counted tokens.

    Covers its parts (vocabulary and merges, normaliser, pre-tokenizer, special-token template,
    added tokens) and which ids are special. The same in every load; truncation, padding and the
    padding token change no count and are left out.

    Raises:
        CorpusError: the tokenizer is slow, or has a part written in Python.
    """
    backend = _backend(tokenizer)
    digest = once(
        tokenizer, "vocabulary", _vocabulary(backend), lambda: _vocabulary_digest(backend.model)
    ).copy()
    rules = {
        "parts": [json.loads(_part_json(getattr(backend, name))) for name in _PARTS],
        "added": [
            [n, t.content, t.single_word, t.lstrip, t.rstrip, t.normalized, t.special]
            for n, t in sorted(added_tokens(backend).items())
        ],
        "special": special_ids(tokenizer).tolist(),
        "split special": bool(getattr(tokenizer, "split_special_tokens", False)),
    }
    digest.update(json.dumps(rules, sort_keys=True).encode())
    return digest.hexdigest()


def _vocabulary(backend: tokenizers.Tokenizer) -> tuple[Hashable, ...]:
    """What tells a vocabulary that was put in another's place: kind, settings, size, some words.

    Writing 262,000 words for their digest takes 1 s, so it is done once for a tokenizer.
    """
    model, size = backend.model, backend.get_vocab_size(with_added_tokens=False)
    named = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    settings = {name: value for name, value in named.items() if not callable(value)}
    words = tuple(backend.id_to_token(n) for n in range(0, size, max(1, size // 256)))
    return type(model).__name__, repr(settings), size, words


def _vocabulary_digest(model: Any) -> Any:
    digest = sha256(b"lensneurons tokenizer 1\n")
    digest.update(_part_json(model))
    return digest


def _part_json(part: Any) -> bytes:
    try:
        return b"null" if part is None else part.__getstate__()
    except Exception as cause:  # the Rust side raises bare Exceptions
        raise CorpusError(
            f"the tokenizer's {type(part).__name__} is written in Python and cannot be"
            " fingerprinted; use the tokenizer.json of its model"
        ) from cause
