"""How much of a text in one language is carried into a text in another, layer by layer.

The residual stream after layer l at the last position of a source text is put into the last
position of a target text (`lensneurons.interventions.patching`), and the model is asked how
probable each of up to four continuations is (`lensneurons.experiments.patch_pairs`). With p_o for
the probability of outcome o,

    share(o)          p_o / (sum of p over the outcomes)                  of each layer and pair
    answer carried    share(both) + share(concept)       the source's answer, in either language
    language carried  share(both) + share(language)      the source's language, either answer
    covered           sum of p over the outcomes: where it is small, the shares are about little

After the last layer both are what the source itself would say, by construction; in the first layers
they are what the target says. What can be read is where each of them turns. An answer that is
carried in layers where the language is not yet is written in the stream in a form that serves both
languages (Dumas et al. 2024, "Separating Tongue from Thought", arXiv 2411.08745).

>>> pairs = ln.answer_pairs(corpus, languages=["en", "de", "sw"])        # doctest: +SKIP
>>> result = ln.carry_over(model, pairs)                                 # doctest: +SKIP
>>> result.share("both", "concept")                                      # doctest: +SKIP
>>> result.interval("both", "concept", pooled=True)                      # doctest: +SKIP

Its control is the same within one language: name the source's language among the targets, and what
is not carried there either is not for want of a shared form.

Only the next token is asked about by default: later tokens of an answer are predicted at positions
of the target that nothing was put into, so they follow the target (``tokens="all"`` shows it).

What this does not show: that the model itself carries an answer this way. Later layers also read
the target at all other positions, and what they read there can outvote what was put in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from lensneurons.display import html_table
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.evaluation.item_intervals import item_bootstrap
from lensneurons.experiments.patch_pairs import OUTCOMES
from lensneurons.intervals import Interval
from lensneurons.provenance import Provenance
from lensneurons.shapes import LayerLanguages, PatchedValues, TextNumbers, UnpatchedValues
from lensneurons.storage import load_arrays, save_arrays

if TYPE_CHECKING:
    import pandas as pd

Asked = Literal["first", "all"]
KIND = "carry-over"


@dataclass(frozen=True, eq=False, repr=False)
class CarryOver:
    """How probable each outcome is after patching each layer, pair by pair; immutable.

    Attributes:
        log_probability: float64 [layer, pair, outcome], in nats, summed over the tokens asked
            about; NaN where a pair has no such outcome.
        unpatched: float64 [pair, outcome], the same without any patch.
        outcomes: names of the outcomes.
        languages: languages of the targets; the order of every result by language.
        language: int [pair], number of each pair's language.
        items: what is drawn again, for each pair.
        tokens: ``"first"`` token of each continuation, or ``"all"``.
        dropped: language to pairs left out because their outcomes begin with the same token.
        provenance: model and texts.
    """

    log_probability: PatchedValues
    unpatched: UnpatchedValues
    outcomes: tuple[str, ...]
    languages: tuple[str, ...]
    language: TextNumbers
    items: tuple[str, ...]
    tokens: Asked = "first"
    dropped: Mapping[str, int] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)

    @cached_property
    def shares(self) -> PatchedValues:
        """float64 [layer, pair, outcome]: probability among the outcomes; NaN where none is."""
        return _shares(self.log_probability)

    @cached_property
    def covered(self) -> LayerLanguages:
        """float64 [layer, language]: mean probability of all outcomes together, 0 to 1."""
        total = np.nansum(np.exp(self.log_probability), axis=-1)
        return _means(total, np.ones(len(self.items)), self.language, len(self.languages))

    def share(self, *outcomes: str) -> LayerLanguages:
        """Mean share of some outcomes together, float64 [layer, language], 0 to 1.

        ``share("both", "concept")`` is how much of the answer is carried, ``share("both",
        "language")`` how much of the language. Pairs that have none of the outcomes do not count;
        NaN where a language has no pair left.

        Raises:
            LensNeuronsError: an outcome is not known.
        """
        values, weights = self._chosen(self.shares, outcomes)
        return _means(values, weights, self.language, len(self.languages))

    def unpatched_share(self, *outcomes: str) -> LayerLanguages:
        """What `share` is without a patch, float64 [1, language].

        Raises:
            LensNeuronsError: an outcome is not known.
        """
        values, weights = self._chosen(_shares(self.unpatched[None]), outcomes)
        return _means(values, weights, self.language, len(self.languages))

    def interval(
        self,
        *outcomes: str,
        pooled: bool = False,
        draws: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> Interval:
        """`share` with its bootstrap interval over pairs of items.

        Args:
            outcomes: whose shares are added.
            pooled: whether all languages are taken together.
            draws: how many sets of pairs to draw; a pair is drawn with all its languages.
            level: coverage.
            seed: the same seed gives the same interval.

        Returns:
            [layer, language], or [layer, 1] where pooled.

        Raises:
            LensNeuronsError: an outcome is not known, fewer than two pairs of items, or a language
                without any pair that has them.
        """
        values, weights = self._chosen(self.shares, outcomes)
        language = np.zeros_like(self.language) if pooled else self.language
        counts = np.bincount(language, weights, minlength=1 if pooled else len(self.languages))
        if not counts.all():
            lacking = [k for k, n in zip(self.languages, counts, strict=False) if not n]
            raise LensNeuronsError(f"no pair of {lacking} has an outcome of {list(outcomes)}")
        return item_bootstrap(
            self.items, language, values, weights, draws=draws, level=level, seed=seed
        )

    def _chosen(
        self, shares: PatchedValues, outcomes: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Shares of outcomes added up [layer, pair], and which pairs have any of them [pair]."""
        if not outcomes:
            raise LensNeuronsError(f"name at least one outcome of {list(self.outcomes)}")
        known = dict.fromkeys((*OUTCOMES, *self.outcomes))
        wanted = [choose(outcome, known, "outcome") for outcome in outcomes]
        places = [place for place, name in enumerate(self.outcomes) if name in wanted]
        present = ~np.isnan(self.unpatched[:, places]).all(axis=-1)
        return np.nansum(shares[..., places], axis=-1), present.astype(float)

    def to_patching_result(self) -> Any:
        """The log-probabilities as TransformerLens's ``PatchingResult``: its statistics and plots.

        A metric for each outcome that every pair has, the axis ``layer``, and the pairs as batch.
        """
        import pandas as pd
        from transformer_lens.patching import PatchingResult

        whole = np.atleast_1d(~np.isnan(self.unpatched).any(axis=0))
        values = torch.from_numpy(self.log_probability[..., whole]).permute(2, 0, 1)
        return PatchingResult(
            values=values,
            axis_names=["layer"],
            index_df=pd.DataFrame({"layer": range(len(self.log_probability))}),
            metric_names=[o for o, full in zip(self.outcomes, whole, strict=True) if full],
            reduced=False,
            baseline=torch.from_numpy(self.unpatched[:, whole].T.copy()),
            has_metric_axis=True,
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row a layer, pair and outcome: log_probability (nats) and share; layer -1 is the
        target without a patch.
        """
        import pandas as pd

        values = np.concatenate([self.unpatched[None], self.log_probability])
        layer, pair, outcome = (axis.ravel() for axis in np.indices(values.shape))
        table = pd.DataFrame(
            {
                "layer": layer - 1,
                "language": np.array(self.languages)[self.language[pair]],
                "items": np.array(self.items)[pair],
                "pair": pair,
                "outcome": np.array(self.outcomes)[outcome],
                "log_probability": values.ravel(),
                "share": _shares(values).ravel(),
            }
        )
        return table.dropna(subset="log_probability", ignore_index=True)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        arrays = {name: getattr(self, name) for name in ("log_probability", "unpatched")}
        names = ("outcomes", "languages", "items", "tokens", "dropped")
        details = {name: getattr(self, name) for name in names}
        details["provenance"] = self.provenance.to_dict()
        return save_arrays(path, KIND, {**arrays, "language": self.language}, details)

    @classmethod
    def load(cls, path: str | Path) -> CarryOver:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        arrays, details = load_arrays(path, KIND)
        for name in ("outcomes", "languages", "items"):
            details[name] = tuple(details[name])
        details["provenance"] = Provenance.from_dict(details["provenance"])
        return cls(**arrays, **details)

    def __repr__(self) -> str:
        n, layers = len(self.items), len(self.log_probability)
        return f"CarryOver({n} pairs into {' '.join(self.languages)}, {layers} layers)"

    def _repr_html_(self) -> str:
        rows = [("-", *self._row(_shares(self.unpatched[None]), self.unpatched[None], 0))]
        rows += [
            (layer, *self._row(self.shares, self.log_probability, layer))
            for layer in range(len(self.shares))
        ]
        return html_table(repr(self), ("layer", *self.outcomes, "covered"), rows)

    def _row(self, shares: PatchedValues, values: PatchedValues, layer: int) -> list[str]:
        """Mean share of each outcome over all pairs that have it, and what they cover."""
        means = [f"{np.nanmean(shares[layer, :, o]):.3f}" for o in range(len(self.outcomes))]
        return [*means, f"{np.nansum(np.exp(values[layer]), axis=-1).mean():.3f}"]


def _shares(values: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, past NaN."""
    odds = np.exp(values - np.nanmax(values, axis=-1, keepdims=True))
    return odds / np.nansum(odds, axis=-1, keepdims=True)


def _means(
    values: np.ndarray, weights: np.ndarray, language: TextNumbers, n: int
) -> LayerLanguages:
    """Weighted mean by language of values [layer, pair]."""
    sums = np.stack([np.bincount(language, row * weights, minlength=n) for row in values])
    whole = np.bincount(language, weights, minlength=n)
    return np.divide(sums, whole, out=np.full_like(sums, np.nan), where=whole > 0)
