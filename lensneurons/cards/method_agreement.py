"""Which cheap measure of importance ranks neurons as removing them does.

Every neuron of a sample is set to 0 alone, at every token, and the texts are read again:

    effect[j, k]   mean NLL of language k without neuron j, less that with it       nats a token

Against it stands what each measure of `importance` says, from a pass or a few for all neurons:

    spearman   rank correlation of |measure| and |effect| over the neurons: 1 where the measure
               sorts them by how much removing them does, whether good or bad
    signed     the same with signs, of the change that the measure predicts and that which came;
               NaN for measures that predict none
    recall     share of the k neurons with the largest |effect| that are among the k with the
               largest |measure|; k / n by chance
    cost       CPU seconds of the measure over those of one plain pass over the same texts

Intervals are percentiles of a bootstrap over the neurons, all languages of a neuron together.

>>> found = importance_agreement(model, corpus, neurons, number=300)     # doctest: +SKIP
>>> found.to_pandas()                                                    # doctest: +SKIP

Neurons are drawn from every layer and class alike, so that rare classes have enough of them. One
batch holds a text many times, each row without another neuron and one row whole, so that rounding
is the same for both.

What this does not show: how well a measure finds sets. Neurons that do nothing alone may do much
together. The texts are few, so the effects are those on these texts; and the interval is about
other neurons drawn likewise, of which rare classes have more than their share.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np
from jaxtyping import Float64

from lensneurons.cards.agreement import FEWEST
from lensneurons.cards.attribution import SIGNS, Method, importance
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.evaluation.likelihood import fitting, nll, require_predicted, text_scorer
from lensneurons.interventions.editing import Neurons, ablate
from lensneurons.models.running import runs_model
from lensneurons.neurons.language_neurons import CLASSES, LanguageNeurons
from lensneurons.neurons.sets import NeuronSet, chosen_set, neuron_name
from lensneurons.options import plain_options
from lensneurons.shapes import FlatNeurons
from lensneurons.tokens.encoding import Scope
from lensneurons.tokens.prepared import PreparedCorpus, Texts, prepare
from lensneurons.uncertainty.groups import require_level
from lensneurons.values.base import Overview, Value
from lensneurons.values.progress import with_bar
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

NUMBER = 300  # neurons that are drawn
UNKNOWN_CLASS = "unknown"


@dataclass(frozen=True, eq=False, repr=False)
class MethodAgreement(Value):
    """Single neurons removed, and what each measure says of them. Made by `importance_agreement`.

    Attributes:
        languages: codes, in the order of the last axis.
        neurons: names, in the order of the flat index.
        classes: class of each neuron; ``"unknown"`` where no classes were given.
        methods: the measures.
        effect: float64 [neuron, language], change of the mean NLL without the neuron, nats a token.
        value: float64 [method, neuron, language], what each measure says.
        seconds: float64 [method], CPU seconds of each measure (on a GPU they say little).
        plain_seconds: CPU seconds of one plain pass, `nll`, over the same texts.
        effect_seconds: CPU seconds of all removals.
        tokens: ids that ``"direct"`` was about; None for the true next tokens.
        provenance: model and texts.
    """

    FILE_KIND: ClassVar = "agreement of importance methods"
    AXES: ClassVar = {
        "effect": ("neuron", "language"),
        "value": ("method", "neuron", "language"),
        "seconds": ("method",),
    }
    COORDINATES: ClassVar = {"neuron": "neurons", "language": "languages", "method": "methods"}

    languages: tuple[str, ...]
    neurons: tuple[str, ...]
    classes: tuple[str, ...]
    methods: tuple[str, ...]
    effect: Float64[np.ndarray, "neuron language"]
    value: Float64[np.ndarray, "method neuron language"]
    seconds: Float64[np.ndarray, " method"]
    plain_seconds: float
    effect_seconds: float
    tokens: tuple[int, ...] | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def of_class(self, name: str) -> MethodAgreement:
        """The same for the neurons of one class.

        Raises:
            LensNeuronsError: no neuron of that class was drawn.
        """
        choose(name, tuple(dict.fromkeys(self.classes)), "class")
        kept = np.array([one == name for one in self.classes])
        return replace(
            self,
            neurons=tuple(np.array(self.neurons, dtype=object)[kept]),
            classes=(name,) * int(kept.sum()),
            effect=self.effect[kept],
            value=self.value[:, kept],
        )

    def without_times(self) -> MethodAgreement:
        """The same without measured times (NaN), so that equal calls give equal files."""
        unknown = np.full(len(self.methods), np.nan)
        return replace(self, seconds=unknown, plain_seconds=np.nan, effect_seconds=np.nan)

    @plain_options
    def to_pandas(
        self, *, top: int | None = None, level: float = 0.95, draws: int = 1000, seed: int = 0
    ) -> pd.DataFrame:
        """One row a measure and language, and one a measure for ``"all"``, their mean.

        Columns: method, language, neurons, spearman, signed and recall, each with its ends
        (``spearman_low``, ``spearman_high``), chance (the recall that it gives), cost.

        Args:
            top: k of the recall; None for a tenth of the neurons. Equal values go by index.
            level: coverage of the intervals.
            draws: of the bootstrap over neurons.
            seed: the same seed gives the same intervals.

        Raises:
            LensNeuronsError: `top` outside 1 to the number of neurons less one, no draw, a level
                outside (0, 1), or fewer than ten neurons.
        """
        import pandas as pd

        n = len(self.neurons)
        top = max(1, round(n / 10)) if top is None else top
        require_level(level)
        if n < FEWEST or not 1 <= top < n or draws < 1:
            raise LensNeuronsError(
                f"top={top}, draws={draws} of {n} neurons: an agreement takes {FEWEST} neurons or"
                f" more, a top of 1 to {n - 1}, and 1 draw or more"
            )
        random = np.random.default_rng(seed)
        drawn = np.vstack([np.arange(n), random.integers(0, n, (draws, n))])
        effect, rows = self.effect[drawn], []
        size = _ranks(np.abs(effect))
        largest, signed_ranks = _largest(np.abs(effect), top), _ranks(effect)
        for place, method in enumerate(self.methods):
            value = self.value[place][drawn]
            sign = None if method == "direct" and self.tokens is not None else SIGNS.get(method)
            found = {
                "spearman": _correlation(_ranks(np.abs(value)), size),
                "signed": _correlation(_ranks(value * (sign or np.nan)), signed_ranks),
                "recall": (_largest(np.abs(value), top) & largest).sum(axis=1) / top,
            }
            by_language = {
                name: np.column_stack([one, one.mean(axis=1)]) for name, one in found.items()
            }
            for k, language in enumerate((*self.languages, "all")):
                row: dict[str, Any] = {"method": method, "language": language, "neurons": n}
                for name, one in by_language.items():
                    row |= _with_ends(name, one[:, k], level)
                cost = self.seconds[place] / self.plain_seconds
                rows.append(row | {"chance": top / n, "cost": float(cost)})
        return pd.DataFrame(rows)

    def _brief(self) -> str:
        return (
            f"{len(self.neurons)} neurons in {' '.join(self.languages)}: {', '.join(self.methods)}"
        )

    def _overview(self) -> Overview:
        if len(self.neurons) < FEWEST:
            return Overview(f"{self!r}; an agreement takes {FEWEST} neurons or more", (), ())
        table = self.to_pandas()
        rows = [
            (
                row["method"],
                *(_told(row, name) for name in ("spearman", "signed", "recall")),
                "–" if np.isnan(row["cost"]) else f"{row['cost']:.3g}",
            )
            for _, row in table[table["language"] == "all"].iterrows()
        ]
        chance = table["chance"].iloc[0]
        title = f"{self!r}. Against single removals, mean over the languages [95 %]"
        recall = f"recall of the largest {chance:.0%} (by chance {chance:.2f})"
        return Overview(title, ("measure", "spearman", "signed", recall, "plain passes"), rows)


def _told(row: Any, name: str) -> str:
    if np.isnan(row[name]):
        return "–"
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks along axis 1, the mean rank for equal values; NaN where a row holds any."""
    from scipy.stats import rankdata

    return rankdata(values, axis=1)


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's correlation along axis 1; NaN where one of the two is constant."""
    one, other = (x - x.mean(axis=1, keepdims=True) for x in (one, other))
    product = (one * other).sum(axis=1)
    size = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.divide(product, size, out=np.full(product.shape, np.nan), where=size > 0)


