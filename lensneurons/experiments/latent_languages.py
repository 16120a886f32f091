"""Language in the residual stream: how sure each layer is, in which script, and in whose words.

The logit lens reads the residual stream after layer l, before each counted token, as a distribution
p_l over the vocabulary (`lensneurons.experiments.lens`). Of it this module tells

    entropy        - sum over v of p_l(v) ln p_l(v)          nats; ln V where nothing is known
    script         mass on tokens whose letters are of a Unicode script; tokens with letters of
                   several are ``mixed``, without a letter ``none``, pieces of characters ``bytes``
    translation    mass on the words of the text's own translation into language m: the counted
                   tokens with a letter of item i in m that item i has in no other language
    elsewhere      the same with the words of another item in m, drawn at random

Scripts tell Thai from English, but not French from English. The words of the translation do, and
ask for content: a middle layer that holds *cat* while it reads "le chat" has mass on the English
words of this very item. A language has many common words, though, and mass on these says nothing of
content. So its **lead** is what speaks,

    lead_m = translation_m - elsewhere_m                     0 on average without content

and the latent language of a layer is the one with the largest lead, other than the text's own.

All are means over counted tokens, with a bootstrap over items; pooled over languages each counts
the same.

>>> read = ln.experiments.lens_languages(model, corpus)                    # doctest: +SKIP
>>> read.entropy(), read.script_share(), read.lead("en", pooled=True)      # doctest: +SKIP
>>> read.latent()                                                          # doctest: +SKIP

What this does not show: that a layer thinks in a language. The lens reads early layers poorly, and
a lead of 0 there is no proof of absence. Words are pieces: one that two languages begin alike, a
name or a cognate is in no set, so kin of the text's language have few words, and a language of one
piece a word has more mass than one of five: compare layers, and leads with their intervals, rather
than the masses of languages. A word that the item does not use (a synonym) is not seen. A token of
Han characters is of Chinese or Japanese; only the words of the translation tell which. A
*tuned* lens, which trains a map for each layer, would read early layers better; it is not offered,
because the last release of its library (tuned-lens 0.2.0) brings wandb, torchdata and datasets
along, and ready lenses are on the hub for few models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import regex
import torch
from jaxtyping import Float64, Int, Int64

from lensneurons.activations.items import whole_items
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import CorpusError, LensNeuronsError, choose
from lensneurons.evaluation.likelihood import fitting, require_predicted
from lensneurons.experiments.lens import read_layers, require_readable
from lensneurons.languages.codes import scripts
from lensneurons.models.family import model_family
from lensneurons.models.forward import to_device
from lensneurons.models.running import runs_model
from lensneurons.options import plain_options
from lensneurons.tokens.batches import Batch, make_batch
from lensneurons.tokens.characters import piece_bytes, token_texts
from lensneurons.tokens.encoding import EncodedCorpus, Scope
from lensneurons.tokens.prepared import UNTOLD, PreparedCorpus, model_provenance, prepare
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import ItemDraws
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    import tokenizers
    from transformers import PreTrainedTokenizerBase

# Tokens of no script that a language of the corpus is written in, and of none that can be told.
REST = ("other", "mixed", "none", "bytes")
OfTexts = Float64[np.ndarray, "layer text language"]


@dataclass(frozen=True, eq=False, repr=False)
class LensLanguages(Value):
    """What the lens says by script and by the words of translations. Made by `lens_languages`.

    Attributes:
        entropies: float64 [layer, text], entropy in nats, summed over the counted tokens.
        mass: float64 [layer, text, script], probability, summed likewise; adds up to the tokens.
        translation: float64 [layer, text, language], probability of the words of the item's text
            in a language, summed likewise.
        elsewhere: the same of the words of another item.
        tokens: int64 [text], counted tokens that have a token before them.
        language: int [text], number of each text's language.
        item_ids: name of each text's item; those that have all languages.
        languages: codes.
        scripts: names of the script columns: ISO 15924 codes, then `REST`.
        words: int64 [text, language], size of the sets of the text's item.
        vocabulary: int64 [script], tokens of each.
        left_out: items that lack a language.
        provenance: model and texts.
    """

    FILE_KIND = "logit lens by script and translation"
    AXES = {
        "entropies": ("layer", "text"),
        "mass": ("layer", "text", "script"),
        "translation": ("layer", "text", "language"),
        "elsewhere": ("layer", "text", "language"),
        "tokens": ("text",),
        "vocabulary": ("script",),
    }
    COORDINATES = {"text": "item_ids", "script": "scripts", "language": "languages"}

    entropies: Float64[np.ndarray, "layer text"]
    mass: Float64[np.ndarray, "layer text script"]
    translation: OfTexts
    elsewhere: OfTexts
    tokens: Int64[np.ndarray, " text"]
    language: Int[np.ndarray, " text"]
    item_ids: tuple[str, ...]
    languages: tuple[str, ...]
    scripts: tuple[str, ...]
    words: Int64[np.ndarray, "text language"]
    vocabulary: Int64[np.ndarray, " script"]
    left_out: int = 0
    provenance: Provenance = field(default_factory=Provenance)

    @plain_options
    def entropy(
        self, *, pooled: bool = False, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Mean entropy of the lens in nats, with its interval over items.

        Args:
            pooled: whether the languages are averaged, each counting the same.
            draws: how many corpora to draw; an item is drawn with all its languages.
            level: coverage.
            seed: the same seed gives the same interval.

        Returns:
            [layer, language], or [layer] where pooled.
        """
        return self._interval(self.entropies, None, pooled, draws, level, seed)

    @plain_options
    def script_share(
        self, script: str | None = None, *, pooled: bool = False, draws: int = 1000,
        level: float = 0.95, seed: int = 0,
    ) -> Interval:  # fmt: skip
        """Mean probability of the tokens of a script, with its interval over items.

        Args:
            script: one of `scripts`; None for those that each text's language is written in.
            pooled: whether the languages are averaged, each counting the same.
            draws: how many corpora to draw.
            level: coverage.
            seed: of the draws.

        Raises:
            LensNeuronsError: no such script.
        """
        if script is not None:
            sums = self.mass[..., self.scripts.index(choose(script, self.scripts, "script"))]
        else:
            own = np.array([[s in scripts_of(k) for s in self.scripts] for k in self.languages])
            sums = (self.mass * own[self.language]).sum(axis=-1)
        return self._interval(sums, None, pooled, draws, level, seed)

    @plain_options
    def lead(
        self, language: str, *, pooled: bool = False, draws: int = 1000, level: float = 0.95,
        seed: int = 0,
    ) -> Interval:  # fmt: skip
        """Mass on the item's words in a language, less that on another item's.

        Pooled over all texts but those in the language itself, whose words they are about to read.
        The other options are those of `entropy`.

        Raises:
            LensNeuronsError: no such language.
        """
        place = self.languages.index(choose(language, self.languages, "language"))
        sums = (self.translation - self.elsewhere)[..., place]
        return self._interval(sums, place, pooled, draws, level, seed)

    @plain_options
    def latent(self, *, draws: int = 1000, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """One row a layer and language: its lead over texts in all others, with its interval.

        Columns: layer, language, lead, low, high, rank (1: the latent language of the layer), and
        ``measurable``, whether the interval lies above 0.
        """
        import pandas as pd

        rows = []
        for language in self.languages:
            found = self.lead(language, pooled=True, draws=draws, level=level, seed=seed)
            ends = zip(found.estimate, found.low, found.high, strict=True)
            rows += [(layer, language, *one) for layer, one in enumerate(ends)]
        table = pd.DataFrame(rows, columns=["layer", "language", "lead", "low", "high"])
        table["rank"] = table.groupby("layer").lead.rank(ascending=False, method="first")
        table["rank"] = table["rank"].astype(int)
        table["measurable"] = table.low > 0
        return table.sort_values(["layer", "rank"], ignore_index=True)

    def to_pandas(self) -> pd.DataFrame:
        """One row a layer and language of the texts: entropy, every script, every lead."""
        import pandas as pd

        axes = (range(len(self.entropies)), self.languages)
        rows = pd.MultiIndex.from_product(axes, names=["layer", "language"])
        columns = {"entropy": self.entropies}
        columns |= {f"script {one}": self.mass[..., n] for n, one in enumerate(self.scripts)}
        for n, one in enumerate(self.languages):
            columns[f"translation {one}"] = self.translation[..., n]
            columns[f"elsewhere {one}"] = self.elsewhere[..., n]
        found = {name: self._mean(sums).ravel() for name, sums in columns.items()}
        return pd.DataFrame(found, rows).reset_index()

    def _mean(self, sums: np.ndarray) -> np.ndarray:
        """[layer, language] from sums [layer, text], weighted by tokens."""
        of = np.eye(len(self.languages))[self.language]
        return sums @ of / (self.tokens @ of)

    def _interval(
        self,
        sums: np.ndarray,
        without: int | None,
        pooled: bool,
        draws: int,
        level: float,
        seed: int,
    ) -> Interval:
        """Means of sums [layer, text] with their interval; pooled without a language."""
        corpora = ItemDraws(self.item_ids, self.language, draws, seed)
        estimate, drawn = self._mean(sums), corpora.means(sums, self.tokens)
        if pooled:
            kept = np.arange(len(self.languages)) != (-1 if without is None else without)
            estimate, drawn = estimate[:, kept].mean(-1), drawn[..., kept].mean(-1)
        return corpora.interval(estimate, drawn, level)

    def _brief(self) -> str:
        items = len(set(self.item_ids))
        return (
            f"{len(self.entropies)} layers; {' '.join(self.languages)}; {items} items, "
            f"{int(self.tokens.sum()):,} {self.provenance.scope} tokens"
        )

    def _overview(self) -> Overview:
        leads = np.stack([self.lead(k, pooled=True, draws=1).estimate for k in self.languages], -1)
        entropy = self.entropy(pooled=True, draws=1).estimate
        own = self.script_share(pooled=True, draws=1).estimate
        rows = [
            (layer, f"{entropy[layer]:.2f}", f"{own[layer]:.3f}", *(f"{x:+.4f}" for x in row))
            for layer, row in enumerate(leads)
        ]
        head = ("layer", "entropy", "own script", *(f"lead of {k}" for k in self.languages))
        return Overview(f"Logit lens, mean over languages: {self._brief()}", head, rows)


@plain_options
@runs_model
def lens_languages(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    *,
    seed: int = 0,
    scope: Scope | None = None,
    batch_tokens: int = 4096,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = False,
) -> LensLanguages:
    """Read every layer of a model over parallel texts: entropy, scripts, words of translations.

    Args:
        model: a TransformerLens model; hooks that are on it (an ablation, say) act.
        corpus: parallel items, teacher-forced. Items that lack one of its languages are left out.
        seed: which other item each item is compared with.
        scope: whose tokens count; the first token of a text that begins without a BOS has nothing
            before it and does not count.
        batch_tokens: most tokens in a batch, padding included; fewer where the vocabulary is large.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.
        progress: show a progress bar, in texts.

    Raises:
        CorpusError: texts that cannot be read, or fewer than three items in all languages.
        LensNeuronsError: one language alone.
        ModelError: not a TransformerLens model, or one whose last layer the lens misreads.
    """
    from tqdm.auto import tqdm

    model_family(model)
    batch_tokens = fitting(model, batch_tokens)
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    encoded = prepared.encoded
    require_predicted(encoded)
    names, left_out = whole_items(encoded)
    if len(encoded.languages) < 2:
        raise LensNeuronsError(
            f"texts in {list(encoded.languages)} alone have no translation: give two languages"
        )
    if len(names) < 3:
        raise CorpusError(
            f"{len(names)} items in all of {list(encoded.languages)}: three are needed, so that"
            " each can be compared with another; select languages whose items are parallel"
        )
    kept = np.flatnonzero(np.isin(encoded.item_ids, names))
    backend = getattr(prepared.tokenizer, "backend_tokenizer")  # noqa: B009
    columns, of_token = token_scripts(backend, int(model.cfg.d_vocab), encoded.languages)
    sets = translation_words(encoded, names, backend)
    other = _others(len(names), seed)
    require_readable(model)
    item = {name: number for number, name in enumerate(names)}
    own = np.array([item.get(name, 0) for name in encoded.item_ids])
    shape = (int(model.cfg.n_layers), len(encoded))
    found = LensLanguages(
        entropies=np.zeros(shape),
        mass=np.zeros((*shape, len(columns))),
        translation=np.zeros((*shape, len(encoded.languages))),
        elsewhere=np.zeros((*shape, len(encoded.languages))),
        tokens=encoded.predicted[kept],
        language=encoded.language[kept],
        item_ids=tuple(encoded.item_ids[row] for row in kept),
        languages=encoded.languages,
        scripts=columns,
        words=np.array([[len(one) for one in sets[own[row]]] for row in kept], np.int64),
        vocabulary=np.bincount(of_token, minlength=len(columns)),
        left_out=left_out,
        provenance=replace(
            model_provenance(
                model, prepared.tokenizer, prepared.corpus.fingerprint, prepared.corpus.template
            ),
            hook="hook_resid_post",
            scope=prepared.scope,
        ),
    )
    sums = {name: np.zeros_like(getattr(found, name)) for name in SUMS}
    members = torch.eye(len(columns))[torch.from_numpy(of_token)]
    with tqdm(total=len(kept), desc="logit lens", unit="text", disable=not progress) as bar:
        for rows in prepared.batches(batch_tokens):
            rows = rows[np.isin(rows, kept)]
            if len(rows):
                asked = [(sets[own[row]], sets[other[own[row]]]) for row in rows]
                for name, one in _read(model, make_batch(encoded, rows), members, asked).items():
                    sums[name][:, rows] = one
            bar.update(len(rows))
    return replace(found, **{name: one[:, kept] for name, one in sums.items()})


SUMS = ("entropies", "mass", "translation", "elsewhere")
Words = Sequence[np.ndarray]  # of one item: token ids, language by language


def _read(
    model: Any, batch: Batch, members: torch.Tensor, asked: Sequence[tuple[Words, Words]]
) -> dict[str, np.ndarray]:
    """The sums [layer, row, ...] of one batch, for the words that are asked of each row."""
    n_layers, n_rows, n_languages = int(model.cfg.n_layers), len(batch.rows), len(asked[0][0])
    sums = {
        "entropies": np.zeros((n_layers, n_rows)),
        "mass": np.zeros((n_layers, n_rows, members.shape[1])),
        "translation": np.zeros((n_layers, n_rows, n_languages)),
        "elsewhere": np.zeros((n_layers, n_rows, n_languages)),
    }
    members = to_device(model, members)

    def take(layer: int, p: torch.Tensor, rows: torch.Tensor, following: torch.Tensor) -> None:
        entropy = torch.special.entr(p).sum(dim=-1, dtype=torch.float64).cpu().numpy()
        by_script = (p @ members.to(p.device)).cpu().double().numpy()
        np.add.at(sums["entropies"][layer], rows.numpy(), entropy)
        np.add.at(sums["mass"][layer], rows.numpy(), by_script)
        for row in rows.unique().tolist():
            own = p[(rows == row).to(p.device)]
            for name, words in zip(("translation", "elsewhere"), asked[row], strict=True):
                for language, ids in enumerate(words):
                    chosen = own[:, torch.from_numpy(ids).to(p.device)]
                    sums[name][layer, row, language] += float(chosen.sum(dtype=torch.float64))

    read_layers(model, batch, take)
    return sums


def translation_words(
    encoded: EncodedCorpus, names: Sequence[str], backend: tokenizers.Tokenizer
) -> list[Words]:
    """The tokens that one language alone uses for an item, item by item.

    Args:
        encoded: the texts; their counted tokens count.
        names: items that have a text in every language.
        backend: the tokenizer's backend, which knows the characters of a token.

    Returns:
        Of each item int64 token ids by language: those that have a letter (pieces of characters
        have), and that the item's texts in other languages do not have.
    """
    used = np.unique(encoded.ids)
    letters = {
        number
        for number, text in zip(used.tolist(), token_texts(backend, used.tolist()), strict=True)
        if piece_bytes(text) is not None or _LETTER.search(text)
    }
    found: dict[str, list[set[int]]] = {name: [set() for _ in encoded.languages] for name in names}
    for row, (name, language) in enumerate(zip(encoded.item_ids, encoded.language, strict=True)):
        if name in found:
            begin = encoded.offsets[row]
            ids = encoded.ids[begin + encoded.start[row] : begin + encoded.stop[row]]
            found[name][language] = letters & set(ids.tolist())
    told = []
    for sets in found.values():
        uses: dict[int, int] = {}
        for one in sets:
            for number in one:
                uses[number] = uses.get(number, 0) + 1
        own = [sorted(number for number in one if uses[number] == 1) for one in sets]
        told.append([np.array(one, np.int64) for one in own])
    return told


def token_scripts(
    backend: tokenizers.Tokenizer, size: int, languages: Sequence[str]
) -> tuple[tuple[str, ...], Int64[np.ndarray, " vocabulary"]]:
    """The script of every token of a vocabulary.

    Args:
        backend: the tokenizer's backend.
        size: of the vocabulary.
        languages: codes; their scripts have a column each.

    Returns:
        Names of the columns, which are scripts and then `REST`, and int64 [vocabulary], the column
        of each token.
    """
    known = sorted({one for code in languages for one in scripts_of(code)})
    columns = (*known, *REST)
    patterns = [regex.compile(rf"\p{{Script={one}}}") for one in known]
    place = np.full(size, columns.index("none"), np.int64)
    number = min(size, backend.get_vocab_size())
    for token, text in enumerate(token_texts(backend, list(range(number)))):
        if piece_bytes(text) is not None:
            place[token] = columns.index("bytes")
        elif letters := "".join(_LETTER.findall(text)):
            inside = [n for n, pattern in enumerate(patterns) if pattern.search(letters)]
            left = letters
            for n in inside:
                left = patterns[n].sub("", left)
            if inside and not left and len(inside) == 1:
                place[token] = inside[0]
            else:
                place[token] = columns.index("mixed" if inside else "other")
    return columns, place


# Letters with a script of their own, and the vowel marks of scripts that have such.
_LETTER = regex.compile(r"(?![\p{Script=Zyyy}\p{Script=Zinh}])[\p{L}\p{M}]")


@lru_cache(maxsize=4096)
def scripts_of(code: str) -> frozenset[str]:
    """The scripts of a language; none of texts whose language is not told."""
    return frozenset() if code == UNTOLD else scripts(code)


def _others(n: int, seed: int) -> np.ndarray:
    """Another item for each of n, each item once, at random."""
    order = np.random.default_rng(seed).permutation(n)
    other = np.empty(n, np.int64)
    other[order] = np.roll(order, 1)
    return other
