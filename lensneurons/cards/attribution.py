"""How much each neuron matters for the texts of each language: five cheap measures.

With h_j = ``hook_post`` (what W_out reads) on the counted tokens of language k:

    "activation"           mean of |h_j|

    "plnd"                 mean of |h_j| * ||W_out[j]||                     (Zhao et al. 2024, PLND,
        how far removing the neuron moves its layer's output, exactly         arXiv 2402.18815)

    "direct"               mean, over the tokens that are predicted, of h_j * W_out[j] @ direction
        what the neuron alone adds to the logit of the true token, or of `tokens`
        (`lensneurons.cards.direct`)

    "activation_gradient"  sum of h_j * d NLL_k / d h_j
        NLL_k is the mean negative log-likelihood of the language's counted tokens, in nats a token.
        Scaling the activation by 1 + e on these tokens changes NLL_k by e times this, to first
        order; setting it to 0 by about minus this. Negative: the neuron helps.

    "integrated_gradients" sum of h_j * mean over s of (d NLL_k / d h_j where the layer has s * h)
        s runs through `steps` midpoints of 0 to 1 and scales all neurons of one layer, one layer
        at a time (Sundararajan et al. 2017, arXiv 1703.01365; by layers as Dai et al. 2022,
        arXiv 2104.08696, who take 20 right ends). The values of a layer add up to NLL_k less
        NLL_k with the layer at 0 on these tokens, the better the more steps.

The first three take a pass without logits, the gradient one of both directions, integrated
gradients ``layers * steps`` of them.

>>> found = importance(model, corpus, method="activation_gradient")      # doctest: +SKIP
>>> found.top("zh", 100)      # those with the largest |value|           # doctest: +SKIP

What this does not show: what removing a neuron does. Length is not use: what a later layer ignores
counts in full. The direct path leaves out all that later layers make of a neuron. A gradient is
exact for small changes only, and a saturated neuron has one near 0 whatever it does; a whole layer
at half its size is a state that the model never is in. `importance_agreement` removes neurons one
by one, and says which of these measures ranks them as the removal does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float64

from lensneurons.cards.agreement import FIRST_ORDER
from lensneurons.cards.direct import direct_sums
from lensneurons.errors import CorpusError, LensNeuronsError, choose
from lensneurons.evaluation.likelihood import fitting
from lensneurons.models.forward import least_logits, to_device
from lensneurons.models.offload import in_memory
from lensneurons.models.running import require_finite, runs_model
from lensneurons.models.sites import NeuronSite
from lensneurons.models.views import has_hooks
from lensneurons.neurons.sets import NeuronSet, flat_index
from lensneurons.options import plain_options
from lensneurons.shapes import FlatNeurons, LayerSums, Logits, TokenIds
from lensneurons.tokens.batches import Batch
from lensneurons.tokens.encoding import Scope
from lensneurons.tokens.prepared import Texts, prepare
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

Method = Literal["activation", "plnd", "direct", "activation_gradient", "integrated_gradients"]
UNITS = {
    "activation": "mean |activation|, a token",
    "plnd": "length added to the residual stream, a token",
    "direct": "logits, a token",
    "activation_gradient": "nats a token",
    "integrated_gradients": "nats a token",
}
STEPS = 4  # of integrated gradients
# Which way the NLL goes, as far as a measure says it, where a neuron of positive value is removed.
SIGNS = {"direct": 1.0, "activation_gradient": -1.0, "integrated_gradients": -1.0}


@dataclass(frozen=True, eq=False, repr=False)
class Importance(Value):
    """How much every neuron matters in every language. Made by `importance`.

    Attributes:
        languages: codes, in the order of the last axis.
        value: float64 [layer, neuron, language].
        method: one of `Method`; `UNITS` says what a value is in.
        provenance: where the values come from.
    """

    FILE_KIND = "importance"
    AXES = {"value": ("layer", "neuron", "language")}
    COORDINATES = {"language": "languages"}

    languages: tuple[str, ...]
    value: Float64[np.ndarray, "layer neuron language"]
    method: str
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        choose(self.method, get_args(Method), "method")
        if self.value.shape[-1] != len(self.languages):
            raise LensNeuronsError(f"{len(self.languages)} languages do not fit {self.value.shape}")
        super().__post_init__()

    def of(self, neuron: str) -> dict[str, float]:
        """Language to the value of one neuron.

        Raises:
            LensNeuronsError: the neuron is not in the model.
        """
        place = flat_index(neuron, *self.value.shape[:2])
        return dict(zip(self.languages, self._flat[place].tolist(), strict=True))

    def predicted(self, neuron: str) -> dict[str, float]:
        """Language to the change of the mean NLL that setting one neuron to 0 is predicted to make,
        in nats a token: minus its value. `cards.method_agreement` says what it is worth.

        Raises:
            LensNeuronsError: the neuron is not in the model, or the method predicts no effect.
        """
        choose(self.method, ("activation_gradient", "integrated_gradients"), "method")
        return {language: -value for language, value in self.of(neuron).items()}

    def rank(self, neuron: str) -> dict[str, int]:
        """Language to the place of one neuron among all of the model by |value|; 1 is first."""
        size, place = np.abs(self._flat), flat_index(neuron, *self.value.shape[:2])
        larger = np.count_nonzero(size > size[place], axis=0)
        return {k: int(n) + 1 for k, n in zip(self.languages, larger, strict=True)}

    @plain_options
    def top(self, language: str, n: int) -> NeuronSet:
        """The n neurons with the largest |value| in a language; equal ones by index.

        Raises:
            LensNeuronsError: the language is not there, or there are not n neurons.
        """
        choose(language, self.languages, "language")
        if not 1 <= n <= len(self._flat):
            raise LensNeuronsError(f"n={n}: give 1 to {len(self._flat)}, the model's neurons")
        n_layers, d_mlp, _ = self.value.shape
        return NeuronSet(self._order(language)[:n], n_layers, d_mlp, f"{self.method} {language}")

    def _order(self, language: str) -> FlatNeurons:
        """All neurons, the largest |value| in a language first."""
        size = np.abs(self._flat[:, self.languages.index(language)])
        return np.argsort(-size, kind="stable")

    @property
    def _flat(self) -> np.ndarray:
        """float64 [layer * neuron, language]."""
        return self.value.reshape(-1, len(self.languages))

    def to_pandas(self) -> pd.DataFrame:
        """One row a neuron and language: name, layer, neuron, language, value."""
        import pandas as pd

        layer, neuron, k = (axis.ravel() for axis in np.indices(self.value.shape))
        names = [f"L{i}N{j}" for i, j in zip(layer, neuron, strict=True)]
        table = {"name": names, "layer": layer, "neuron": neuron}
        table["language"] = np.array(self.languages, dtype=object)[k]
        return pd.DataFrame({**table, "value": self.value.ravel()})

    def _brief(self) -> str:
        layers, width, _ = self.value.shape
        size = f"{layers} layers x {width} neurons"
        return f"{self.method}: {size} in {' '.join(self.languages)}; {UNITS[self.method]}"

    def _overview(self) -> Overview:
        rows = []
        for k, language in enumerate(self.languages):
            best = [divmod(i, self.value.shape[1]) for i in self._order(language)[:5]]
            told = (f"L{i}N{j} {self.value[i, j, k]:.4g}" for i, j in best)
            rows.append((language, ", ".join(told)))
        title = f"{self!r}. {FIRST_ORDER}" if self.method == "activation_gradient" else repr(self)
        return Overview(title, ("language", "largest"), rows)


@plain_options
@runs_model
def importance(
    model: Any,
    corpus: Texts,
    *,
    method: Method = "plnd",
    steps: int | None = None,
    tokens: Sequence[int] | None = None,
    scope: Scope | None = None,
    batch_tokens: int = 1024,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = False,
) -> Importance:
    """Measure how much every neuron matters for the counted tokens of every language.

    Args:
        model: a TransformerLens model; weights, gradients and hooks stay as they are, and hooks
            that are on it act.
        corpus: the texts: a corpus, prepared or not, a text, or a list of texts.
        method: see the module: ``"activation"``, ``"plnd"``, ``"direct"``,
            ``"activation_gradient"`` or ``"integrated_gradients"``.
        steps: of integrated gradients, for each layer; None for 4.
        tokens: ids of the tokens whose mean logit ``"direct"`` is about, at every position, such as
            those of a language; None for the true next token of each position.
        scope: which tokens count, as for `collect`; both the activations and the NLL are theirs.
        batch_tokens: most tokens in a batch, padding included; fewer where the vocabulary is large.
            The gradient keeps a whole batch in memory, every layer of it.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.
        progress: show a progress bar, in texts.

    Returns:
        One value a neuron and language.

    Raises:
        ModelError: the model has no dense MLP neurons, or no tokenizer.
        CorpusError: texts without counted tokens, too long, or none that can be predicted.
        LensNeuronsError: an unknown method, or a hook that does not fire.
    """
    choose(method, get_args(Method), "method")
    given = {"steps": ("integrated_gradients", steps), "tokens": ("direct", tokens)}
    for name, (reader, value) in given.items():
        if value is not None and method != reader:
            raise LensNeuronsError(f"{name}= needs method={reader!r}, not {method!r}")
    if steps is not None and steps < 1:
        raise LensNeuronsError(f"steps={steps}: give 1 or more")
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    site, encoded = prepared.site, prepared.encoded
    counted = encoded.predicted if method in SIGNS else encoded.stop - encoded.start
    n_tokens = np.zeros(len(encoded.languages), np.int64)
    np.add.at(n_tokens, encoded.language, counted)
    if empty := [k for k, n in zip(encoded.languages, n_tokens, strict=True) if n == 0]:
        raise CorpusError(f"no counted token of {empty} has a token before it to be predicted from")
    measure: Callable[[Any, NeuronSite, Batch], LayerSums] = {
        "activation_gradient": _gradient_sums,
        "integrated_gradients": partial(_integrated_sums, steps=steps or STEPS),
        "direct": direct_sums(model, tokens) if method == "direct" else None,
    }.get(method, _length_sums)
    sums = np.zeros((site.n_layers, site.d_mlp, len(encoded.languages)))
    for batch in prepared.read(fitting(model, batch_tokens), method, progress=progress):
        sums[..., encoded.languages.index(batch.language)] += measure(model, site, batch)
    if method == "plnd":
        with torch.inference_mode():
            rows = torch.stack([_lengths(block.mlp) for block in model.blocks])
        require_finite(rows, "the norms of the rows of W_out")
        sums *= rows.numpy()[..., None]
    provenance = replace(prepared.provenance(), hook="hook_post", attention="eager")
    return Importance(encoded.languages, sums / n_tokens, method, provenance)


def _length_sums(model: Any, site: NeuronSite, batch: Batch) -> LayerSums:
    """Sum of |h| over the counted tokens of a batch, float64 [layer, neuron]."""
    sums: dict[int, np.ndarray] = {}

    def reduce(layer: int, post: torch.Tensor) -> None:
        sums[layer] = _sum_counted(post.abs(), batch)

    with torch.inference_mode(), model.hooks(fwd_hooks=_on_post(site, reduce)):
        model(to_device(model, batch.tokens), **least_logits(model))
    return _by_layer(sums, site)


def _lengths(mlp: Any) -> torch.Tensor:
    """float64 [neuron]: the norms of the rows of W_out."""
    with in_memory(mlp):
        return mlp.W_out.double().norm(dim=1).cpu()


def _gradient_sums(model: Any, site: NeuronSite, batch: Batch) -> LayerSums:
    """Sum of h * dNLL/dh over the counted tokens of a batch, float64 [layer, neuron].

    NLL is the sum over the batch here. Only the gradients of h are taken: weights keep theirs.
    """
    posts: dict[int, torch.Tensor] = {}

    def keep(layer: int, post: torch.Tensor) -> torch.Tensor:
        # OPT's hook sees only a copy, but every model goes on with what the hook returns. Where no
        # weight requires a gradient, the graph begins here.
        fresh = post.view_as(post) if post.requires_grad else post.detach().requires_grad_()
        return posts.setdefault(layer, fresh)

    with torch.inference_mode(False), torch.enable_grad():
        ids = to_device(model, batch.tokens.clone())  # autograd refuses inference tensors
        with model.hooks(fwd_hooks=_on_post(site, keep)):
            loss = _summed_nll(model(ids, return_type="logits"), ids, batch.predicted)
        kept = [posts[layer] for layer in sorted(posts)]
        slopes = torch.autograd.grad(loss, kept, allow_unused=True)
    # Somebody's hook may cut a layer off; nothing else can.
    if any(slope is None for slope in slopes) and not has_hooks(model):
        raise LensNeuronsError(
            "the NLL does not depend on hook_post of some layer: the hook saw a copy of what the "
            "model reads; please report this architecture"
        )
    sums = {}
    for layer, slope in zip(sorted(posts), slopes, strict=True):
        product = posts[layer].detach() * (0.0 if slope is None else slope)
        sums[layer] = _sum_counted(product, batch)
    return _by_layer(sums, site)


def _integrated_sums(model: Any, site: NeuronSite, batch: Batch, *, steps: int) -> LayerSums:
    """Sum of h * (mean of dNLL/dh at `steps` midpoints), float64 [layer, neuron].

    On the counted tokens all neurons of one layer have s * h, and the other layers follow.
    """
    shares = (np.arange(steps) + 0.5) / steps
    sums: dict[int, np.ndarray] = {}
    for layer in range(site.n_layers):
        slopes = [_slopes_at(model, site, batch, layer, float(share)) for share in shares]
        sums[layer] = np.mean(slopes, axis=0)
    return _by_layer(sums, site)


def _slopes_at(
    model: Any, site: NeuronSite, batch: Batch, layer: int, share: float
) -> Float64[np.ndarray, " neuron"]:
    """Sum over the counted tokens of h * dNLL/dh where the layer has a share of its h."""
    held: list[torch.Tensor] = []

    def shrink(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        post = tensor.detach()
        inside = batch.counted.to(post.device).reshape(*post.shape[:-1], 1)
        torch.set_grad_enabled(True)  # the layers before need no graph; `enable_grad` restores it
        held.extend([post, torch.where(inside, share * post, post).requires_grad_()])
        return held[1]

    with torch.inference_mode(False), torch.enable_grad():
        ids = to_device(model, batch.tokens.clone())
        torch.set_grad_enabled(False)
        with model.hooks(fwd_hooks=[(site.post[layer], shrink)]):
            loss = _summed_nll(model(ids, return_type="logits"), ids, batch.predicted)
        if not held:
            raise LensNeuronsError(f"{site.post[layer]} did not fire")
        (slope,) = torch.autograd.grad(loss, held[1:], allow_unused=True)
    return _sum_counted(held[0] * (0.0 if slope is None else slope), batch)


def _summed_nll(
    logits: Logits, ids: TokenIds, predicted: Bool[torch.Tensor, "batch next"]
) -> torch.Tensor:
    """NLL of the predicted tokens, in nats."""
    predicted = predicted.to(logits.device)
    chosen = logits[:, :-1][predicted]
    chosen = chosen if chosen.dtype == torch.float64 else chosen.float()
    targets = ids[:, 1:].to(logits.device)[predicted]
    return torch.nn.functional.cross_entropy(chosen, targets, reduction="sum")


def _on_post(site: NeuronSite, act: Callable[[int, torch.Tensor], Any]) -> list[tuple[str, Any]]:
    """Hooks that call ``act(layer, post)``; what it returns takes the place of hook_post."""
    return [
        (name, lambda tensor, hook, layer=layer: act(layer, tensor))
        for layer, name in enumerate(site.post)
    ]


def _sum_counted(values: torch.Tensor, batch: Batch) -> np.ndarray:
    """Sum over the counted tokens, float64 [neuron]; OPT flattens batch and position."""
    values = values.reshape(*batch.tokens.shape, -1)
    counted = batch.counted.to(values.device)
    require_finite(values[counted], "the activations and gradients")
    return values[counted].sum(dim=0, dtype=torch.float64).cpu().numpy()


def _by_layer(sums: dict[int, np.ndarray], site: NeuronSite) -> LayerSums:
    """Stack the layers in order; raise unless each was seen and is d_mlp wide."""
    if len(sums) != site.n_layers or any(len(row) != site.d_mlp for row in sums.values()):
        raise LensNeuronsError(
            f"hook_post came from {len(sums)} of {site.n_layers} layers, "
            f"{sorted({len(row) for row in sums.values()})} wide (d_mlp is {site.d_mlp})"
        )
    return np.stack([sums[layer] for layer in range(site.n_layers)])
