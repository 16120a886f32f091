"""Activations of chosen neurons on the counted tokens of a corpus, kept whole: for resampling.

Everything else in the package reduces activations inside the hook. Resampling needs the values
themselves, so this keeps ``tokens x neurons`` numbers of the neurons asked for: 10,000 tokens and
1,000 neurons take 40 MB. Give it a part of a large corpus.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float

from lensneurons.errors import LensNeuronsError
from lensneurons.models.expert_neurons import ExpertNeuronSite, halves_of
from lensneurons.models.forward import to_device, watching, watching_experts, watching_outputs
from lensneurons.models.linear_sites import LinearSite
from lensneurons.models.running import runs_model
from lensneurons.models.sites import NeuronSite
from lensneurons.options import plain_options
from lensneurons.shapes import NeuronIndices
from lensneurons.tokens.batches import make_batch
from lensneurons.tokens.prepared import PreparedCorpus, prepare

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lensneurons.corpora.corpus import ParallelCorpus

Recorded = Float[torch.Tensor, "token neurons"]
RecordedSite = NeuronSite | LinearSite | ExpertNeuronSite


@plain_options
@runs_model
def record_activations(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    layers: Mapping[int, NeuronIndices],
    *,
    site: RecordedSite | None = None,
    batch_tokens: int = 4096,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> dict[int, Recorded]:
    """Run a corpus and keep ``act_fn(hook_pre)`` of some neurons on its response tokens.

    Of neurons inside experts it is 0 on tokens that were sent elsewhere; of outputs of linear maps
    it is the value itself.

    Args:
        model: a TransformerLens model; hooks that are on it act.
        corpus: the texts, prepared or not.
        layers: layer to int64 indices of the neurons in it.
        site: where they are; None for the neurons of dense MLPs.
        batch_tokens: most tokens in a batch.
        tokenizer: encodes the corpus; by default the model's own, as it was saved.

    Returns:
        Layer to the activations [token, neuron]; the tokens are the same ones, in the same order,
        in every layer.

    Raises:
        CorpusError: a text is longer than the model's context.
        ModelError: not a TransformerLens model, or its tokenizer cannot be read.
    """
    prepared = prepare(model, corpus, tokenizer=tokenizer)
    encoded = prepared.encoded
    found: Any = site or prepared.site
    kept: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    counted = torch.zeros((0, 0), dtype=torch.bool)

    def keep(layer: int, values: torch.Tensor) -> None:
        values = values.reshape(counted.numel(), -1)[counted.reshape(-1).to(values.device)]
        kept[layer].append(values[:, layers[layer].to(values.device)])

    def watch(layer: int, pre: torch.Tensor) -> None:
        if layer in layers:
            keep(layer, pre)
            if isinstance(found, NeuronSite):
                kept[layer][-1] = found.activations[layer](kept[layer][-1])

    def watch_experts(layer: int, module: Any, x: torch.Tensor, indices: torch.Tensor) -> None:
        if layer not in layers:
            return
        values = torch.zeros(len(x), found.d_mlp, dtype=x.dtype, device=x.device)
        for expert in (layers[layer] // found.width).unique().tolist():
            tokens = (indices == expert).any(1).nonzero()[:, 0]
            own = slice(expert * found.width, (expert + 1) * found.width)
            values[tokens, own] = halves_of(module, x[tokens], expert)[0]
        keep(layer, values)

    if isinstance(found, ExpertNeuronSite):
        watched = watching_experts(model, found, watch_experts)
    elif isinstance(found, LinearSite):
        watched = watching_outputs(model, found, watch)
    else:
        watched = watching(model, found, watch)
    with watched as run:
        for rows in prepared.batches(batch_tokens):
            batch = make_batch(encoded, rows)
            counted = batch.counted
            run(to_device(model, batch.tokens), None)
    return {layer: torch.cat(parts) for layer, parts in kept.items()}


class ActivationDraws:
    """Recorded activations of random tokens, the same token for all neurons of a position.

    Args:
        recorded: what `record_activations` gives.
        seed: the same seed and the same passes give the same draws.
    """

    def __init__(self, recorded: Mapping[int, Recorded], seed: int) -> None:
        self.recorded = dict(recorded)
        self.random = torch.Generator().manual_seed(seed)
        self.first = min(self.recorded, default=0)
        self.drawn = torch.zeros((0, 0), dtype=torch.int64)

    def like(self, here: torch.Tensor, layer: int) -> torch.Tensor:
        """Activations for the positions of a pass.

        Args:
            here: [batch, pos, neurons], what they stand in for.
            layer: whose neurons; the first layer of a pass draws, the others follow.

        Returns:
            Activations of the shape, dtype and device of `here`.
        """
        values = self.recorded[layer]
        if layer == self.first:
            self.drawn = torch.randint(len(values), here.shape[:2], generator=self.random)
        if self.drawn.shape != here.shape[:2]:
            raise LensNeuronsError("the layers of one pass differ in batch or position")
        return values[self.drawn.to(values.device)].to(here)
