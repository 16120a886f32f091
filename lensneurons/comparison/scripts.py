"""Is a language neuron a neuron of the language, or of its script?

The same texts are counted twice, in their own script and romanised (`corpora.romanise`). Let S be
the neurons of language k, found on texts in its own script, and p' the activation probability on
the romanised texts. A neuron has *lost* its language where p' does not exceed tau any more:

    lost(k) = |{j in S: p'[j, k] <= tau}| / |S|

Romanised text is strange to a model, so any neuron may fall silent on it. Beside the share stands
that of random neurons in the same layers that are as active in the language
(`NeuronSet.random_control`), and the difference is what speaks for script detectors. Languages in
Latin letters are not changed by romanising, so nothing of theirs is lost.

Shares vary with the texts: their intervals come from draws of the groups of items, by the spread of
the bootstrap (`lensneurons.uncertainty.drawn`), with S and tau as they are.

>>> control = ln.comparison.script_control(neurons, before, after)         # doctest: +SKIP
>>> control.to_pandas()                                                    # doctest: +SKIP

What this does not show: that a neuron which falls silent detects letters. The model may not
recognise the language in Latin letters, and a neuron of the language is silent then too. Nor do the
other neurons know the meaning; they may know sounds, digits or punctuation. Neurons were chosen for
being above tau on these very texts, so some fall below it on any others: the random ones, which
were not, do so less where they lie farther above.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.belonging import require_own_statistics
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.options import plain_options
from lensneurons.uncertainty.drawn import degrees_of, drawn_error, student
from lensneurons.uncertainty.groups import REMEDY, group_weights, require_level, require_spread
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance, require_same

if TYPE_CHECKING:
    import pandas as pd

ENDS = ("share", "low", "high")


@dataclass(frozen=True, eq=False, repr=False)
class ScriptControl(Value):
    """Neurons that lose their language on romanised texts. Made by `script_control`.

    Attributes:
        languages: codes.
        neurons: int64 [layer, language], neurons of the language.
        lost: int64 [layer, language], those at or below tau on the romanised texts.
        lost_control: float64 [layer, language], mean number lost of the random neurons, of which
            there are as many.
        share: float64 [layer + 1, language, 3], the share lost with its interval, 0 to 1; the last
            row is of all layers together. NaN where there are no neurons.
        beyond: float64 [layer + 1, language, 3], the share less that of the random neurons.
        draws: random sets of each language.
        level: coverage of the intervals.
        provenance: where the counts of the texts in their own script come from.
    """

    FILE_KIND: ClassVar = "script control"
    AXES: ClassVar = {"neurons": ("layer", "language"), "lost": ("layer", "language")}
    COORDINATES: ClassVar = {"language": "languages"}

    languages: tuple[str, ...]
    neurons: Int64[np.ndarray, "layer language"]
    lost: Int64[np.ndarray, "layer language"]
    lost_control: Float64[np.ndarray, "layer language"]
    share: Float64[np.ndarray, "row language ends"]
    beyond: Float64[np.ndarray, "row language ends"]
    draws: int
    level: float
    provenance: Provenance = field(default_factory=Provenance)

    def to_pandas(self) -> pd.DataFrame:
        """One row a language and layer (NA: all): numbers, the share lost, and beyond control."""
        import pandas as pd

        layers = [*range(len(self.neurons)), None]
        rows = [(k, layer) for k in self.languages for layer in layers]
        table = pd.DataFrame(rows, columns=["language", "layer"]).astype({"layer": "Int64"})
        for name in ("neurons", "lost", "lost_control"):
            values = getattr(self, name)
            table[name] = np.vstack([values, values.sum(axis=0)]).T.ravel()
        for name in ("share", "beyond"):
            own = [name, f"{name}_low", f"{name}_high"]
            table[own] = getattr(self, name).transpose(1, 0, 2).reshape(-1, 3)
        return table

    def _brief(self) -> str:
        told = (
            f"{k} {share:.2f} [{low:.2f}, {high:.2f}]"
            for k, (share, low, high) in zip(self.languages, self.share[-1], strict=True)
        )
        return "lost on romanised texts: " + ", ".join(told)

    def _overview(self) -> Overview:
        rows = [
            (
                k,
                int(self.neurons[:, n].sum()),
                int(self.lost[:, n].sum()),
                f"{self.lost_control[:, n].sum():.1f}",
                *(
                    f"{value:.2f} [{low:.2f}, {high:.2f}]"
                    for value, low, high in (self.share[-1, n], self.beyond[-1, n])
                ),
            )
            for n, k in enumerate(self.languages)
        ]
        head = ("language", "neurons", "lost", "lost of random ones", "share lost", "beyond these")
        return Overview("Neurons that lose their language on romanised texts", head, rows)


@plain_options
def script_control(
    neurons: LanguageNeurons,
    native: ActivationStatistics,
    romanised: ActivationStatistics,
    *,
    controls: int = 20,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> ScriptControl:
    """Count the neurons of each language that fall to tau or below on romanised texts.

    Args:
        neurons: identified on `native`; their sets (of their population) are looked at.
        native: counts of the texts in their own script.
        romanised: counts of the same items by the same model, romanised (`corpora.romanise`), in
            the same groups.
        controls: random sets of each language.
        draws: corpora to draw for the intervals.
        level: coverage.
        seed: of random sets and draws.

    Raises:
        ProvenanceError: the counts are of another model or scope, or of the same texts.
        LensNeuronsError: other languages, groups or neurons; fewer than two groups; or a layer with
            too few other neurons for the random sets.
    """
    require_level(level)
    if controls < 1 or draws < 2:
        raise LensNeuronsError(f"controls={controls}, draws={draws}: give 1 and 2 or more")
    require_own_statistics(neurons, native)
    _require_counterpart(native, romanised)
    require_spread(romanised.grouped_tokens, romanised.languages, REMEDY)
    drawn = group_weights(native.n_groups, draws, seed)
    weights = np.stack([np.ones(native.n_groups, np.int64), *drawn])
    shape = (neurons.n_layers, len(neurons.languages))
    own, lost, random = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)
    share, beyond = (np.full((shape[0] + 1, shape[1], 3), np.nan) for _ in range(2))
    for n, language in enumerate(neurons.languages):
        chosen = neurons[language]
        if len(chosen) == 0:
            continue
        others = chosen.random_control(draws=controls, seed=seed)
        gone = _lost(chosen.flat, romanised, n, weights, neurons)  # [draw, layer]
        gone_random = np.mean(
            [_lost(one.flat, romanised, n, weights, neurons) for one in others], axis=0
        )
        own[:, n] = np.bincount(chosen.flat // neurons.d_mlp, minlength=shape[0])
        lost[:, n], random[:, n] = gone[0], gone_random[0]
        for ends, numbers in ((share, gone), (beyond, gone - gone_random)):
            numbers = np.column_stack([numbers, numbers.sum(axis=1)])
            of = np.append(own[:, n], own[:, n].sum())
            there = of > 0
            shares = numbers[:, there] / of[there]
            found = student(
                shares[0],
                drawn_error(shares[1:], native.n_groups),
                degrees_of(native.n_groups),
                level=level,
            )
            least = 0.0 if ends is share else -1.0
            ends[there, n] = np.stack(
                [found.estimate, found.low.clip(least, 1), found.high.clip(least, 1)], axis=-1
            )
    return ScriptControl(
        neurons.languages, own, lost, random, share, beyond, controls, level, native.provenance
    )


def _lost(
    flat: np.ndarray,
    romanised: ActivationStatistics,
    language: int,
    weights: np.ndarray,
    neurons: LanguageNeurons,
) -> Float64[np.ndarray, "draw layer"]:
    """How many of some neurons, layer by layer, are at or below tau in each drawn corpus."""
    layer, neuron = np.divmod(flat, neurons.d_mlp)
    counts = weights @ romanised.grouped_counts[:, layer, neuron, language]
    tokens = weights @ romanised.grouped_tokens[:, language]
    silent = counts / tokens[:, None] <= neurons.tau
    of_layer = np.eye(neurons.n_layers)[layer]
    return silent @ of_layer


def _require_counterpart(native: ActivationStatistics, romanised: ActivationStatistics) -> None:
    """Raise unless two statistics are of one model, over the same items in two ways of writing."""
    require_same(native.provenance, romanised.provenance, ignoring=("corpora",))
    for name in ("languages", "n_groups", "n_layers", "d_mlp"):
        ours, theirs = getattr(native, name), getattr(romanised, name)
        if ours != theirs:
            raise LensNeuronsError(
                f"the counts differ in {name}: {ours} and {theirs}; collect the romanised corpus "
                "with the options of the first"
            )
    if native.provenance.corpora == romanised.provenance.corpora:
        raise LensNeuronsError(
            "both counts are of the same texts: collect(model, romanise(corpus)) gives the second"
        )
