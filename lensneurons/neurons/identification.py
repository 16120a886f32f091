"""Which neurons belong to a language: scores, a bar, and four classes.

    statistics -> score -> the lowest `top_rate` are selected -> tau -> N -> class

``N`` is the number of languages in which a neuron's activation probability exceeds the bar tau:

    N = 0  unclassified      N = 1  language-specific
    1 < N < K  language-related      N = K  language-agnostic ("general" in later versions)

as in arXiv 2505.21505, section 3. Lambda weighs the largest probability in the score and is the
largest value that selects no language-agnostic neuron, found exactly (`lambda_`) and rounded down
at six digits (`lambda_floor`), where float32 code selects none either. LAPE (arXiv 2402.16438) is
the baseline. `lensneurons.neurons.methods` says what the other methods do; they replace the score
alone.

What this does not show: a class is a statement about frequencies over one corpus at one bar. That a
neuron *matters* for a language needs an intervention with matched controls.

>>> import lensneurons as ln
>>> neurons = ln.identify(ln.load_sample("gemma-3-270m").statistics, score="lape")
>>> neurons["de"]
NeuronSet(de: 76 neurons in 18 layers: L0N40, L0N151, L0N199, L0N219, ...)
>>> neurons.class_of("L17N764"), neurons.languages_of("L17N764")
('specific', ('bn',))
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from lensneurons.activations.items import ItemActivations
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import IdentificationError, choose
from lensneurons.neurons.empty_sets import warn_of_few_neurons
from lensneurons.neurons.lambda_search import floor_lambda, largest_lambda
from lensneurons.neurons.language_neurons import LanguageNeurons, Population
from lensneurons.neurons.methods import (
    GIVES,
    READS,
    Method,
    activation_entropy,
    item_score,
    keeps_languages,
    token_difference,
)
from lensneurons.neurons.scores import count_above, percentile_bar, score_terms, select_lowest
from lensneurons.options import plain_options
from lensneurons.shapes import Probabilities
from lensneurons.values.base import read_only

Score = Literal["paper", "lape"]


@plain_options
def identify(
    statistics: ActivationStatistics,
    *,
    method: Method | None = None,
    score: Score | None = None,
    items: ItemActivations | None = None,
    romanised: ActivationStatistics | None = None,
    top_rate: float = 0.01,
    percentile: float = 0.95,
    lambda_: float | Literal["auto"] = "auto",
    tau: float | None = None,
    population: Population = "selected",
) -> LanguageNeurons:
    """Classify every neuron of a model by the languages that it is active in.

    Args:
        statistics: what `collect` or `read_published_counts` gives, for K >= 2 languages.
        method: how neurons are scored: ``"paper"`` (arXiv 2505.21505; None takes it), ``"lape"``
            (arXiv 2402.16438), ``"activation_entropy"``, ``"difference"``,
            ``"average_precision"``, ``"paired_difference"`` or ``"script_lape"``; see
            `lensneurons.neurons.methods`.
        score: another word for `method`, for the first two.
        items: activations of single texts of the same languages (`item_activations`), for
            ``"average_precision"`` and ``"paired_difference"``.
        romanised: what `collect` gives of the same texts romanised (`corpora.romanise`), for
            ``"script_lape"``; languages in Latin letters stand for themselves.
        top_rate: share of all neurons to select, by lowest score.
        percentile: tau is this percentile of all activation probabilities.
        lambda_: weight of the largest probability; ``"auto"`` takes the largest value that selects
            no language-agnostic neuron, found exactly.
        tau: a bar to use instead of the percentile, such as that of a run before alignment: with
            each run's own percentile the share of memberships is the same in every run. Above a
            tau of 0 is a neuron that was active on one token or more; one that never was is above
            no bar. The percentile itself is 0 where most neurons are silent, and means the same.
        population: which neurons the sets of the result hold: the selected ones (for
            interventions), or all neurons classified by N alone (for layer profiles).

    Returns:
        The classes, owners, sets and tables.

    Raises:
        IdentificationError: a method that lacks what it reads, a rate outside (0, 1), a tau outside
            [0, 1), a negative lambda, fewer than two languages, neurons that are all silent or all
            alike, or no lambda without language-agnostic neurons.
        ProvenanceError: `items` or `romanised` are of another model.

    Warns:
        EmptySetWarning: a language has hardly any neurons; says why, and what would give it some.
    """
    chosen = _method(method, score, items=items, romanised=romanised)
    _check(statistics, chosen, top_rate, percentile, lambda_, tau)
    probability = statistics.probability
    _require_difference(probability)
    bar = percentile_bar(probability, percentile) if tau is None else float(tau)
    above = count_above(probability, bar)
    number = max(1, round(above.size * top_rate))
    formats: list[type] = [np.float64]
    if chosen == "paper" and lambda_ == "auto":
        formats.append(np.float32)  # floor_lambda asks what float32 code would select
    terms = score_terms(probability, statistics.languages, *formats)
    (entropy, maximum), floor = terms[0], None
    if chosen != "paper":
        kept, weight, origin, values = above > 0, None, "none", entropy
        if chosen == "activation_entropy":
            values = activation_entropy(statistics)
        elif chosen == "difference":
            values = token_difference(statistics)
        elif romanised is not None:
            kept = kept & keeps_languages(statistics, romanised, bar)
        elif items is not None and chosen != "lape":
            values = item_score(statistics, items, chosen)
        values = np.where(kept, values, np.inf)
        number = min(number, int(np.isfinite(values).sum()))
    else:
        agnostic = above == len(statistics.languages)
        if lambda_ == "auto":
            weight, origin = largest_lambda(entropy, maximum, agnostic, number)
            floor = floor_lambda(weight, terms, agnostic, number)
        else:
            weight, origin = float(lambda_), "given"
        values = entropy - weight * maximum
    found = LanguageNeurons(
        languages=statistics.languages,
        probability=probability,
        score=read_only(values),
        selected=read_only(select_lowest(values, number)),
        tau=bar,
        tau_origin="given" if tau is not None else f"percentile {percentile:g}",
        lambda_=weight,
        lambda_origin=origin,
        score_name=chosen,
        top_rate=top_rate,
        population=population,
        provenance=statistics.provenance,
        lambda_floor=floor,
        n_experts=statistics.n_experts,
        n_heads=statistics.n_heads,
    )
    warn_of_few_neurons(found)
    return found


def _method(method: str | None, score: str | None, **given: object) -> Any:
    """The method by either of its names, once it has what it reads and nothing else.

    Raises:
        LensNeuronsError: an unknown method.
        IdentificationError: two that differ, or a method that lacks what it reads.
    """
    if score is not None:
        choose(score, get_args(Score), "score")
    if method is not None and score not in (None, method):
        raise IdentificationError(f"method={method!r} and score={score!r}: give one of the two")
    chosen = choose(method or score or "paper", get_args(Method), "method")
    for name, value in given.items():
        readers = [one for one, reads in READS.items() if reads == name]
        if value is None and chosen in readers:
            raise IdentificationError(f"method={chosen!r} needs {name}=: {GIVES[name]}")
        if value is not None and chosen not in readers:
            raise IdentificationError(f"{name}= needs method={readers[0]!r}, not {chosen!r}")
    return chosen


def _require_difference(probability: Probabilities) -> None:
    """Raise where no neuron differs from another, so that any selection would be arbitrary."""
    least, most = float(probability.min()), float(probability.max())
    if least < most:
        return
    what = "no neuron was ever active" if most == 0 else f"every probability is {most:g}"
    raise IdentificationError(
        f"{what}, in any of the {probability.shape[-1]} languages: there is nothing to identify;"
        " check the model, and count more texts"
    )


def _check(
    statistics: ActivationStatistics,
    method: str,
    top_rate: float,
    percentile: float,
    lambda_: float | str,
    tau: float | None,
) -> None:
    """Raise unless the options of `identify` make sense together."""
    if len(statistics.languages) < 2:
        raise IdentificationError(
            f"only {list(statistics.languages)} was counted: a language neuron needs at least two "
            "languages to be told apart"
        )
    for name, rate in (("top_rate", top_rate), ("percentile", percentile)):
        if not 0 < rate < 1:
            raise IdentificationError(f"{name}={rate} is not a share between 0 and 1")
    if tau is not None and not 0 <= tau < 1:
        raise IdentificationError(f"tau={tau} is not an activation probability in [0, 1)")
    if isinstance(lambda_, str) and lambda_ != "auto":
        raise IdentificationError(f"lambda_={lambda_!r}: give a number or 'auto'")
    if not isinstance(lambda_, str) and not 0 <= lambda_ < np.inf:
        raise IdentificationError(f"lambda_={lambda_} must be zero or a positive number")
    if method != "paper" and lambda_ != "auto":
        name = "LAPE" if method == "lape" else f"method={method!r}"
        raise IdentificationError(
            f"{name} has no lambda: leave lambda_ away, or take score='paper'"
        )