def _largest(values: np.ndarray, top: int) -> np.ndarray:
    """Bool, where the `top` largest values along axis 1 are; equal ones by index."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :top]
    found = np.zeros(values.shape, bool)
    np.put_along_axis(found, order, True, axis=1)
    return found


def _with_ends(name: str, values: np.ndarray, level: float) -> dict[str, float]:
    """The first of some values with percentiles of the others, by column name."""
    drawn = values[1:][~np.isnan(values[1:])]
    outside = (1 - level) / 2
    ends = [np.nan, np.nan]
    if not np.isnan(values[0]) and len(drawn):
        ends = np.quantile(drawn, (outside, 1 - outside)).tolist()
    return {name: float(values[0]), f"{name}_low": ends[0], f"{name}_high": ends[1]}


@plain_options
@runs_model
def importance_agreement(
    model: Any,
    corpus: Texts,
    neurons: LanguageNeurons | Neurons,
    *,
    number: int | None = None,
    methods: Sequence[str] | None = None,
    steps: int | None = None,
    tokens: Sequence[int] | None = None,
    scope: Scope | None = None,
    batch_tokens: int = 1024,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> MethodAgreement:
    """Remove neurons one by one, and rank the cheap measures of importance by what comes.

    Costs a pass over the corpus for every neuron: take few, short texts.

    Args:
        model: a TransformerLens model; it stays as it is.
        corpus: the texts that both the measures and the effects are about.
        neurons: what to draw from: the result of `identify` (its classes of all neurons, and the
            layers, are drawn alike), or a set or names (the layers are drawn alike).
        number: neurons to draw; None for 300 of what `identify` gave, and for all of a set.
        methods: measures, as for `importance`; None for all of them.
        steps: of integrated gradients, as for `importance`.
        tokens: what ``"direct"`` is about, as for `importance`.
        scope: whose tokens count; None for the response. Neurons are removed at every token.
        batch_tokens: most tokens in a batch; fewer where the vocabulary is large.
        seed: of the draw.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.
        progress: show progress bars.

    Raises:
        LensNeuronsError: neurons of another model, more than there are or fewer than ten, an
            unknown measure, or none.
        CorpusError: as for `nll`.
        ModelError: as for `importance`.
    """
    wanted = tuple(get_args(Method) if methods is None else methods)
    for one in wanted:
        choose(one, get_args(Method), "methods")
    if not wanted or len(set(wanted)) < len(wanted):
        raise LensNeuronsError(f"methods={list(wanted)} is empty or names one twice")
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    require_predicted(prepared.encoded)
    site = prepared.site
    flat, classes = _draw(neurons, number, site.n_layers, site.d_mlp, seed)
    options: dict[str, dict[str, Any]] = {
        "integrated_gradients": {"steps": steps},
        "direct": {"tokens": tokens},
    }
    running = {"batch_tokens": batch_tokens, "progress": False}
    nll(model, prepared, **running)  # the first pass also makes tables
    begun = time.process_time()
    nll(model, prepared, **running)
    plain = time.process_time() - begun
    values, seconds = [], []
    for one in with_bar(wanted, "measure", "measure", shown=progress, total=len(wanted)):
        begun = time.process_time()
        found = importance(model, prepared, method=one, **options.get(one, {}), **running)  # pyright: ignore[reportArgumentType]
        seconds.append(time.process_time() - begun)
        values.append(found.value.reshape(-1, len(found.languages))[flat])
    begun = time.process_time()
    effect = _effects(prepared, flat, fitting(model, batch_tokens), progress)
    return MethodAgreement(
        languages=prepared.encoded.languages,
        neurons=tuple(neuron_name(int(one), site.d_mlp) for one in flat),
        classes=classes,
        methods=wanted,
        effect=effect,
        value=np.stack(values),
        seconds=np.array(seconds),
        plain_seconds=plain,
        effect_seconds=time.process_time() - begun,
        tokens=None if tokens is None else tuple(int(one) for one in tokens),
        provenance=replace(prepared.provenance(), hook="hook_post", attention="eager"),
    )


def _draw(
    neurons: LanguageNeurons | Neurons, number: int | None, n_layers: int, d_mlp: int, seed: int
) -> tuple[FlatNeurons, tuple[str, ...]]:
    """Neurons of every layer and class alike, in order, and the class of each.

    Each stratum gives one neuron after the other until `number` are drawn; those that have no more
    give none.
    """
    if isinstance(neurons, LanguageNeurons):
        given = neurons.n_layers, neurons.d_mlp
        if given != (n_layers, d_mlp):
            raise LensNeuronsError(
                f"neurons of {given[0]} layers x {given[1]} do not belong to a model of {n_layers}"
                f" x {d_mlp}"
            )
        flat, codes = np.arange(n_layers * d_mlp), neurons.class_codes.ravel()
        names, number = CLASSES, min(NUMBER, len(flat)) if number is None else number
    else:
        flat = chosen_set(neurons, n_layers, d_mlp).flat
        codes, names = np.zeros(n_layers * d_mlp, np.int64), (UNKNOWN_CLASS,)
        number = len(flat) if number is None else number
    if not FEWEST <= number <= len(flat):
        raise LensNeuronsError(
            f"number={number} of {len(flat)} neurons: an agreement takes {FEWEST} or more, and no"
            " more than there are"
        )
    order = np.random.default_rng(seed).permutation(flat)
    strata = (order // d_mlp) * len(CLASSES) + codes[order]
    by_stratum = np.argsort(strata, kind="stable")
    _, first, size = np.unique(strata[by_stratum], return_index=True, return_counts=True)
    turn = np.empty(len(order), np.int64)
    turn[by_stratum] = np.arange(len(order)) - np.repeat(first, size)
    drawn = np.sort(order[np.argsort(turn, kind="stable")[:number]])
    return drawn, tuple(names[code] for code in codes[drawn])


def _effects(
    prepared: PreparedCorpus, flat: FlatNeurons, batch_tokens: int, progress: bool
) -> Float64[np.ndarray, "neuron language"]:
    """Change of the mean NLL of each language without each neuron, in nats a token."""
    encoded, site = prepared.encoded, prepared.site
    score = text_scorer(prepared.model, encoded)
    sizes = site.n_layers, site.d_mlp
    whole = NeuronSet(np.zeros(0, np.int64), *sizes)
    alone = [NeuronSet(flat[place : place + 1], *sizes) for place in range(len(flat))]
    sums, tokens = np.zeros((len(flat), len(encoded.languages))), np.zeros(len(encoded.languages))
    texts = range(len(encoded))
    for text in with_bar(texts, "remove", "text", shown=progress, total=len(encoded)):
        language = encoded.language[text]
        rows = max(1, batch_tokens // int(encoded.lengths[text]) - 1)
        for first in range(0, len(alone), rows):
            part = slice(first, first + rows)
            with ablate(prepared.model, [whole, *alone[part]]):
                found, _ = score([text] * (1 + len(alone[part])))
            sums[part, language] += found[1:] - found[0]
        tokens[language] += encoded.predicted[text]
    return sums / tokens
