"""How often, and how strongly, every neuron is active in every language.

The activation probability of neuron j of layer l in language k (arXiv 2505.21505, section 3;
arXiv 2402.16438, equation 3) is

    p[l, j, k] = (counted tokens of language k with hook_pre > 0) / (counted tokens of language k)

`ActivationStatistics` keeps the numerator and the denominator as integers, not the quotient, so
statistics of shards, batches and workers add up to the same bits in any order. Sums and sums of
squares of the activation give its mean and spread, for mean ablation and steering.

Counts may be kept apart for G groups of parallel items (``collect(..., groups=G)``): resampling
the groups gives intervals for everything downstream without another forward pass. That costs
``8 * G`` bytes a neuron and language: 37 MB a group for the 458,752 neurons of Mistral-7B in ten
languages.

Statistics of experts have the same form: ``collect(..., site="experts")`` counts the tokens that
are sent to expert j (`Provenance.unit` says which). There p is a share of the tokens as well, whose
sum over the experts of a layer is k.

A neuron inside a routed expert (``site="expert_neurons"``) can only be active where the router
sends the token to its expert, so its p mixes both. `ActivationStatistics.among_routed` takes them
apart:

    p[l, j, k] = (counted tokens with pre > 0) / (counted tokens of language k sent to j's expert)

which is 0 where none was. A neuron of a rarely chosen expert then has few tokens behind its p.

A gated neuron hands ``act_fn(gate) * linear`` to W_out, so it writes with the sign of the product.
Active means the gate alone, as in both papers; tools that count ``hook_post > 0`` count where both
halves have one sign. ``collect(..., branches=True)`` keeps the four combinations apart:

    branches[l, j, k] = tokens (active, linear > 0), (active, not), (not, linear > 0), (neither)

What this does not show: a probability says how often a neuron is active, not what its activity
does (that needs an intervention), and it depends on the tokens that were counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Int64

from lensneurons.activations.checks import check_statistics
from lensneurons.activations.reduction import reduce_batch
from lensneurons.errors import LensNeuronsError, ProvenanceError, choose
from lensneurons.models.sites import neuron_site
from lensneurons.options import plain_options
from lensneurons.shapes import Cache, CountedMask, Counts, GroupWeights, Probabilities, Sums, Tokens
from lensneurons.values.base import Overview, Value, read_only
from lensneurons.values.mapping import let_go
from lensneurons.values.provenance import ROUTED, Provenance, require_same

if TYPE_CHECKING:
    import pandas as pd

GROUPED = ("grouped_counts", "grouped_tokens", "grouped_routed", "grouped_linear", "grouped_both")
ARRAYS = (*GROUPED, "sums", "squares")
# Signs of gate and linear branch, in the order of the last axis of `ActivationStatistics.branches`.
SIGNS = ("++", "+-", "-+", "--")


@dataclass(frozen=True, eq=False, repr=False)
class ActivationStatistics(Value):
    """Activation counts of every neuron in every language; immutable.

    Attributes:
        languages: codes, in the order of the last axis of every array.
        grouped_counts: int64 [group, layer, neuron, language], counted tokens with hook_pre > 0.
        grouped_tokens: int64 [group, language], counted tokens.
        sums: float64 [layer, neuron, language], sum of the activation ``act_fn(hook_pre)`` over
            the counted tokens; None where only counts are known.
        squares: the same for the square of the activation.
        provenance: where the counts come from.
        n_experts: routed experts of a layer where the neurons are those inside them: neuron j of
            expert e is number ``e * width + j`` of its layer. None for all others.
        grouped_routed: int64 [group, layer, expert, language], counted tokens that were sent to
            each expert, where these are the denominator of its neurons; None where all tokens are.
        n_heads: heads of a layer where these are outputs of an attention projection: unit j of head
            h is number ``h * size + j`` of its layer. None for all others.
        grouped_linear: int64 [group, layer, neuron, language], counted tokens on which the linear
            branch of a gated neuron is above 0; None where `collect` was not asked for `branches`.
        grouped_both: the same, on which the neuron is active as well.

    Raises:
        LensNeuronsError: shapes that do not fit each other, a language named twice, a negative
            count or one above the tokens, a sum that is not finite, or a language without a
            counted token.
    """

    FILE_KIND: ClassVar = "activation statistics"
    FILE_NAMES: ClassVar = {
        "grouped_counts": "counts",
        "grouped_tokens": "tokens",
        "grouped_routed": "routed",
        "grouped_linear": "linear",
        "grouped_both": "both",
    }
    RUN_FILE: ClassVar = "statistics.safetensors"
    AXES: ClassVar = {
        "counts": ("layer", "neuron", "language"),
        "tokens": ("language",),
        "sums": ("layer", "neuron", "language"),
        "squares": ("layer", "neuron", "language"),
    }
    COORDINATES: ClassVar = {"language": "languages"}

    languages: tuple[str, ...]
    grouped_counts: Int64[np.ndarray, "group layer neuron language"]
    grouped_tokens: Int64[np.ndarray, "group language"]
    sums: Sums | None = None
    squares: Sums | None = None
    provenance: Provenance = field(default_factory=Provenance)
    n_experts: int | None = None
    grouped_routed: Int64[np.ndarray, "group layer expert language"] | None = None
    n_heads: int | None = None
    grouped_linear: Int64[np.ndarray, "group layer neuron language"] | None = None
    grouped_both: Int64[np.ndarray, "group layer neuron language"] | None = None

    def __post_init__(self) -> None:
        check_statistics(self)
        super().__post_init__()

    @property
    def n_groups(self) -> int:
        """Number of resampling groups, G."""
        return self.grouped_counts.shape[0]

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return self.grouped_counts.shape[1]

    @property
    def d_mlp(self) -> int:
        """Neurons a layer."""
        return self.grouped_counts.shape[2]

    @classmethod
    def load(cls, path: str | Path, *, memory_map: bool = False) -> ActivationStatistics:
        """Read a file of statistics, or a run folder that holds one.

        Args:
            path: the file or run folder.
            memory_map: leave the counts in the file and read them as they are needed. They are
                checked either way, in one pass that holds a layer at a time. The file may be
                replaced meanwhile, but not be written over.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        return cls._read(path, memory_map=memory_map)

    @cached_property
    def counts(self) -> Counts:
        """int64 [layer, neuron, language]: counted tokens on which the neuron is active."""
        if self.n_groups == 1:
            return self.grouped_counts[0]
        total = self.grouped_counts[0].copy()
        for group in self.grouped_counts[1:]:
            total += group
            let_go(group)
        return read_only(total)

    @cached_property
    def tokens(self) -> Tokens:
        """int64 [language]: counted tokens."""
        return self.grouped_tokens.sum(axis=0)

    @cached_property
    def denominator(self) -> np.ndarray:
        """int64 [language], or [layer, neuron, language] among routed tokens: tokens behind p."""
        if self.grouped_routed is None or self.n_experts is None:
            return self.tokens
        width = self.d_mlp // self.n_experts
        return read_only(self.grouped_routed.sum(axis=0).repeat(width, axis=1))

    @cached_property
    def branches(self) -> Int64[np.ndarray, "layer neuron language sign"]:
        """int64 [layer, neuron, language, 4]: tokens by the signs of the halves, as `SIGNS` says.

        Raises:
            LensNeuronsError: the linear branch was not counted.
        """
        if self.grouped_linear is None or self.grouped_both is None:
            raise LensNeuronsError(
                "the linear branch of these neurons was not counted: "
                "collect(model, corpus, branches=True) does"
            )
        linear, both = self.grouped_linear.sum(axis=0), self.grouped_both.sum(axis=0)
        active = self.counts
        return read_only(
            np.stack(
                [both, active - both, linear - both, self.tokens - active - linear + both], axis=-1
            )
        )

    @cached_property
    def probability(self) -> Probabilities:
        """float64 [layer, neuron, language]: activation probability, in [0, 1]."""
        found = np.empty(self.grouped_counts.shape[1:])
        width = self.d_mlp // (self.n_experts or 1)
        for layer, own in enumerate(found):  # the sum over the groups is never held as a whole
            tokens = self.tokens
            if self.grouped_routed is not None:
                tokens = self.grouped_routed[:, layer].sum(axis=0).repeat(width, axis=0)
            active = self.grouped_counts[:, layer]
            np.divide(active.sum(axis=0), np.maximum(tokens, 1), out=own)
            let_go(active, self.grouped_routed)
        return read_only(found)

    @cached_property
    def mean(self) -> Sums:
        """float64 [layer, neuron, language]: mean activation over the counted tokens.

        Raises:
            LensNeuronsError: only counts are known, as for published counts.
        """
        return self._moment("sums") / np.maximum(self.denominator, 1)

    @cached_property
    def standard_deviation(self) -> Sums:
        """float64 [layer, neuron, language]: standard deviation of the activation over tokens."""
        squares = self._moment("squares") / np.maximum(self.denominator, 1)
        return np.sqrt(np.maximum(squares - self.mean**2, 0.0))

    def _moment(self, name: str) -> Sums:
        moment = getattr(self, name)
        if moment is None:
            raise LensNeuronsError(
                f"these statistics hold counts without {name} (published counts never have them): "
                "run collect() on the model to get them"
            )
        return moment

    @plain_options
    def update(
        self, cache: Cache, model: Any, *, languages: Sequence[str], counted: CountedMask
    ) -> ActivationStatistics:
        """These statistics with one more batch of a TransformerLens cache added (group 0).

        Args and errors are those of `from_cache`; meant for interactive work, since every call
        copies the counts. `collect` is the way for a corpus.
        """
        batch = ActivationStatistics.from_cache(cache, model, languages=languages, counted=counted)
        return _add(self, replace(batch, provenance=self.provenance), self.provenance)

    @classmethod
    @plain_options
    def from_cache(
        cls, cache: Cache, model: Any, *, languages: Sequence[str], counted: CountedMask
    ) -> ActivationStatistics:
        """Statistics of one batch that was run with ``model.run_with_cache``.

        Args:
            cache: an `ActivationCache` (or dict) that holds every ``blocks.{l}.mlp.hook_pre``
                [batch, pos, d_mlp].
            model: the model that filled it, for its activation function.
            languages: language of each row of the batch.
            counted: bool [batch, pos]: which tokens count; padding and BOS never should.

        Raises:
            LensNeuronsError: a layer is missing in the cache, or shapes do not fit.
        """
        site = neuron_site(model)
        if missing := [name for name in site.pre if name not in cache]:
            raise LensNeuronsError(
                f"the cache lacks {missing[0]} and {len(missing) - 1} more: run "
                "model.run_with_cache(tokens, names_filter=lambda name: "
                "name.endswith('mlp.hook_pre'))"
            )
        batch = cache[site.pre[0]].shape[:2]
        if counted.shape != batch or len(languages) != len(counted):
            raise LensNeuronsError(
                f"{len(languages)} languages and counted {list(counted.shape)} do not fit the "
                f"cached batch {list(batch)}: give one language a row and a mask [batch, pos]"
            )
        names = tuple(dict.fromkeys(languages))
        column = [names.index(language) for language in languages]
        shape = (site.n_layers, site.d_mlp, len(names))
        counts, sums, squares = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape)
        counted = counted.cpu()
        for layer, name in enumerate(site.pre):
            for row, k in enumerate(column):
                one = slice(row, row + 1)
                reduced = reduce_batch(cache[name][one], counted[one], *site.reading(layer))
                counts[layer, :, k] += reduced.counts[0]
                sums[layer, :, k] += reduced.sums
                squares[layer, :, k] += reduced.squares
        tokens = np.zeros((1, len(names)), np.int64)
        np.add.at(tokens[0], column, counted.sum(dim=1).numpy())
        provenance = Provenance(hook="hook_pre", activation=site.activation_name)
        return cls(names, counts[None], tokens, sums, squares, provenance)

    def merge(self, other: ActivationStatistics) -> ActivationStatistics:
        """The statistics of both corpora together; languages are matched by name.

        Raises:
            ProvenanceError: the two differ in model, dtype, attention, tokenizer, hook or scope
                (each difference is named), or counted the same corpus.
            LensNeuronsError: the two differ in layers, width or number of groups.
        """
        return _add(self, other, self.provenance.merge(other.provenance))

    def among_routed(self, routing: ActivationStatistics) -> ActivationStatistics:
        """The same counts, out of the tokens that were sent to each neuron's expert.

        Args:
            routing: statistics of the experts, ``collect(model, corpus, site="experts")`` with the
                same corpus, scope and groups.

        Raises:
            LensNeuronsError: these are no neurons inside routed experts, or `routing` is of
                something else, of other languages, or of other groups.
            ProvenanceError: the two are of another model or corpus; says which.
        """
        if self.n_experts is None or routing.provenance.unit != "expert":
            raise LensNeuronsError(
                f"statistics of {self._units()} among those of {routing._units()}: among_routed "
                "takes neurons of site='expert_neurons', and statistics of site='experts' that "
                "say how many tokens were sent to each expert"
            )
        if self.grouped_routed is not None:
            raise LensNeuronsError("these statistics are among routed tokens already")
        require_same(self.provenance, routing.provenance, ignoring=("hook", "activation"))
        return replace(
            self,
            grouped_routed=routing.select(self.languages).grouped_counts,
            provenance=replace(self.provenance, scope=f"{self.provenance.scope}{ROUTED}"),
        )

    @plain_options
    def select(self, languages: Sequence[str]) -> ActivationStatistics:
        """The same statistics for some languages, in the given order.

        Raises:
            LensNeuronsError: a language is not there; the message lists those that are.
        """
        places = [self.languages.index(choose(k, self.languages, "language")) for k in languages]
        if tuple(languages) == self.languages:
            return self
        arrays = {name: getattr(self, name) for name in ARRAYS}
        chosen = {name: a[..., places] for name, a in arrays.items() if a is not None}
        return replace(self, languages=tuple(languages), **chosen)

    @plain_options
    def of_neuron(self, layer: int, neuron: int) -> ActivationStatistics:
        """The statistics of one neuron; a jackknife over them costs nothing."""
        at, routed = np.s_[..., layer : layer + 1, neuron : neuron + 1, :], None
        if self.grouped_routed is not None:
            expert = neuron * (self.n_experts or 1) // self.d_mlp
            routed = self.grouped_routed[:, layer : layer + 1, expert : expert + 1]
        linear, both = self.grouped_linear, self.grouped_both
        return replace(
            self,
            grouped_counts=self.grouped_counts[at],
            grouped_linear=None if linear is None else linear[at],
            grouped_both=None if both is None else both[at],
            n_heads=None,
            sums=None if self.sums is None else self.sums[at],
            squares=None if self.squares is None else self.squares[at],
            n_experts=None if routed is None else 1,
            grouped_routed=routed,
        )

    def resample(self, weights: GroupWeights) -> ActivationStatistics:
        """The counts of a corpus in which group g appears ``weights[g]`` times.

        Args:
            weights: int64 [group], how often each group of parallel items is drawn.
        """
        drawn = {
            name: read_only(np.tensordot(weights, array, axes=1))[None]
            for name in GROUPED
            if (array := getattr(self, name)) is not None
        }
        return ActivationStatistics(
            languages=self.languages,
            provenance=self.provenance,
            n_experts=self.n_experts,
            n_heads=self.n_heads,
            **drawn,
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row a neuron and language: layer, neuron, language, active, tokens, probability.

        Tokens are the denominator: those sent to the neuron's expert where these count alone.
        """
        import pandas as pd

        index = pd.MultiIndex.from_product(
            [range(self.n_layers), range(self.d_mlp), self.languages],
            names=["layer", "neuron", "language"],
        )
        table = pd.DataFrame({"active": self.counts.ravel()}, index=index).reset_index()
        table["tokens"] = np.broadcast_to(self.denominator, self.counts.shape).ravel()
        table["probability"] = self.probability.ravel()
        return table

    def _units(self) -> str:
        """What was counted, such as ``"24 layers x 60 experts x 1408 neurons"``."""
        part, word = self.n_experts or self.n_heads, "experts" if self.n_experts else "heads"
        within = f"{part} {word} x {self.d_mlp // part}" if part else str(self.d_mlp)
        return f"{self.n_layers} layers x {within} {self.provenance.unit}s"

    def _brief(self) -> str:
        tokens = ", ".join(f"{k} {n:,}" for k, n in zip(self.languages, self.tokens, strict=True))
        return f"{self._units()}, {self.provenance.scope} tokens: {tokens}; {self.n_groups} groups"

    def _overview(self) -> Overview:
        share = self.probability.mean(axis=(0, 1))
        rows = [
            (language, f"{tokens:,}", f"{active:.4f}")
            for language, tokens, active in zip(self.languages, self.tokens, share, strict=True)
        ]
        title = f"ActivationStatistics: {self._units()}"
        return Overview(title, ("language", "counted tokens", "mean activation probability"), rows)


def _add(
    ours: ActivationStatistics, theirs: ActivationStatistics, provenance: Provenance
) -> ActivationStatistics:
    """Sum of two statistics over the union of their languages, ours first."""
    if ours.grouped_counts.shape[:-1] != theirs.grouped_counts.shape[:-1]:
        raise LensNeuronsError(
            "cannot add statistics of [group, layer, neuron] "
            f"{list(ours.grouped_counts.shape[:-1])} and {list(theirs.grouped_counts.shape[:-1])}"
        )
    languages = ours.languages + tuple(k for k in theirs.languages if k not in ours.languages)

    def add(name: str) -> Any:
        parts = [(s.languages, getattr(s, name)) for s in (ours, theirs)]
        if any(array is None for _, array in parts):
            return None
        total = np.zeros((*parts[0][1].shape[:-1], len(languages)), parts[0][1].dtype)
        for names, array in parts:
            total[..., [languages.index(k) for k in names]] += array
        return read_only(total)

    arrays = {name: add(name) for name in ARRAYS}
    return replace(ours, languages=languages, provenance=provenance, **arrays)


def require_comparable(before: ActivationStatistics, after: ActivationStatistics) -> None:
    """Raise unless two statistics may be compared: same corpus, languages, scope, hook and shape.

    Raises:
        ProvenanceError: what differs, by name. The model and what was done to it may differ.
        LensNeuronsError: they are among the tokens sent to each expert, which differ between
            models.
    """
    if before.grouped_routed is not None or after.grouped_routed is not None:
        raise LensNeuronsError(
            "statistics among routed tokens cannot be compared before and after: their routers "
            "send other tokens to an expert; compare what site='expert_neurons' gave"
        )
    changed = ("model", "revision", "weights", "config", "interventions")
    require_same(before.provenance, after.provenance, ignoring=changed)
    for name in ("languages", "n_layers", "d_mlp", "n_experts", "n_heads", "n_groups"):
        ours, theirs = getattr(before, name), getattr(after, name)
        if ours != theirs:
            raise ProvenanceError(f"the two differ in {name}: {ours} and {theirs}")
