"""Whether the values of a report belong together, each checked against the neurons.

    parts, cards, effects, claims,    of these very neurons: another score, tau or corpus is refused
    explorer
    comparison, series                the neurons are those of one of its models, at its bar
    accuracy, steering, carry-over,   may be measured on other weights (the model after training,
    lens, effects, methods, coupling, say), which the report tells; of another architecture: refused

What this does not show: values of an earlier lensneurons, or made by hand, may not say where they
come from. What they do not say is not checked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lensneurons.cards.card import NeuronCard, neuron_facts
from lensneurons.comparison.before_after import Comparison
from lensneurons.comparison.paper_claims import Claims
from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.belonging import require_own_effects
from lensneurons.neurons.belonging import differences, require_own_profile
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.reports.contents import ReportValues
from lensneurons.values.provenance import UNKNOWN, Provenance

_MEASURED = (
    "accuracy",
    "aligned_accuracy",
    "steering",
    "carry_over",
    "lens",
    "coupling",
    "layer_coupling",
    "agreement",
)


def require_together(values: ReportValues) -> None:
    """Raise unless everything on a report belongs to its neurons.

    Raises:
        LensNeuronsError: says which value does not, what differs, and what to do.
    """
    neurons = values.neurons
    if values.parts is not None:
        remedy = "divide_layers(neurons)"
        require_own_profile(values.parts.profile, neurons.layer_profile("all"), remedy=remedy)
    _require_own_cards(neurons, values.cards)
    if values.explorer is not None and not _same_neurons(neurons, values.explorer.neurons):
        raise LensNeuronsError(
            "explorer= shows other neurons than the page: explore(neurons, ...) those that you "
            "give to the page"
        )
    for matrix in values.effects:
        require_own_effects(neurons, matrix)
        _require_same_model(neurons, "effects", matrix.provenance)
    if values.methods is not None:
        _require_same_model(neurons, "methods", values.methods.matrix.provenance)
    for one in values.continuations:
        _require_same_model(neurons, "continuations", one.provenance)
    if values.aligned_accuracy is not None and values.accuracy is None:
        raise LensNeuronsError(
            "aligned_accuracy= has nothing to stand beside: give accuracy=, the answers of the "
            "model before, too"
        )
    for name in _MEASURED:
        if (one := getattr(values, name)) is not None:
            _require_same_model(neurons, name, one.provenance)
    if values.comparison is not None:
        _require_own_comparison(neurons, "comparison", values.comparison)
    if values.series is not None:
        for name, one in zip(values.series.names, values.series.comparisons, strict=True):
            _require_own_comparison(neurons, f"series (checkpoint {name})", one)
    if values.claims is not None:
        _require_own_claims(values, values.claims)


def _same_neurons(ours: LanguageNeurons, theirs: LanguageNeurons) -> bool:
    """Whether both are the same neurons, with the same classes."""
    return ours is theirs or (
        (ours.languages, ours.tau, ours.population)
        == (theirs.languages, theirs.tau, theirs.population)
        and np.array_equal(ours.probability, theirs.probability)
        and np.array_equal(ours.selected, theirs.selected)
    )


def _require_own_cards(neurons: LanguageNeurons, cards: Sequence[NeuronCard]) -> None:
    """Raise unless every card is of one of these neurons, and none is there twice."""
    seen: set[str] = set()
    for card in cards:
        name = card.facts.name
        ours = neuron_facts(neurons, name)
        same = ("probability", "tau", "selected", "score", "languages")
        if different := [k for k in same if getattr(ours, k) != getattr(card.facts, k)]:
            here, there = (getattr(one, different[0]) for one in (ours, card.facts))
            told = "" if different[0] == "probability" else f": {there}, here {here}"
            raise LensNeuronsError(
                f"the card of {name} is of other neurons than the page (another "
                f"{different[0]}{told}): describe it with the neurons that you give to the page"
            )
        if name in seen:
            raise LensNeuronsError(f"two cards are of {name}: give one")
        seen.add(name)


def _require_same_model(neurons: LanguageNeurons, name: str, theirs: Provenance) -> None:
    """Raise if something was measured on a model of another architecture or configuration."""
    ours = neurons.provenance
    known = UNKNOWN not in (ours.config, theirs.config, ours.weights, theirs.weights)
    if known and ours.config != theirs.config and ours.weights != theirs.weights:
        raise LensNeuronsError(
            f"{name}= was measured on {theirs.model}, a model of another configuration than "
            f"{ours.model}, which the neurons are of: measure it on that model, or leave it out"
        )


def _require_own_comparison(neurons: LanguageNeurons, name: str, found: Comparison) -> None:
    """Raise unless the neurons are those of a model of the comparison, at its bar."""
    shape, ours = (found.n_layers, found.d_mlp), (neurons.n_layers, neurons.d_mlp)
    told = ""
    if shape != ours:
        told = f"models of {shape[0]} x {shape[1]} neurons, not {ours[0]} x {ours[1]}"
    elif set(found.languages) != set(neurons.languages):
        told = f"the languages {list(found.languages)}, not {list(neurons.languages)}"
    elif all(different := [differences(neurons.provenance, one) for one in found.provenance]):
        told = f"neither of its models is that of the neurons: {different[0]}"
    elif not different[0] and found.tau != neurons.tau:
        told = f"tau {found.tau:.4f}, not {neurons.tau:.4f}: compare(..., tau={neurons.tau!r})"
    if told:
        raise LensNeuronsError(
            f"{name}= is of other neurons than the page ({told}): compare the runs that the neurons"
            " of the page were identified from"
        )


def _require_own_claims(values: ReportValues, claims: Claims) -> None:
    """Raise unless claims are about these neurons, or about the comparison of the page."""
    neurons, made = values.neurons, claims.made_from
    if not made:  # an earlier lensneurons did not say
        return
    told = ""
    if not claims.about_changes:
        told = differences(neurons.provenance, claims.provenance)
        if not told and made != neurons.description:
            told = f"neurons identified with {made}, not with {neurons.description}"
        remedy = "model_claims(neurons, ...)"
    elif values.comparison is not None:
        ours = values.comparison
        told = differences(ours.provenance[0], claims.provenance)
        if not told and made != ours.description:
            told = f"{made}, not {ours.description}"
        remedy = "claims(comparison)"
    else:
        remedy = "claims(compare(before, after))"
        if f"{neurons.score.size:,} neurons" not in made:
            told = f"{made}, not {neurons.score.size:,} neurons"
    if told:
        raise LensNeuronsError(
            f"claims= were tested on something else than the page shows ({told}): give {remedy}"
        )
