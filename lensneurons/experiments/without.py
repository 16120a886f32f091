"""What a model writes with and without some neurons, side by side.

    whole     the model as it is
    without   the activations of the neurons times `factor` (0 takes them away), or steered
    random    the same for as many random neurons of the same layers, as active as the set

Each writes a greedy continuation of one prompt. Words that differ from what the whole model writes
are marked. Beside each stands the NLL, in nats a token, of one fixed continuation: the one given,
or else what the whole model wrote. Texts of different conditions differ from the first changed word
on, so only the NLL of the same text can be compared.

>>> ln.try_without(model, "小明有3个苹果，他", neurons["zh"])                # doctest: +SKIP
>>> ln.try_without(model, "Tom has", neurons["zh"], factor=[0, 0.5, 2])     # doctest: +SKIP
>>> ln.try_without(                                                       # doctest: +SKIP
...     model, "Tom has", neurons["zh"], toward="zh", statistics=statistics, alpha=[1, 2]
... )

What this does not show: anything about other prompts. It is one text and one random set, with no
interval: an example to look at. `ablation_matrix` and `steering_curve` measure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import regex

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.corpora.items import Item
from lensneurons.errors import LensNeuronsError, choose, shown
from lensneurons.evaluation.generation import Decoding, write_responses
from lensneurons.evaluation.likelihood import nll
from lensneurons.interventions.editing import scale, single_set, steer
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.running import runs_model
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.sets import NeuronSet, OneSet
from lensneurons.options import each_number, plain_options
from lensneurons.tokens.prepared import UNTOLD, model_provenance
from lensneurons.values.base import Table
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

Strengths = float | int | Sequence[float | int]
# A word: what stands between spaces; in scripts without spaces, a character with its signs.
_UNSPACED = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Han}\p{Hiragana}\p{Katakana}"
_WORDS = regex.compile(rf"\s+|(?=[{_UNSPACED}])\X|(?:(?![{_UNSPACED}\s])\X)+")


@dataclass(frozen=True)
class Continuation:
    """What a model wrote under one condition.

    Attributes:
        condition: ``"whole"``, ``"without"`` (the neurons are edited) or ``"random"``.
        strength: factor or alpha of the edit; None for the whole model.
        text: the greedy continuation.
        nll: of the fixed continuation, in nats a token; None where that is empty.
    """

    condition: str
    strength: float | None
    text: str
    nll: float | None


@dataclass(frozen=True, eq=False, repr=False)
class Continuations(Table[Continuation]):
    """Continuations of one prompt, side by side. Made by `try_without`.

    Attributes:
        rows: the whole model, then for each strength the set and its random set.
        prompt: what they continue.
        scored: the continuation that the NLL is of.
        tokens: how many of its tokens count.
        neurons: the set, in words.
        edit: what was done to the neurons, such as ``"scaled"`` or ``"steered toward zh"``.
        match: how the random set is like the set, in words.
        provenance: of the model.
    """

    FILE_KIND = "continuations"

    rows: tuple[Continuation, ...]
    prompt: str
    scored: str
    tokens: int
    neurons: str
    edit: str
    match: str
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def whole(self) -> Continuation:
        """What the model wrote as it is."""
        return self.rows[0]

    def marked(self, row: Continuation) -> tuple[tuple[str, bool], ...]:
        """The text of a row in pieces: the words, and whether the whole model did not write them.

        The joined pieces are the text. Words are matched in order, as by ``diff``.
        """
        ours, whole = _WORDS.findall(row.text), _WORDS.findall(self.whole.text)
        kept = np.zeros(len(ours), bool)
        for block in SequenceMatcher(None, whole, ours, autojunk=False).get_matching_blocks():
            kept[block.b : block.b + block.size] = True
        pieces: list[tuple[str, bool]] = []
        for word, same in zip(ours, kept.tolist(), strict=True):
            if pieces and pieces[-1][1] == (not same):
                pieces[-1] = (pieces[-1][0] + word, not same)
            else:
                pieces.append((word, not same))
        return tuple(pieces)

    def to_pandas(self) -> pd.DataFrame:
        """One row a condition: condition, strength, text, nll (nats a token), added, changed.

        ``added`` is the NLL less that of the whole model, ``changed`` the share of words that the
        whole model did not write.
        """
        import pandas as pd

        return pd.DataFrame({
            "condition": [row.condition for row in self],
            "strength": [row.strength for row in self],
            "text": [row.text for row in self],
            "nll": [row.nll for row in self],
            "added": [self._added(row) for row in self],
            "changed": [self._changed(row) for row in self],
        })  # fmt: skip

    def _added(self, row: Continuation) -> float | None:
        return None if row.nll is None or self.whole.nll is None else row.nll - self.whole.nll

    def _changed(self, row: Continuation) -> float:
        """Share of the words of a row that are not those of the whole model."""
        sizes = [
            (sum(not word.isspace() for word in _WORDS.findall(piece)), new)
            for piece, new in self.marked(row)
        ]
        every = sum(size for size, _ in sizes)
        return sum(size for size, new in sizes if new) / every if every else 0.0

    def _brief(self) -> str:
        told = [f"{shown(self.prompt, 30)}: {self.neurons}, {self.edit}"]
        for row in self.rows[1:]:
            added = self._added(row)
            cost = "" if added is None else f", NLL {added:+.3f}"
            told.append(
                f"{row.condition} {row.strength:g}: {self._changed(row):.0%} of words{cost}"
            )
        return "; ".join(told)

    def _repr_html_(self) -> str:
        heads = ("strength", "whole model", self.neurons, f"random neurons, {self.match}")
        head = "".join(f"<th style='text-align:left'>{_safe(one)}</th>" for one in heads)
        lines = []
        for number, (own, random) in enumerate(zip(self.rows[1::2], self.rows[2::2], strict=True)):
            whole = self._cell(self.whole) if number == 0 else "<td></td>"
            cells = whole + self._cell(own) + self._cell(random)
            lines.append(f"<tr><td>{own.strength:g}</td>{cells}</tr>")
        told = f"{self.prompt} … ({self.edit}; marked: words that the whole model does not write)"
        return (
            "<div style='overflow-x:auto;max-width:100%'><table>"
            f"<caption style='text-align:left'>{_isolated(told)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
            f"<p>NLL, nats a token, of {_isolated(shown(self.scored, 80))} ({self.tokens} tokens); "
            "in brackets: less that of the whole model. One prompt and one random set: an example, "
            "no measurement.</p></div>"
        )

    def _cell(self, row: Continuation) -> str:
        text = "".join(
            f"<mark>{_safe(piece)}</mark>" if new else _safe(piece)
            for piece, new in self.marked(row)
        )
        told = ""
        if row.nll is not None:
            added = None if row is self.whole else self._added(row)
            less = "" if added is None else f" ({added:+.3f})"
            told = f"<br><small>NLL {row.nll:.3f}{less}</small>"
        style = "text-align:left;vertical-align:top;white-space:pre-wrap;max-width:24em"
        return f"<td style='{style}'><bdi>{text or '(nothing)'}</bdi>{told}</td>"


def _safe(text: str) -> str:
    """Text as HTML: escaped, and lone surrogates, control and format characters made visible."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return escape(regex.sub(r"[\p{Cc}\p{Bidi_Control}--\n\t]", _code, whole, flags=regex.V1))


