"""What changed between two models that read the same texts: before and after alignment.

    compare(before, after): class of every neuron at ONE bar -> changes, each with interval and p

The classes are those of arXiv 2505.21505, section 3, over *all* neurons. With each run's own
percentile, exactly 5 % of all memberships would pass in every run, and "more neurons are shared
after alignment" could not be seen; so both runs are classified at one shared tau, by default that
of the run before. Intervals (jackknife over groups of items, the same group left out of both runs)
and p-values (before and after swapped within groups) need ``collect(..., groups=10)``; see
`lensneurons.comparison.group_tests` for what exactly is permuted. The bar stays fixed in all draws:
it is part of the definition.

What this does not show: that alignment caused a change (compare a control run trained on something
else), or that a neuron whose class changed matters (ablate it). Tables hold many p-values; they are
not corrected for their number.

>>> change = ln.compare(before, after, trained=("zh", "de"))       # doctest: +SKIP
>>> change.to_pandas("layers"), ln.claims(change)                  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics, require_comparable
from lensneurons.comparison.class_changes import Comparison
from lensneurons.comparison.class_tables import stack_tables
from lensneurons.comparison.paired_counts import PairedCounts, pair_counts
from lensneurons.comparison.sharing import Sharing, measure_sharing
from lensneurons.errors import IdentificationError, LensNeuronsError, ProvenanceError, choose
from lensneurons.identification.classification import identify
from lensneurons.identification.neurons import LanguageNeurons
from lensneurons.identification.scores import percentile_bar
from lensneurons.provenance import require_same
from lensneurons.shapes import FlatNeurons, NeuronMask, PairedRates

Run = ActivationStatistics | LanguageNeurons
MAY_CHANGE = ("model", "revision", "weights", "config", "interventions")


def compare(
    before: Run,
    after: Run,
    *,
    tau: float | Literal["before"] = "before",
    percentile: float = 0.95,
    trained: Sequence[str] = (),
    pivot: str | None = "en",
    flips: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare the language neurons of two models that read the same texts.

    Args:
        before: statistics of the first model (with groups: intervals and p-values), or its
            identified neurons (without).
        after: the same of the second model; languages are matched by name.
        tau: one bar for both, or ``"before"``: the percentile of the first run, or the bar that its
            neurons were identified with.
        percentile: of all activation probabilities of `before`; only for statistics.
        trained: languages that the second model was trained on; for the comparison with untouched
            ones.
        pivot: the language that others were aligned to, neither trained nor untouched; without
            effect where it was not counted.
        flips: draws of the null of the sharing hypothesis.
        seed: the same seed gives the same result.

    Returns:
        The changes, as tables.

    Raises:
        ProvenanceError: the two differ in corpus, scope, hook, tokenizer, languages or shape; each
            difference is named.
        LensNeuronsError: a tau or percentile that makes no sense, a trained language that was not
            counted or is the pivot, fewer than two languages, or one whose items all fell into one
            group.
    """
    after = _matched(before, after)
    if len(before.languages) < 2:
        raise LensNeuronsError(f"only {list(before.languages)} was counted: classes need two")
    bar, origin = _bar(before, tau, percentile)
    touched = _trained(before.languages, trained, pivot)
    rates, flat, pair = _rates(before, after, bar)
    found = Comparison(
        languages=before.languages,
        n_layers=before.n_layers,
        d_mlp=before.d_mlp,
        tau=bar,
        tau_origin=origin,
        flat=flat,
        above=rates > bar,
        selected=_selected(before, bar).ravel()[flat],
        trained=touched,
        pivot=pivot if pivot in before.languages else None,
        provenance=(before.provenance, after.provenance),
    )
    found = _with_groups(found, pair)
    return (
        found
        if not found.trained or not found.untouched
        else replace(found, sharing=_sharing(found, rates, pair, flips, seed))
    )


