"""How many neurons are active in half precision and not in float32, or the other way round.

    silenced[l, k] = counted tokens x neurons of layer l, language k, active in float32 alone
    roused[l, k]   = the same, active in half precision alone
    share          = (silenced + roused) / (counted tokens x neurons)

Counts are those of the model's own number format. bfloat16 has 8 bits of precision, so a
pre-activation that is near 0 may come out on its other side, and deeper layers read what earlier
ones rounded. A sample of a few thousand tokens shows how much that is.

>>> model = ln.load_model("demo", dtype="bfloat16")                      # doctest: +SKIP
>>> found = ln.activations.sign_differences(model, corpus.head(5))       # doctest: +SKIP
>>> found.share.mean()                                                   # doctest: +SKIP

What this does not show: which of the two is right about the language. Signs that differ cancel in
counts where as many neurons are roused as silenced; whether classes change, `identify` on counts of
both formats tells.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float64, Int64

from lensneurons.activations.reduction import fetch
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.forward import to_device, watching
from lensneurons.models.running import runs_model
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.models.views import has_hooks
from lensneurons.options import plain_options
from lensneurons.shapes import Tokens
from lensneurons.tokens.encoding import Scope
from lensneurons.tokens.prepared import PreparedCorpus, Texts, prepare
from lensneurons.values.base import Overview, Value, read_only
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HALF = (torch.float16, torch.bfloat16)
Signs = Int64[np.ndarray, "layer language"]


@dataclass(frozen=True, eq=False, repr=False)
class SignDifferences(Value):
    """Signs that differ between a model's own number format and float32, by layer and language.

    Attributes:
        languages: codes, in the order of the last axis.
        silenced: int64 [layer, language], pairs of a counted token and a neuron that is active
            there in float32 and not in the model's own format.
        roused: int64 [layer, language], the other way round.
        tokens: int64 [language], counted tokens.
        d_mlp: neurons a layer.
        provenance: of the model in its own format.
    """

    FILE_KIND: ClassVar = "differences of signs"
    AXES: ClassVar = {
        "silenced": ("layer", "language"),
        "roused": ("layer", "language"),
        "tokens": ("language",),
    }
    COORDINATES: ClassVar = {"language": "languages"}

    languages: tuple[str, ...]
    silenced: Signs
    roused: Signs
    tokens: Tokens
    d_mlp: int
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def share(self) -> Float64[np.ndarray, "layer language"]:
        """float64 [layer, language]: share of the signs that differ, in [0, 1]."""
        return read_only((self.silenced + self.roused) / (self.tokens * self.d_mlp))

    def _brief(self) -> str:
        differing = int((self.silenced + self.roused).sum())
        signs = int(self.tokens.sum()) * self.d_mlp * len(self.silenced)
        return (
            f"{self.provenance.dtype} against float32: {differing:,} of {signs:,} signs differ "
            f"({differing / signs:.3%})"
        )

    def _overview(self) -> Overview:
        rows = [(n, *(f"{one:.3%}" for one in layer)) for n, layer in enumerate(self.share)]
        return Overview(repr(self), ("layer", *self.languages), rows)


@plain_options
@runs_model
def sign_differences(
    model: Any,
    corpus: Texts,
    *,
    reference: Any = None,
    scope: Scope | None = None,
    batch_tokens: int = 512,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> SignDifferences:
    """Count the neurons whose activity differs between a model's half precision and float32.

    Args:
        model: a TransformerLens model in float16 or bfloat16, without hooks.
        corpus: a sample of texts, as `collect` takes them.
        reference: the model in float32. None makes a copy of `model` in float32, which takes twice
            its memory; its weights are then the rounded ones, and what differs is the arithmetic
            alone. ``load_model(..., dtype="float32")`` also shows what rounding the weights does.
        scope: which tokens count, as for `collect`.
        batch_tokens: most tokens in a batch, padding included. All signs of a batch are held: a
            byte for each token, layer and neuron.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.
        progress: show a progress bar, in texts.

    Raises:
        LensNeuronsError: the model is not in half precision, or there are hooks on it.
        ModelError: `reference` is in half precision, or has other layers.
        CorpusError: as `collect`.
    """
    dtype = next(iter(model.parameters())).dtype
    if dtype not in HALF:
        raise LensNeuronsError(
            f"the model is in {str(dtype).removeprefix('torch.')}, whose signs are what half "
            "precision is compared with: load_model(..., dtype='bfloat16') for this"
        )
    if has_hooks(model):
        raise LensNeuronsError(
            "there are hooks on the model, and its float32 copy would lack them: take them off, "
            "and compare the model as it is"
        )
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    site = prepared.site
    twin = _in_float32(model) if reference is None else reference
    _require_twin(twin, site)
    return _compare(twin, prepared, batch_tokens, progress=progress)


def _in_float32(model: Any) -> Any:
    """A copy of a model whose weights and constants are the same numbers in float32."""
    return copy.deepcopy(model).float()


def _require_twin(twin: Any, site: NeuronSite) -> None:
    theirs = neuron_site(twin)
    if next(iter(twin.parameters())).dtype in HALF:
        raise ModelError("reference is in half precision too: load it with dtype='float32'")
    if (theirs.n_layers, theirs.d_mlp) != (site.n_layers, site.d_mlp):
        raise ModelError(
            f"reference has {theirs.n_layers} layers x {theirs.d_mlp} neurons, and the model "
            f"{site.n_layers} x {site.d_mlp}: give the same model in float32"
        )


@runs_model
def _compare(
    twin: Any, prepared: PreparedCorpus, batch_tokens: int, *, progress: bool
) -> SignDifferences:
    model, encoded, site = prepared.model, prepared.encoded, prepared.site
    sites = {"own": site, "exact": neuron_site(twin)}
    shape = (site.n_layers, len(encoded.languages))
    silenced, roused = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    tokens = np.zeros(shape[1], np.int64)
    counted = torch.zeros((0, 0), dtype=torch.bool)
    own: list[torch.Tensor] = []
    found: list[torch.Tensor] = []

    def active(which: str, layer: int, pre: torch.Tensor) -> torch.Tensor:
        activation, sign_decides = sites[which].reading(layer)
        values = pre if sign_decides else activation(pre.float())
        return (values > 0) & counted.to(pre.device)[..., None]

    def keep(layer: int, pre: torch.Tensor) -> None:
        own.append(active("own", layer, pre))

    def compare(layer: int, pre: torch.Tensor) -> None:
        exact, ours = active("exact", layer, pre), own[layer].to(pre.device)
        found.append(torch.stack([(exact & ~ours).sum(), (ours & ~exact).sum()]))

    with watching(model, site, keep) as run, watching(twin, sites["exact"], compare) as run_exact:
        for batch in prepared.read(batch_tokens, "signs", progress=progress):
            counted, own, found = batch.counted, [], []
            run(to_device(model, batch.tokens), None)
            run_exact(to_device(twin, batch.tokens), None)
            k = encoded.languages.index(batch.language)
            both = np.array(fetch(found))
            silenced[:, k] += both[:, 0]
            roused[:, k] += both[:, 1]
            tokens[k] += batch.n_counted
    return SignDifferences(
        encoded.languages,
        read_only(silenced),
        read_only(roused),
        read_only(tokens),
        site.d_mlp,
        prepared.provenance(),
    )