def _code(found: Any) -> str:
    return f"\\u{ord(found[0]):04x}"


def _isolated(text: str) -> str:
    return f"<bdi>{_safe(text)}</bdi>"


@plain_options
@runs_model
def try_without(
    model: Any,
    prompt: str,
    neurons: OneSet,
    *,
    factor: Strengths = 0.0,
    toward: str | None = None,
    alpha: Strengths = 1.0,
    statistics: ActivationStatistics | None = None,
    continuation: str | None = None,
    max_new_tokens: int = 40,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Continuations:
    """Let a model go on from a prompt whole, without some neurons, and without random ones.

    Args:
        model: a TransformerLens model; it stays as it is, and hooks that are on it act.
        prompt: what to go on from.
        neurons: a set (``neurons["zh"]``, say), or one or several names.
        factor: what activations are multiplied by: 0 takes them away, 2 doubles them; or several.
        toward: a language to steer toward instead, which needs `statistics`.
        alpha: strength of the steering, in means of that language; or several.
        statistics: mean activations for the steering; and random sets match the mean of its
            probabilities where the set knows none of its own.
        continuation: the text whose NLL is measured; None takes what the whole model writes.
        max_new_tokens: most tokens of a continuation.
        seed: of the random set.
        tokenizer: encodes the prompt; by default the model's own, as it was saved.

    Returns:
        The texts side by side, with the NLL of one continuation under each condition.

    Raises:
        LensNeuronsError: no prompt, no neurons, neurons or statistics of another model, strengths
            that are none, or options that do not go together.
        ModelError: not a TransformerLens model, or its tokenizer cannot be read.
    """
    site = neuron_site(model)
    own = single_set(neurons, site)
    if not isinstance(prompt, str) or not prompt.strip():
        raise LensNeuronsError(f"prompt={shown(prompt)}: give a text to go on from")
    if not len(own):
        raise LensNeuronsError(
            f"{own.label} is empty: there is nothing to go without; identify(score='lape') or a "
            "greater top_rate gives a language more neurons"
        )
    if continuation is not None and not str(continuation).strip():
        raise LensNeuronsError("continuation is empty: give a text, or leave it out")
    if statistics is not None and (statistics.n_layers, statistics.d_mlp) != (
        site.n_layers,
        site.d_mlp,
    ):
        raise LensNeuronsError(
            f"statistics of {statistics.n_layers} layers x {statistics.d_mlp} are not of this "
            f"model of {site.n_layers} x {site.d_mlp}"
        )
    name, strengths = ("factor", each_number("factor", factor))
    if toward is not None:
        if statistics is None:
            raise LensNeuronsError(f"toward={toward!r} needs statistics=, what collect() gives")
        if strengths != (0.0,):
            raise LensNeuronsError("factor= scales and toward= steers: give one of them")
        choose(toward, statistics.languages, "toward")
        name, strengths = ("alpha", each_number("alpha", alpha))
    elif each_number("alpha", alpha) != (1.0,):
        raise LensNeuronsError("alpha= needs toward=, the language to steer toward")
    activity, match = _activity(own, statistics)
    [random] = own.random_control(activity, draws=1, seed=seed)

    def edited(chosen: NeuronSet, strength: float) -> AbstractContextManager[Any]:
        if toward is None or statistics is None:
            return scale(model, chosen, strength)
        return steer(model, chosen, statistics, toward=toward, alpha=strength)

    decoding = Decoding(max_new_tokens)
    rows, scored, tokens = [], continuation, 0
    for condition, strength, block in _conditions(own, random, strengths, edited):
        with block:
            [said] = write_responses(model, [prompt], decoding, tokenizer=tokenizer, progress=False)
            scored = said.text if scored is None else scored
            score, tokens = _nll(model, prompt, scored, tokenizer)
        rows.append(Continuation(condition, strength, said.text, score))
    corpus = _pair(prompt, scored or "")
    encoder = tokenizer or original_tokenizer(model)
    return Continuations(
        rows=tuple(rows),
        prompt=prompt,
        scored=scored or "",
        tokens=tokens,
        neurons=f"{own.label}: {len(own)} neurons",
        edit=f"{'scaled' if toward is None else f'steered toward {toward}'}, by {name}",
        match=match,
        provenance=model_provenance(model, encoder, corpus.fingerprint),
    )


def _activity(own: NeuronSet, statistics: ActivationStatistics | None) -> tuple[np.ndarray, str]:
    """What the random set matches, float64 [layer, neuron], and that in words."""
    if own.activity is not None:
        return own.activity, f"as active where {own.label} is"
    if statistics is not None:
        return statistics.probability.mean(axis=-1), "as active on the mean over the languages"
    return np.zeros((own.n_layers, own.d_mlp)), "of the same layers"


def _conditions(
    own: NeuronSet, random: NeuronSet, strengths: Sequence[float], edited: Any
) -> Iterator[tuple[str, float | None, AbstractContextManager[Any]]]:
    yield "whole", None, nullcontext()
    for strength in strengths:
        yield "without", strength, edited(own, strength)
        yield "random", strength, edited(random, strength)


def _pair(prompt: str, continuation: str) -> ParallelCorpus:
    return ParallelCorpus("continuation", (Item("1", UNTOLD, prompt, continuation),))


def _nll(
    model: Any, prompt: str, continuation: str, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[float | None, int]:
    """NLL of a continuation in nats a token and its tokens; none of an empty one."""
    if not continuation:
        return None, 0
    found = nll(model, _pair(prompt, continuation), tokenizer=tokenizer)
    return float(found.mean[0]), int(found.tokens[0])
