"""Edges between neurons: which earlier neurons drive one late neuron, and by how much?

Take the attention patterns and the scales of the norms as they are in the pass ("frozen"). Then the
argument of neuron j of layer L is linear in the values h of all neurons of earlier layers, as long
as no path leads through another neuron: what a neuron writes reaches j by the residual stream, and
through the value and output matrices of any attention in between. So, exactly,

    hook_pre[L, j](t) = rest(t) + sum over l < L, i, s <= t of  h[l, i](s) * d hook_pre(t) / d h(s)

    edge (l, i) -> (L, j) = mean over counted tokens t of the sum over s of that product

in units of hook_pre. The derivatives are the products along all such paths added up; one backward
pass gives them for all neurons. `rest` is what token embeddings and biases give. Before every
run a second pass with all h halved shows that the rest of the model is linear in them indeed.

Frozen parts are a choice, so the strongest edges are also cut: the earlier neuron is set to 0, all
other neurons up to L keep their values, and attention and norms react (path patching, Goldowsky-
Dill et al. 2023, arXiv 2304.05969). `NeuronEdges.cut` is how much of the argument goes with it.

>>> edges = neuron_edges(model, corpus, "L12N345")                        # doctest: +SKIP
>>> edges.to_pandas(), ln.plots.neuron_edges(edges)                       # doctest: +SKIP

Intervals are a jackknife over groups of items, with Student's t. The sums of `GROUPS` groups take
``8 * GROUPS * languages`` bytes a neuron.

What this does not show: paths through other neurons; each of them has edges of its own. An edge
into the argument of a gated neuron says nothing of its linear branch. A sum of large edges of
unlike signs is small, so shares of a total mean little. The strongest of many thousand edges are
chosen on the very texts that they are measured on, so they are a little too strong.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float64

from lensneurons.cards.vocabulary import linear_part
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.forward import least_logits, to_device
from lensneurons.models.offload import in_memory
from lensneurons.models.running import require_finite, runs_model
from lensneurons.models.sites import NeuronSite
from lensneurons.neurons.sets import NeuronSet, chosen_set, flat_index, neuron_name
from lensneurons.options import plain_options
from lensneurons.tokens.batches import Batch, item_groups
from lensneurons.tokens.encoding import Scope
from lensneurons.tokens.prepared import Texts, prepare
from lensneurons.uncertainty.groups import jackknife_interval, require_level
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

NORMS = ("ln1", "ln2", "ln1_post", "ln2_post")
GROUPS = 10
OfEdges = Float64[np.ndarray, "edge language"]
# Of the largest argument. float32 gives 1e-6 to 1e-5 over 6 architectures, bf16 up to 1e-2.
_TOLERANCE, _COARSE = 1e-3, 0.1


@dataclass(frozen=True, eq=False, repr=False)
class NeuronEdges(Value):
    """What earlier neurons give to one neuron's argument. Made by `neuron_edges`.

    Attributes:
        target: name of the neuron, such as ``"L12N345"``.
        languages: codes.
        value: float64 [earlier layer, neuron, language], edge from every earlier neuron, in units
            of hook_pre, mean over counted tokens.
        argument: float64 [language], mean hook_pre of the target.
        rest: float64 [language], what embeddings and biases give of it.
        edges: names of the strongest sources.
        low: float64 [edge, language], lower end of the interval of their value.
        high: upper end.
        cut: float64 [edge, language], by how much the argument is lower without the edge, with
            attention and norms free; NaN where it was not asked for.
        level: coverage of the intervals.
        provenance: model and texts.
    """

    FILE_KIND: ClassVar = "edges into a neuron"
    AXES: ClassVar = {
        "value": ("layer", "neuron", "language"),
        "cut": ("edge", "language"),
        "low": ("edge", "language"),
        "high": ("edge", "language"),
    }
    COORDINATES: ClassVar = {"language": "languages", "edge": "edges"}

    target: str
    languages: tuple[str, ...]
    value: Float64[np.ndarray, "layer neuron language"]
    argument: Float64[np.ndarray, " language"]
    rest: Float64[np.ndarray, " language"]
    edges: tuple[str, ...]
    low: OfEdges
    high: OfEdges
    cut: OfEdges
    level: float
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def strength(self) -> OfEdges:
        """float64 [edge, language]: value of the strongest edges."""
        flat = [flat_index(name, *self.value.shape[:2]) for name in self.edges]
        return self.value.reshape(-1, len(self.languages))[flat]

    def to_pandas(self) -> pd.DataFrame:
        """One row an edge and language: source, layer, language, value, low, high, cut."""
        import pandas as pd

        rows = pd.MultiIndex.from_product(
            [self.edges, self.languages], names=["source", "language"]
        )
        parts = {name: getattr(self, name).ravel() for name in ("low", "high", "cut")}
        table = pd.DataFrame({"value": self.strength.ravel(), **parts}, rows).reset_index()
        layer = [int(name[1:].split("N")[0]) for name in table.source]
        table.insert(1, "layer", layer)
        return table

    def _brief(self) -> str:
        strength = self.strength
        told = []
        for name, row in zip(self.edges[:3], strength, strict=False):
            place = int(np.abs(row).argmax())
            told.append(f"{name} {row[place]:+.3f} ({self.languages[place]})")
        return f"into {self.target}: {', '.join(told)}"

    def _overview(self) -> Overview:
        rows: list[Sequence[object]] = [
            (name, *(
                f"{v:+.3f} [{a:+.3f}, {b:+.3f}] {'' if np.isnan(c) else f'cut {c:+.3f}'}"
                for v, a, b, c in zip(*row, strict=True)
            ))
            for name, *row in zip(
                self.edges, self.strength, self.low, self.high, self.cut, strict=True
            )
        ]  # fmt: skip
        every = self.value.sum(axis=(0, 1))
        for name, values in (("all neurons", every), ("rest", self.rest), ("sum", self.argument)):
            rows.append((name, *(f"{one:+.3f}" for one in values)))
        title = f"What earlier neurons give to the argument of {self.target}, mean over tokens"
        return Overview(title, ("from", *self.languages), rows)


@plain_options
@runs_model
def neuron_edges(
    model: Any,
    corpus: Texts,
    target: str,
    *,
    sources: NeuronSet | Sequence[str] | str | None = None,
    top: int = 12,
    cut: bool = True,
    level: float = 0.95,
    scope: Scope | None = None,
    batch_tokens: int = 1024,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = False,
) -> NeuronEdges:
    """Attribute one neuron's argument to the neurons of earlier layers.

    Args:
        model: a TransformerLens model; weights and hooks stay as they are, and hooks act.
        corpus: the texts: a corpus, prepared or not, a text, or a list of texts.
        target: name of a neuron that is not in the first layer.
        sources: neurons among which the strongest edges are looked for, such as the language
            neurons; None for all.
        top: how many strongest edges (by their largest absolute value over languages) are told.
        cut: whether these are cut as well: a forward pass for each, and one more.
        level: coverage of the intervals.
        scope: which tokens count, as for `collect`.
        batch_tokens: most tokens in a batch, padding included. The gradient keeps a whole batch in
            memory, every layer of it.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.
        progress: show a progress bar, in texts.

    Raises:
        LensNeuronsError: no such neuron, one of the first layer, no source in an earlier layer, no
            edge, fewer than two items, or items of a language that are all in one group.
        ModelError: attention patterns or norms that TransformerLens does not hook, or a block that
            is not linear in its neurons (gated attention).
        CorpusError: texts that cannot be read.
    """
    require_level(level)
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    site, encoded = prepared.site, prepared.encoded
    layer, neuron = divmod(flat_index(target, site.n_layers, site.d_mlp), site.d_mlp)
    if layer == 0 or top < 1:
        raise LensNeuronsError(
            f"target={target}, top={top}: give a neuron of layer 1 or later, and one edge or more"
        )
    allowed = np.arange(layer * site.d_mlp)
    if sources is not None:
        chosen = chosen_set(sources, site.n_layers, site.d_mlp).flat
        allowed = chosen[chosen < layer * site.d_mlp]
    if len(allowed) == 0:
        raise LensNeuronsError(f"no source is in a layer before that of {target}: give others")
    group = item_groups(encoded.item_ids, GROUPS)
    used, group = np.unique(group, return_inverse=True)
    if len(used) < 2:
        raise LensNeuronsError("an interval over items needs two items or more: give more texts")
    _require_hooks(model, layer)
    n_languages = len(encoded.languages)
    sums = np.zeros((len(used), layer, site.d_mlp, n_languages))
    argument, tokens = np.zeros((2, len(used), n_languages))
    batches = list(prepared.read(batch_tokens, f"edges into {target}", progress=progress))
    for number, batch in enumerate(batches):
        language = encoded.languages.index(batch.language)
        by_row, arguments = _attribute(model, site, batch, (layer, neuron), check=number == 0)
        np.add.at(sums[..., language], group[batch.rows], by_row)
        np.add.at(argument[:, language], group[batch.rows], arguments)
        np.add.at(tokens[:, language], group[batch.rows], batch.stop - batch.start)
    whole = tokens.sum(axis=0)
    if alone := [
        k for k, held, n in zip(encoded.languages, tokens.T, whole, strict=True) if held.max() == n
    ]:
        raise LensNeuronsError(
            f"all items of {alone} fell into one group, so nothing tells how they vary: give more"
        )
    value = sums.sum(axis=0) / whole
    flat = np.abs(value.reshape(-1, n_languages)).max(axis=-1)[allowed]
    best = allowed[np.argsort(-flat, kind="stable")[:top]]
    of_best = sums.reshape(len(used), -1, n_languages)[:, best]
    less = (of_best.sum(axis=0) - of_best) / (whole - tokens)[:, None]
    strength = value.reshape(-1, n_languages)[best]
    ends = jackknife_interval(strength, less, level=level)
    dropped = np.full((len(best), n_languages), np.nan)
    if cut:
        dropped = np.zeros((len(best), n_languages))
        for batch in batches:
            own = _cut(model, site, batch, (layer, neuron), best)
            dropped[:, encoded.languages.index(batch.language)] += own
        dropped /= whole
    mean = argument.sum(axis=0) / whole
    return NeuronEdges(
        neuron_name(layer * site.d_mlp + neuron, site.d_mlp),
        encoded.languages,
        value,
        mean,
        mean - value.sum(axis=(0, 1)),
        tuple(neuron_name(int(one), site.d_mlp) for one in best),
        ends.low,
        ends.high,
        dropped,
        level,
        replace(prepared.provenance(), hook="hook_post", attention="eager"),
    )


def _norms(model: Any, layer: int) -> list[str]:
    """Hooked norms of the blocks up to a layer, such as ``"blocks.1.ln1"``."""
    names = [f"blocks.{number}.{norm}" for number in range(layer + 1) for norm in NORMS]
    return [name for name in names if f"{name}.hook_out" in model.hook_dict]


def _require_hooks(model: Any, layer: int) -> None:
    """Raise unless attention patterns up to a layer are hooked.

    Raises:
        ModelError: names the first that is not there.
    """
    names = [f"blocks.{number}.attn.hook_pattern" for number in range(layer + 1)]
    if missing := [name for name in names if name not in model.hook_dict]:
        raise ModelError(
            f"the model has no {missing[0]}: without attention patterns to hold, edges are not"
            " linear; choose another model"
        )


@dataclass
class _Frozen:
    """What is held in a pass: patterns and scales, from the pass itself or from an earlier one."""

    patterns: dict[str, torch.Tensor] = field(default_factory=dict)
    scales: dict[str, torch.Tensor] = field(default_factory=dict)


@contextmanager
def _holding(
    model: Any,
    site: NeuronSite,
    layer: int,
    frozen: _Frozen,
    leaf: Callable[[int, torch.Tensor], torch.Tensor],
    see: Callable[[torch.Tensor], None],
) -> Iterator[None]:
    """Hold patterns and scales up to a layer, replace hook_post before it, and see its argument."""
    again = bool(frozen.patterns)
    given: dict[str, torch.Tensor] = {}

    def pattern(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        return frozen.patterns.setdefault(hook.name, tensor.detach())

    def norm(name: str) -> list[tuple[str, Callable[..., Any]]]:
        module = getattr(model.blocks[int(name.split(".")[1])], name.split(".")[2])

        def linear(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
            vectors = given.pop(name)
            with torch.no_grad(), in_memory(module):
                gain, bias, centres = linear_part(module, vectors.reshape(-1, vectors.shape[-1])[0])
                gain, bias = gain.to(vectors.device), bias.to(vectors.device)
            middle = vectors - vectors.mean(dim=-1, keepdim=True) if centres else vectors
            if not again:
                with torch.no_grad():
                    told, plain = tensor - bias, gain * middle
                    scale = (told * plain).sum(-1, keepdim=True)
                    frozen.scales[name] = scale / plain.square().sum(-1, keepdim=True)
            return frozen.scales[name] * gain * middle + bias

        return [
            (f"{name}.hook_in", lambda tensor, hook: given.__setitem__(name, tensor)),
            (f"{name}.hook_out", linear),
        ]

    hooks: list[tuple[str, Callable[..., Any]]] = [
        (f"blocks.{number}.attn.hook_pattern", pattern) for number in range(layer + 1)
    ]
    for name in _norms(model, layer):
        hooks += norm(name)
    hooks += [
        (site.post[number], lambda tensor, hook, number=number: leaf(number, tensor))
        for number in range(layer)
    ]
    hooks.append((site.pre[layer], lambda tensor, hook: see(tensor)))
    with model.hooks(fwd_hooks=hooks):
        yield


def _attribute(
    model: Any, site: NeuronSite, batch: Batch, target: tuple[int, int], *, check: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Edges [row, layer, neuron] and arguments [row], summed over the counted tokens of each row.

    Raises:
        ModelError: with all neurons halved, the argument is not what the edges say.
    """
    layer, neuron = target
    leaves: dict[int, torch.Tensor] = {}
    seen: list[torch.Tensor] = []
    shape, frozen = batch.tokens.shape, _Frozen()

    def fresh(number: int, post: torch.Tensor) -> torch.Tensor:
        leaves[number] = post.detach().requires_grad_()
        return leaves[number]

    def see(pre: torch.Tensor) -> None:
        seen.append(pre.reshape(*shape, -1)[..., neuron])

    with torch.inference_mode(False), torch.enable_grad():
        ids = to_device(model, batch.tokens.clone())  # autograd refuses inference tensors
        with _holding(model, site, layer, frozen, fresh, see):
            model(ids, attention_mask=None, **least_logits(model))
        counted = batch.counted.to(seen[0].device)
        total = torch.where(counted, seen[0], 0.0).sum(dtype=torch.float64)
        kept = [leaves[number] for number in range(layer)]
        slopes = torch.autograd.grad(total, kept)
    products = [
        (post.detach() * slope).reshape(*shape, -1).sum(dim=1, dtype=torch.float64)
        for post, slope in zip(kept, slopes, strict=True)
    ]
    found = torch.stack([one.cpu() for one in products], dim=1)
    require_finite(found, "the edges between neurons")
    arguments = torch.where(counted, seen[0].detach(), 0.0).sum(1, dtype=torch.float64).cpu()
    if check:
        halves = {number: post.detach() / 2 for number, post in leaves.items()}
        with torch.inference_mode(), warnings.catch_warnings():
            # TransformerLens warns where it cannot hold a pattern; the difference then tells.
            warnings.filterwarnings("ignore", "A hook on .* returned a modified tensor")
            held = _Frozen(frozen.patterns, frozen.scales)
            with _holding(model, site, layer, held, lambda n, post: halves[n], see):
                model(ids, attention_mask=None, **least_logits(model))
        half = torch.where(counted, seen[1], 0.0).sum(1, dtype=torch.float64).cpu()
        off = (arguments - half - found.sum(dim=(1, 2)) / 2).abs().max()
        size = torch.where(counted, seen[0].detach().abs(), 0.0).sum(1).max().cpu()
        fine = kept[0].dtype in (torch.float32, torch.float64)
        if float(off / size.clamp(min=1e-30)) > (_TOLERANCE if fine else _COARSE):
            raise ModelError(
                f"with all neurons halved, the argument differs from what the edges say by "
                f"{float(off / size):.1%}: something beside patterns and norms is not linear "
                "(gated attention, patterns that TransformerLens cannot hold, hooks of yours), so "
                "there are no exact edges"
            )
    return found.numpy(), arguments.numpy()