def _with_groups(found: Comparison, pair: PairedCounts | None) -> Comparison:
    """The comparison with what the groups of items tell."""
    if pair is None or pair.n_groups < 2:
        return found
    pair.require_spread(found.languages)
    groups = range(pair.n_groups)
    return replace(
        found,
        left_out=stack_tables([found.count(pair.left_out(g) > found.tau) for g in groups]),
        alone=stack_tables([found.count(pair.alone(g) > found.tau) for g in groups]),
    )


def _sharing(
    found: Comparison, rates: PairedRates, pair: PairedCounts | None, flips: int, seed: int
) -> Sharing:
    places = {language: i for i, language in enumerate(found.languages)}
    groups = range(pair.n_groups if pair is not None and pair.n_groups > 1 else 0)
    return measure_sharing(
        rates,
        found.flat // found.d_mlp,
        (pair.left_out(group) for group in groups if pair is not None),
        tau=found.tau,
        candidates=[places[k] for k in found.languages if k != found.pivot],
        trained=[places[k] for k in found.trained],
        flips=flips,
        seed=seed,
    )


def _selected(before: Run, tau: float) -> NeuronMask:
    """The selected neurons of the run before; none where no lambda selects any."""
    if isinstance(before, LanguageNeurons):
        return before.selected
    try:
        return identify(before, tau=tau).selected
    except IdentificationError:
        return np.zeros((before.n_layers, before.d_mlp), bool)


def _matched(before: Run, after: Run) -> Run:
    """`after` with its languages in the order of `before`, once the two may be compared."""
    if isinstance(after, ActivationStatistics) and set(after.languages) == set(before.languages):
        after = after if after.languages == before.languages else after.select(before.languages)
    if isinstance(before, ActivationStatistics) and isinstance(after, ActivationStatistics):
        require_comparable(before, after)
        return after
    require_same(before.provenance, after.provenance, ignoring=MAY_CHANGE)
    for name in ("languages", "n_layers", "d_mlp"):
        ours, theirs = getattr(before, name), getattr(after, name)
        if ours != theirs and not (name == "languages" and set(ours) == set(theirs)):
            raise ProvenanceError(f"the two differ in {name}: {ours} and {theirs}")
    return after


def _bar(before: Run, tau: float | str, percentile: float) -> tuple[float, str]:
    """The shared bar, and where it comes from."""
    if isinstance(tau, str):
        choose(tau, ("before",), "tau")
        if isinstance(before, LanguageNeurons):
            return before.tau, "of the run before"
        if not 0 < percentile < 1:
            raise LensNeuronsError(f"percentile={percentile} is not a share between 0 and 1")
        bar = percentile_bar(before.probability, percentile)
        return bar, f"percentile {percentile:g} of the run before"
    if not 0 <= tau < 1:
        raise LensNeuronsError(f"tau={tau} is not an activation probability in [0, 1)")
    return float(tau), "given"


def _trained(
    languages: tuple[str, ...], trained: Sequence[str], pivot: str | None
) -> tuple[str, ...]:
    """The trained languages in the order of the corpus."""
    if isinstance(trained, str):
        raise LensNeuronsError(f"trained={trained!r} is one text: write ({trained!r},)")
    for language in trained:
        choose(language, languages, "trained language")
    if pivot in trained:
        raise LensNeuronsError(
            f"{pivot!r} is both trained and pivot: pass pivot=None, or leave it out of trained"
        )
    return tuple(language for language in languages if language in trained)


def _rates(
    before: Run, after: Run, tau: float
) -> tuple[PairedRates, FlatNeurons, PairedCounts | None]:
    """Probabilities [run, language, neuron] of the neurons that can exceed the bar, and which."""
    if isinstance(before, ActivationStatistics) and isinstance(after, ActivationStatistics):
        pair = pair_counts(before, after, tau)
        return pair.whole(), pair.flat, pair
    order = [after.languages.index(language) for language in before.languages]
    ours = before.probability.reshape(-1, len(order))
    theirs = after.probability.reshape(-1, len(order))[:, order]
    flat = np.flatnonzero((ours > tau).any(axis=1) | (theirs > tau).any(axis=1))
    return np.stack([ours[flat].T, theirs[flat].T]), flat, None
