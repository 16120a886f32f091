"""An encoded corpus: flat arrays of token ids, the counted run of each text, and a report.

Four bytes a token and a few numbers a text, so that a corpus of 100 million tokens takes 400 MB.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Literal

from lensneurons.display import html_table
from lensneurons.shapes import FlatIds, TextNumbers, TextOffsets

if TYPE_CHECKING:
    import pandas as pd

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

    def __len__(self) -> int:
        """The number of texts."""
        return len(self.item_ids)

    def __repr__(self) -> str:
        return f"EncodedCorpus({repr(self.report).partition('(')[2]}"