@torch.inference_mode()
def _cut(
    model: Any, site: NeuronSite, batch: Batch, target: tuple[int, int], sources: np.ndarray
) -> np.ndarray:
    """By how much the argument is lower without each edge, summed over counted tokens: [source].

    The neurons of the layers after the source keep their values, so that nothing goes by them.
    """
    layer, neuron = target
    posts: dict[int, torch.Tensor] = {}
    counted, ids = batch.counted, to_device(model, batch.tokens)
    seen: list[float] = []

    def see(pre: torch.Tensor, hook: Any) -> None:
        own = pre.reshape(*batch.tokens.shape, -1)[..., neuron]
        seen.append(float(torch.where(counted.to(own.device), own, 0.0).sum(dtype=torch.float64)))

    def run(act: Callable[[int, torch.Tensor], torch.Tensor | None]) -> None:
        hooks: list[tuple[str, Callable[..., Any]]] = [
            (site.post[number], lambda tensor, hook, number=number: act(number, tensor))
            for number in range(layer)
        ]
        with model.hooks(fwd_hooks=[*hooks, (site.pre[layer], see)]):
            model(ids, attention_mask=None, **least_logits(model))

    run(lambda number, post: posts.__setitem__(number, post.clone()))
    for source in sources:
        number, place = divmod(int(source), site.d_mlp)
        without = posts[number].clone()
        without[..., place] = 0
        run(lambda n, post, number=number, without=without: without if n == number else posts[n])
    return seen[0] - np.array(seen[1:])
