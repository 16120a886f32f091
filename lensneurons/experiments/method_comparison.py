"""The published ways to find a language's neurons, on one footing: what does each one's set do?

Every method gives each language its first n neurons, the same n for all methods, and each set is
removed beside random neurons as active in that language (`lensneurons.experiments.ablation`). Then

    own effect           how much worse the language gets without the set
    selectivity          that less the mean effect on the other languages
    beyond control       either, less that of the random neurons of the same items

say which method found what the language needs, whatever it calls its score.

>>> methods = {
...     "LAPE": ln.identify(statistics, score="lape"),
...     "average precision": rank_neurons(items),
...     "PLND": importance(model, corpus),
... }                                                                    # doctest: +SKIP
>>> compare_methods(model, held_out, methods, neurons).to_pandas()       # doctest: +SKIP

What this does not show: which set is right. A method may find the neurons of an alphabet, another
those of a grammar. And n decides: methods that agree on the first ten may part at a thousand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.ablation import ablation_matrix
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.metrics import METRICS
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.sets import NeuronSet
from lensneurons.options import plain_options
from lensneurons.tokens.encoding import Scope
from lensneurons.tokens.prepared import PreparedCorpus
from lensneurons.values.base import Overview, Value

if TYPE_CHECKING:
    import pandas as pd

    from lensneurons.corpora.corpus import ParallelCorpus

_SHAPE = ("n_layers", "d_mlp", "n_experts", "unit", "n_heads")  # what sets of a model share
FIGURES = {
    "own effect": "mean diagonal",
    "others": "mean off-diagonal",
    "selectivity": "selectivity",
    "own effect beyond control": "beyond control (own): mean diagonal",
    "selectivity beyond control": "beyond control (own): selectivity",
}


@runtime_checkable
class Ranked(Protocol):
    """What gives a language its first n neurons, such as an `Importance` or `LanguageNeurons`."""

    def top(self, language: str, n: int) -> NeuronSet:
        """The first n neurons of a language."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class MethodComparison(Value):
    """Sets of several methods, and what removing them does. Made by `compare_methods`.

    A file of it holds the matrix and the indices of the neurons; sets that were read say no more
    how active their neurons are.

    Attributes:
        sets: method to language to its neurons, as many for all methods.
        matrix: the effects of removing them, a setting for each method.
    """

    FILE_KIND: ClassVar = "comparison of methods"

    sets: Mapping[str, Mapping[str, NeuronSet]]
    matrix: AblationMatrix

    def _pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, details = self.matrix._pack()
        every = [one for of in self.sets.values() for one in of.values()]
        arrays["chosen"] = np.concatenate([one.flat for one in every])
        rows = [
            [method, k, one.label, len(one)]
            for method, of in self.sets.items()
            for k, one in of.items()
        ]
        shape = {name: getattr(every[0], name) for name in _SHAPE}
        return arrays, details | {"sets": rows, "shape": shape}

    @classmethod
    def _unpack(
        cls, arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]
    ) -> MethodComparison:
        details, arrays = dict(details), dict(arrays)
        rows, shape, rest = details.pop("sets"), details.pop("shape"), arrays.pop("chosen")
        sets: dict[str, dict[str, NeuronSet]] = {}
        for method, k, label, size in rows:
            flat, rest = rest[:size], rest[size:]
            sets.setdefault(method, {})[k] = NeuronSet(flat=flat, label=label, **shape)
        if len(rest):
            raise ValueError(f"{len(rest)} neurons are of no set")
        return cls(sets, AblationMatrix._unpack(arrays, details))

    def to_pandas(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row a method and figure: method, figure, estimate, low, high; means over languages.

        Effects are in nats a token (or shares of right answers), with intervals over items.
        """
        import pandas as pd

        rows = []
        for method in self.sets:
            found = self.matrix.figures(method, level=level)
            for name, figure in FIGURES.items():
                one = found[figure]
                rows.append((method, name, *map(float, (one.estimate, one.low, one.high))))
        return pd.DataFrame(rows, columns=["method", "figure", "estimate", "low", "high"])

    def overlap(self) -> pd.DataFrame:
        """Jaccard index of the sets of every two methods, mean over the languages."""
        import pandas as pd

        names = pd.Index(self.sets, dtype=object)
        shared = [
            np.mean([len(a[k] & b[k]) / len(a[k] | b[k]) for k in a])
            for a, b in product(self.sets.values(), repeat=2)
        ]
        values = np.reshape(shared, (len(names), len(names)))
        return pd.DataFrame(values, index=names, columns=names)

    def layer_profile(self) -> pd.DataFrame:
        """Neurons of each layer, over all languages: one row a layer, one column a method."""
        import pandas as pd

        return pd.DataFrame(
            {
                name: np.sum([one.per_layer() for one in of.values()], axis=0)
                for name, of in self.sets.items()
            }
        ).rename_axis("layer")

    def _brief(self) -> str:
        sizes = {k: len(one) for k, one in next(iter(self.sets.values())).items()}
        told = ", ".join(f"{k} {n}" for k, n in sizes.items())
        return f"{', '.join(self.sets)}; neurons of each: {told}"

    def _overview(self) -> Overview:
        table = self.to_pandas().set_index(["method", "figure"])
        rows = [
            (
                method,
                *(
                    "{:+.3f} [{:+.3f}, {:+.3f}]".format(*table.loc[(method, name)])
                    for name in FIGURES
                ),
            )
            for method in self.sets
        ]
        title = f"{self!r}; {METRICS[self.matrix.metric].unit}"
        return Overview(title, ("method", *FIGURES), rows)


@plain_options
def compare_methods(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    methods: Mapping[str, Ranked],
    neurons: LanguageNeurons,
    *,
    number: int = 100,
    languages: Sequence[str] | None = None,
    controls: int = 20,
    scope: Scope | None = None,
    run_dir: str | Path | None = None,
    batch_tokens: int = 4096,
    seed: int = 0,
    progress: bool = True,
) -> MethodComparison:
    """Remove the first neurons of every language by several methods, and measure what it does.

    Args:
        model: a TransformerLens model; it stays as it is.
        corpus: the texts that effects are measured on; other ones than those that were ranked on.
        methods: the name of each method to what it found: `LanguageNeurons`, a `NeuronRanking`, an
            `Importance`, or anything with ``top(language, n)``.
        neurons: says how often every neuron is active, for the random neurons.
        number: neurons of each language; fewer where a method's `LanguageNeurons` have fewer, then
            for all methods alike.
        languages: the languages whose neurons are removed; None for all of `neurons`.
        controls: random sets, as for `ablation_matrix`.
        scope: whose tokens are evaluated.
        run_dir: a folder for the effects; the same call resumes there.
        batch_tokens: most tokens in a batch, padding included.
        seed: of the random sets.
        progress: show a progress bar.

    Raises:
        LensNeuronsError: fewer than two methods, one that gives no neurons, a language without
            neurons, or what `ablation_matrix` raises.
    """
    if len(methods) < 2:
        raise LensNeuronsError(f"methods={list(methods)}: give two or more to compare")
    for name, one in methods.items():
        if not isinstance(one, Ranked):
            raise LensNeuronsError(
                f"methods[{name!r}] is a {type(one).__name__}, which has no top(language, n): give"
                " what identify, rank_neurons or importance returns"
            )
    rows = tuple(neurons.languages if languages is None else languages)
    found = [one for one in methods.values() if isinstance(one, LanguageNeurons)]
    sizes = {k: min([number, *(len(one[k]) for one in found)]) for k in rows}
    if empty := [k for k, n in sizes.items() if n < 1]:
        raise LensNeuronsError(
            f"no neurons to compare in {empty}: leave them out (languages=), or identify with a"
            " greater top_rate"
        )
    sets = {name: {k: one.top(k, n) for k, n in sizes.items()} for name, one in methods.items()}
    matrix = ablation_matrix(
        model, corpus, neurons,
        sets=sets, match="own", controls=controls, scope=scope, run_dir=run_dir,
        batch_tokens=batch_tokens, seed=seed, progress=progress,
    )  # fmt: skip
    return MethodComparison(sets, matrix)
