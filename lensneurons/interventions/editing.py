"""Edits of neurons in a running model: ablation, scaling and steering, as context managers.

A neuron's activation is ``a = act_fn(hook_pre)``, and what it hands to W_out is ``hook_post``: `a`
itself, or `a` times the linear branch in a gated MLP. In the block, for the chosen neurons,

    ablate "zero"       a = 0                          arXiv 2505.21505, "deactivation"
    ablate "mean"       a = its mean over the counted tokens of a language, or of all
    ablate "resample"   a = its value on a random counted token of a reference corpus
    scale               a = factor * a
    steer "add"         a = a + alpha * mean in the language to steer toward
    steer "replace"     a = alpha * mean in that language
    steer "difference"  a = a + alpha * (mean in that language - mean in another, or in all others)

The linear branch of a gated MLP still follows the text. Hooks live as long as the ``with`` and act
on everything that runs in it (``model(...)``, ``generate``, ``run_with_cache``, ``run_with_hooks``,
`collect`). Blocks nest: the inner one acts on what the outer one left. When a block is left, also
by an exception, exactly its own hooks are removed.

>>> with ln.ablate(model, neurons["zh"]):                                # doctest: +SKIP
...     ablated = ln.nll(model, corpus)

A sequence of sets in place of one gives each row of a batch a condition of its own, so K conditions
fit into one batch. The edit is computed for the neurons of all conditions together and taken over
only where row, position and neuron are meant; every other entry keeps its bits.

Sets of other sites are edited as well: outputs of linear maps (`a` is the value itself), neurons
inside experts (`a` on the tokens that are sent there), and whole experts, which `ablate` and
`scale` take as what they add to the stream. `lensneurons.interventions.edited_sites` says how.

What this does not show: if a behaviour breaks without some neurons, this model needed them for it;
that does not make them neurons *for* it. Compare `NeuronSet.random_control`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool

from lensneurons.activations.recording import ActivationDraws, record_activations
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, ModelError, choose
from lensneurons.interventions.edited_sites import (
    EditedSite,
    edited_site,
    editing_experts,
    editing_outputs,
    wanted_parts,
)
from lensneurons.interventions.experts import weighing_experts
from lensneurons.models.expert_neurons import ExpertNeuronSite
from lensneurons.models.linear_sites import LinearSite
from lensneurons.models.routers import ExpertSite
from lensneurons.models.running import reserved
from lensneurons.models.sites import NeuronSite
from lensneurons.neurons.empty_sets import warn_of_no_neurons
from lensneurons.neurons.sets import NeuronSet, chosen_set
from lensneurons.options import plain_options
from lensneurons.shapes import Activation, CountedMask, NeuronIndices, NeuronScores
from lensneurons.values.provenance import UNKNOWN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lensneurons.corpora.corpus import ParallelCorpus
    from lensneurons.tokens.prepared import PreparedCorpus

# A set, a name, several names, or a set for each row.
Neurons = NeuronSet | str | Sequence[str] | Sequence[NeuronSet]
Positions = slice | Sequence[int] | CountedMask
# New values of some neurons: from their hook_post [batch, pos, neurons], layer and indices.
NewValues = Callable[[torch.Tensor, int, NeuronIndices], torch.Tensor]
AblationMethod = Literal["zero", "mean", "resample"]
SteeringMethod = Literal["add", "replace", "difference"]

# What each method of `ablate` reads.
READS = {"zero": (), "mean": ("statistics", "language"), "resample": ("reference", "tokenizer")}


@plain_options
@contextmanager
def ablate(
    model: Any,
    neurons: Neurons,
    *,
    method: AblationMethod = "zero",
    statistics: ActivationStatistics | None = None,
    language: str | None = None,
    reference: ParallelCorpus | PreparedCorpus | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    positions: Positions | None = None,
    seed: int = 0,
) -> Iterator[Any]:
    """Take the information out of neurons for as long as the block runs.

    Args:
        model: a TransformerLens model.
        neurons: a set, a neuron's name such as ``"L2N10"``, several names, or one set for each row
            of every batch that runs in the block.
        method: what stands in for the activation: ``"zero"``, the ``"mean"`` of `statistics`, or
            ``"resample"``, the value on a random counted token of `reference` (at each position
            all neurons come from one token, so they fit each other).
        statistics: means of the activation, for ``"mean"``.
        language: whose mean; None takes the mean over all languages, each weighing the same.
        reference: texts to draw from, for ``"resample"``; they run once when the block is entered.
        tokenizer: encodes `reference`; by default the model's own, as it was saved.
        positions: where to act: a slice or indices along the position axis, or a bool mask
            [batch, pos]; None acts everywhere. With positions, steps of a generation (passes of
            one position) are left alone.
        seed: of the draws of ``"resample"``.

    Yields:
        The model.

    Raises:
        LensNeuronsError: neurons of another model, or `method` lacks what it needs, or is given
            what it does not read.
        ModelError: not a TransformerLens model, or its tokenizer is needed and cannot be read.

    Warns:
        EmptySetWarning: there are no neurons in `neurons`, so nothing changes.
    """
    choose(method, get_args(AblationMethod), "method")
    given = {"statistics": statistics, "language": language, "reference": reference}
    for name, value in {**given, "tokenizer": tokenizer}.items():
        if value is not None and name not in READS[method]:  # a forgotten method= would give zeros
            other = next(other for other, names in READS.items() if name in names)
            raise LensNeuronsError(f"{name}= needs method={other!r}, not {method!r}")
    site = edited_site(model, neurons)
    sets = fitting_sets(neurons, site)
    require_method(site, method)
    if isinstance(site, ExpertSite):
        if positions is not None:
            raise LensNeuronsError("positions= is for neurons: experts are removed everywhere")
        with weighing_experts(model, sets, 0.0):
            yield model
        return
    if method == "zero":
        new, linear = (lambda here, *_: torch.zeros_like(here)), False
    elif method == "mean":
        new, linear = _constant(_means(statistics, site, language)), site.gated
    elif reference is None:
        raise LensNeuronsError("method='resample' needs reference=, a corpus to draw tokens from")
    else:
        layers = {layer: members.indices for layer, members in members_by_layer(sets).items()}
        recorded = record_activations(model, reference, layers, tokenizer=tokenizer)
        draws = ActivationDraws(recorded, seed)
        new, linear = (lambda here, layer, _: draws.like(here, layer)), site.gated
    with changing(model, site, sets, new, positions=positions, linear=linear):
        yield model


def require_method(site: EditedSite, method: AblationMethod) -> None:
    """Raise unless the units of a site can be ablated by a method.

    Raises:
        LensNeuronsError: says which methods there are for them.
    """
    if isinstance(site, ExpertSite) and method != "zero":
        raise LensNeuronsError(f"experts are removed by method='zero', not {method!r}")
    if method == "resample" and not isinstance(site, NeuronSite):
        raise LensNeuronsError(
            "method='resample' is for neurons of dense MLPs: 'zero' and 'mean' are for all"
        )


@plain_options
@contextmanager
def scale(
    model: Any, neurons: Neurons, factor: float, *, positions: Positions | None = None
) -> Iterator[Any]:
    """Multiply the activation of neurons for as long as the block runs.

    Args:
        model: a TransformerLens model.
        neurons: a set, one or several names, or one set for each row of every batch.
        factor: 0 ablates, 1 changes nothing, 2 doubles, -1 turns the sign around.
        positions: where to act, as for `ablate`.

    Yields:
        The model.

    Raises:
        LensNeuronsError: neurons of another model, or a factor that is not finite.

    Warns:
        EmptySetWarning: there are no neurons in `neurons`, so nothing changes.
    """
    site = edited_site(model, neurons)
    sets = fitting_sets(neurons, site)
    _require_finite(factor, "factor")
    if isinstance(site, ExpertSite):
        if positions is not None:
            raise LensNeuronsError("positions= is for neurons: experts are scaled everywhere")
        with weighing_experts(model, sets, factor):
            yield model
        return
    with changing(model, site, sets, lambda here, *_: here * factor, positions=positions):
        yield model


@plain_options
@contextmanager
def steer(
    model: Any,
    neurons: Neurons,
    statistics: ActivationStatistics,
    *,
    toward: str,
    away_from: str | None = None,
    method: SteeringMethod = "add",
    alpha: float = 1.0,
    positions: Positions | None = None,
) -> Iterator[Any]:
    """Push neurons to where they are in a language, for as long as the block runs.

    Args:
        model: a TransformerLens model.
        neurons: a set (``neurons["zh"]``, say), one or several names, or one set for each row of
            every batch.
        statistics: mean activations, by language.
        toward: the language to steer toward.
        away_from: for ``"difference"``, whose mean is subtracted; None takes the mean over all
            other languages, each weighing the same.
        method: ``"add"``, ``"replace"`` or ``"difference"``; see the formulas above.
        alpha: strength, in means.
        positions: where to act, as for `ablate`.

    Yields:
        The model.

    Raises:
        LensNeuronsError: neurons or statistics of another model, a language without statistics, or
            `away_from` with another method, or equal to `toward`.

    Warns:
        EmptySetWarning: there are no neurons in `neurons`, so nothing changes.
    """
    choose(method, get_args(SteeringMethod), "method")
    site = edited_site(model, neurons)
    if isinstance(site, ExpertSite):
        raise LensNeuronsError("experts have no activation to steer: steer_experts() moves routers")
    sets = fitting_sets(neurons, site)
    _require_finite(alpha, "alpha")
    values = alpha * _means(statistics, site, toward)
    if away_from is not None and method != "difference":
        raise LensNeuronsError(f"away_from={away_from!r} needs method='difference', not {method!r}")
    if away_from == toward:
        raise LensNeuronsError(f"away_from={away_from!r} is also toward=: nothing would change")
    if method == "difference":
        others = [language for language in statistics.languages if language != toward]
        if away_from is None and not others:
            raise LensNeuronsError("method='difference' needs statistics of a second language")
        left = statistics.select(others) if away_from is None else statistics
        values = values - alpha * _means(left, site, away_from)
    new, add = _constant(values), method != "replace"
    with changing(model, site, sets, new, positions=positions, linear=site.gated, add=add):
        yield model


def single_set(neurons: Neurons, site: EditedSite) -> NeuronSet:
    """The one set of neurons of the model with this site.

    Raises:
        LensNeuronsError: several sets, none of this model, or names that are not there.

    Warns:
        EmptySetWarning: there is no neuron in it.
    """
    sets = fitting_sets(neurons, site)
    if len(sets) > 1:
        raise LensNeuronsError(
            f"{len(sets)} sets of neurons, one for each row of a batch: give one set, such as "
            "first | second"
        )
    return sets[0]


def fitting_sets(neurons: Neurons, site: EditedSite) -> list[NeuronSet]:
    """The sets of neurons of the model with this site: one for all rows, or one for each.

    Args:
        neurons: a set, a neuron's name, or several names make one; several sets one for each row.
        site: where the model's neurons are.

    Raises:
        LensNeuronsError: no set, none of this model, or names that are not there.

    Warns:
        EmptySetWarning: there is no neuron in any of them, so nothing would change.
    """
    alone = isinstance(neurons, NeuronSet | str) or not isinstance(neurons, Sequence)
    several = not alone and any(isinstance(one, NeuronSet) for one in neurons)
    given: Sequence[Any] = list(neurons) if several else [neurons]
    if not several and not alone and not len(neurons):
        raise LensNeuronsError("no set of neurons: give a NeuronSet, or one for each row")
    parts = wanted_parts(site)
    sets = [chosen_set(one, site.n_layers, site.d_mlp, **parts) for one in given]
    warn_of_no_neurons(sets)
    return sets


def _require_finite(value: float, name: str) -> None:
    if not np.isfinite(value):
        raise LensNeuronsError(f"{name}={value}: give a finite number")


def _means(
    statistics: ActivationStatistics | None, site: EditedSite, language: str | None
) -> NeuronScores:
    """Mean activation float64 [layer, neuron], in a language or over all."""
    if statistics is None:
        raise LensNeuronsError("method='mean' needs statistics=, what collect() gives")
    if (statistics.n_layers, statistics.d_mlp) != (site.n_layers, site.d_mlp):
        raise LensNeuronsError(
            f"statistics of {statistics.n_layers} layers x {statistics.d_mlp} neurons do not "
            f"belong to a model of {site.n_layers} x {site.d_mlp}"
        )
    if statistics.provenance.hook not in (UNKNOWN, site.hook):
        raise LensNeuronsError(
            f"statistics of {statistics.provenance.hook} do not belong to {site.hook}: collect "
            "them of the units that are edited"
        )
    if "n_experts" in site.parts and statistics.grouped_routed is None:
        raise LensNeuronsError(
            "a mean of neurons inside experts is one over the tokens sent there: give "
            "statistics.among_routed(collect(model, corpus, site='experts'))"
        )
    if language is None:
        return statistics.mean.mean(axis=-1)
    choose(language, statistics.languages, "language")
    return statistics.mean[..., statistics.languages.index(language)]


def _constant(values: NeuronScores) -> NewValues:
    kept = torch.tensor(values)
    return lambda here, layer, indices: kept[layer, indices].to(here)


@contextmanager
def changing(
    model: Any,
    site: NeuronSite | LinearSite | ExpertNeuronSite,
    neurons: Sequence[NeuronSet],
    new: NewValues,
    *,
    positions: Positions | None = None,
    linear: bool = False,
    add: bool = False,
) -> Iterator[None]:
    """Edit ``hook_post`` of some neurons for as long as the block runs: what all edits build on.

    `new` gives what stands in for ``hook_post``, or is added to it. With `linear` it gives the
    activation, and the hook multiplies it by the linear branch. What stands for ``hook_post`` at
    other sites, `interventions.edited_sites` says.

    Raises:
        ModelError: the model lacks a hook that is needed, so nothing would be edited.
    """
    edits = [
        LayerHook(layer, members, new, positions, linear, add)
        for layer, members in members_by_layer(neurons).items()
    ]
    if isinstance(site, LinearSite):
        with editing_outputs(model, site, {hook.layer: hook for hook in edits}):
            yield
        return
    if isinstance(site, ExpertNeuronSite):
        with editing_experts(model, site, edits):
            yield
        return
    hooks: list[tuple[str, Callable[..., torch.Tensor | None]]] = []
    for hook in edits:
        layer = hook.layer
        if linear:
            hooks.append((site.pre[layer].replace("hook_pre", "hook_pre_linear"), hook.keep_linear))
        hooks.append((site.post[layer], hook))
    with hooking(model, hooks):
        yield


@contextmanager
def hooking(model: Any, hooks: Sequence[tuple[str, Callable[..., Any]]]) -> Iterator[None]:
    """Put hooks on a model, by name, for as long as the block runs.

    Raises:
        ModelError: the model lacks one: TransformerLens would silently never call it.
    """
    known = model.hook_dict  # built at every look
    if missing := [name for name, _ in hooks if name not in known]:
        raise ModelError(f"{type(model).__name__} has no {missing[0]}: the hook would never fire")
    with reserved(model), model.hooks(fwd_hooks=list(hooks)):
        yield


@dataclass(frozen=True)
class Members:
    """The neurons of one layer in all sets together, and the rows of a batch they are meant for.

    `indices` are int64 [neurons] within the layer; `rows` is bool [row, neurons], one row for all.
    """

    indices: NeuronIndices
    rows: Bool[torch.Tensor, "row neurons"]


def members_by_layer(neurons: Sequence[NeuronSet]) -> dict[int, Members]:
    """The neurons of every layer that has any, from the first layer to the last."""
    by_layer = [one.by_layer() for one in neurons]
    found = {}
    for layer in sorted({layer for one in by_layer for layer in one}):
        own = [one.get(layer, np.zeros(0, np.int64)) for one in by_layer]
        indices = np.unique(np.concatenate(own))
        rows = np.stack([np.isin(indices, one) for one in own])
        found[layer] = Members(torch.from_numpy(indices), torch.from_numpy(rows))
    return found


@dataclass(eq=False, repr=False)
class LayerHook:
    """The hook on ``hook_post`` of one layer; the options are those of `changing`."""

    layer: int
    members: Members
    new: NewValues
    positions: Positions | None
    needs_linear: bool
    add: bool
    linear: torch.Tensor | None = None

    def keep_linear(self, tensor: torch.Tensor, hook: Any) -> None:
        """Remember the linear branch, which fires before ``hook_post``."""
        self.linear = tensor

    def __call__(self, post: Activation, hook: Any) -> Activation | None:
        """The edited ``hook_post`` of a pass."""
        if self.positions is not None and post.shape[1] == 1:
            return None  # a step of a generation
        rows = self._rows_of(len(post))
        if self.needs_linear and self.linear is None:
            raise LensNeuronsError("hook_pre_linear did not fire before hook_post")
        indices = self.members.indices.to(post.device)
        linear, self.linear = self.linear, None
        here = post[..., indices]
        edited = self._edited(
            here, None if linear is None else linear[..., indices], self.members.indices
        )
        chosen = rows[:, None, :].to(post.device)
        if self.positions is not None:
            chosen = chosen & chosen_places(self.positions, post).to(post.device)[..., None]
        result = post.clone()
        result[..., indices] = torch.where(chosen, edited.to(post.dtype), here)
        return result

    def _rows_of(self, batch: int) -> torch.Tensor:
        """Bool [row, neurons] for a batch of so many rows; raise where there are others."""
        rows = self.members.rows
        if len(rows) not in (1, batch):
            raise LensNeuronsError(
                f"{len(rows)} sets of neurons, one a row, but a batch of {batch} rows: "
                "give one set for all rows, or batches of as many rows"
            )
        return rows

    def _edited(
        self, here: torch.Tensor, linear: torch.Tensor | None, indices: NeuronIndices
    ) -> torch.Tensor:
        """What stands in for the post of some neurons, wherever it is meant."""
        edited = self.new(here, self.layer, indices)
        edited = edited if linear is None else edited * linear
        return here + edited if self.add else edited

    def meant(
        self, batch: tuple[int, int], tokens: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor | None:
        """Bool [token, neurons]: where the edit is meant, inside an expert; None: nowhere.

        Args:
            batch: rows and positions of the pass.
            tokens: int64 [token], their numbers in the batch, row by row.
            places: int64 [neurons], which of the members.
        """
        if self.positions is not None and batch[1] == 1:
            return None  # a step of a generation
        rows, row, position = self._rows_of(batch[0]), tokens // batch[1], tokens % batch[1]
        chosen = rows[:, places].expand(batch[0], -1).to(tokens.device)[row]
        if self.positions is not None:
            where = chosen_places(self.positions, torch.empty(*batch, 1, device="meta"))
            chosen = chosen & where.to(tokens.device).expand(batch)[row, position, None]
        return chosen

    def inside(
        self, here: torch.Tensor, linear: torch.Tensor, places: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        """The new post [token, neurons] of some of the neurons, inside an expert."""
        indices = self.members.indices[places]
        edited = self._edited(here, linear if self.needs_linear else None, indices)
        return torch.where(chosen, edited.to(here.dtype), here)


def chosen_places(positions: Positions, post: Activation) -> Bool[torch.Tensor, "_ pos"]:
    """Bool [batch or 1, pos]: the positions of a pass where an edit acts.

    Raises:
        LensNeuronsError: a mask of another shape, or indices outside the text.
    """
    if isinstance(positions, torch.Tensor):
        if positions.shape != post.shape[:2]:
            raise LensNeuronsError(
                f"positions {list(positions.shape)} do not fit a batch {list(post.shape[:2])}"
            )
        return positions
    places = torch.zeros(1, post.shape[1], dtype=torch.bool)
    try:
        places[:, positions if isinstance(positions, slice) else list(positions)] = True
    except IndexError:
        raise LensNeuronsError(
            f"positions={positions} are not all within a text of {post.shape[1]} tokens"
        ) from None
    return places
