"""Direct logit attribution: what neurons add to a logit by themselves, past all later layers.

The residual stream before the final norm is a sum, and neuron j of layer l adds h_j * W_out[j] to
it. With the scale of every norm kept as it is in the pass ("frozen"), the logits are linear in that
sum. So at position t the neuron adds to the logit of a token v, less the mean over the vocabulary,

    h_j(t) * W_out[j] @ n_l(t) @ n_final(t) @ (W_U[:, v] - mean over v' of W_U[:, v'])

where n_final is the frozen final norm (centring where it centres, gain and scale), and n_l the norm
between the MLP and the stream where there is one (Gemma 2 and 3, OLMo 2). The mean is taken off
because a constant added to all logits changes no probability. With `tokens` v's column is the mean
of theirs at every position; else v is the true next token.

>>> importance(model, corpus, method="direct", tokens=ids)               # doctest: +SKIP

What this does not show: what later layers make of the neuron, which for early layers is nearly
all; and what a norm's scale would do without it. A softcap on the logits (Gemma 2) is left out, and
so is a factor that a model applies to all of its MLPs or to its logits alike (Granite, Cohere):
there the values are right up to that factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from lensneurons.cards.vocabulary import linear_part, plain_forward
from lensneurons.errors import LensNeuronsError, ModelError, shown
from lensneurons.interventions.patching import residual_name
from lensneurons.models.family import unwrap
from lensneurons.models.forward import least_logits, to_device
from lensneurons.models.offload import in_memory
from lensneurons.models.running import require_finite
from lensneurons.models.sites import NeuronSite
from lensneurons.shapes import LayerSums
from lensneurons.tokens.batches import Batch

DirectSums = Callable[[Any, NeuronSite, Batch], LayerSums]


@torch.inference_mode()
def direct_sums(model: Any, tokens: Sequence[int] | None = None) -> DirectSums:
    """The function that sums the direct attribution over the predicted tokens of a batch.

    Args:
        model: a TransformerLens model.
        tokens: ids whose mean logit is attributed; None for the true next token.

    Returns:
        ``sums(model, site, batch)``: float64 [layer, neuron], in logits.

    Raises:
        LensNeuronsError: no tokens, or ids outside the vocabulary.
        ModelError: the model rescales its stream between layers, or embeds its vocabulary in other
            dimensions than its stream has.
    """
    size = int(model.cfg.d_vocab)
    ids = None if tokens is None else np.atleast_1d(np.array(tokens, dtype=object)).tolist()
    if ids is not None and not (ids and all(_is_id(one, size) for one in ids)):
        raise LensNeuronsError(
            f"tokens={shown(tokens)}: give one id or more, each from 0 to {size - 1}"
        )
    if any(hasattr(unwrap(block), "layer_scalar") for block in model.blocks):
        raise ModelError(
            "this model rescales its residual stream after each layer, so nothing is added to its "
            "logits directly: take another method"
        )
    with in_memory(getattr(model, "unembed", None)):
        columns = model.W_U  # [d_model, vocabulary]
        if columns.shape[0] != int(model.cfg.d_model):
            raise ModelError(
                f"the vocabulary is read from {columns.shape[0]} dimensions and the residual "
                f"stream has {model.cfg.d_model}: models that project between the two are not "
                "supported"
            )
        middle = columns.mean(dim=1)
        wanted = None if ids is None else columns[:, ids].mean(dim=1) - middle

    def directions(following: torch.Tensor) -> torch.Tensor:
        """[token, d_model]: what is read of the final norm's output at each position."""
        if wanted is not None:
            return wanted.expand(len(following), -1)
        with in_memory(getattr(model, "unembed", None)):
            return model.W_U[:, following.to(middle.device)].T - middle

    def sums(model: Any, site: NeuronSite, batch: Batch) -> LayerSums:
        return _sums(model, site, batch, directions)

    return sums


def _is_id(one: Any, size: int) -> bool:
    whole = isinstance(one, int | np.integer) and not isinstance(one, bool)
    return whole and 0 <= int(one) < size


@torch.inference_mode()
def _sums(
    model: Any,
    site: NeuronSite,
    batch: Batch,
    directions: Callable[[torch.Tensor], torch.Tensor],
) -> LayerSums:
    """Sum of h * (W_out @ direction) over the positions that predict a counted token."""
    predicted, shape = batch.predicted, batch.tokens.shape
    posts: dict[int, torch.Tensor] = {}
    final: list[torch.Tensor] = []

    def at_positions(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.reshape(*shape, -1)[:, :-1][predicted.to(tensor.device)]

    hooks: list[tuple[str, Callable[..., None]]] = [
        (name, lambda tensor, hook, n=n: posts.__setitem__(n, at_positions(tensor)))
        for n, name in enumerate(site.post)
    ]
    hooks.append(
        (residual_name(site.n_layers - 1), lambda tensor, hook: final.append(at_positions(tensor)))
    )
    with model.hooks(fwd_hooks=hooks):
        model(to_device(model, batch.tokens), **least_logits(model))
    if not final or len(posts) != site.n_layers:
        raise LensNeuronsError(
            f"hook_post came from {len(posts)} of {site.n_layers} layers, and "
            f"{residual_name(site.n_layers - 1)} {'once' if final else 'never'}"
        )
    read = directions(batch.tokens[:, 1:][predicted])
    read = _frozen(getattr(model, "ln_final", None), final[0], read)
    found = []
    for layer in range(site.n_layers):
        block, post = model.blocks[layer], posts[layer]
        norm = getattr(block, "ln2_post", None)
        with in_memory(block.mlp, norm):
            rows = block.mlp.W_out
            bias = getattr(block.mlp, "b_out", None)
            written = post @ rows + (0 if bias is None else bias)
            added = post * (_frozen(norm, written, read).to(post) @ rows.T)
        require_finite(added, "what neurons add to the logits")
        found.append(added.sum(dim=0, dtype=torch.float64).cpu().numpy())
    return np.stack(found)


def _frozen(norm: Any, given: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """What reading `read` [token, d_model] of a norm's output reads of its input.

    Args:
        norm: a norm of the bridge; None for no norm.
        given: [token, d_model], its inputs, at whose scales it is frozen.
        read: directions of its output.
    """
    if norm is None:
        return read.to(given)
    with in_memory(norm):
        gain, bias, centres = linear_part(norm, given[0])
        place = gain.device
        given, read = given.to(place), read.to(place, gain.dtype)
        normed = plain_forward(norm)(given[None])[0] - bias
    # The scale is a number a position: that by which the gain times the (centred) input is off.
    linear = gain * (given - given.mean(dim=-1, keepdim=True) if centres else given)
    scale = (normed * linear).sum(-1, keepdim=True) / linear.square().sum(-1, keepdim=True)
    read = scale * gain * read
    return read - read.mean(dim=-1, keepdim=True) if centres else read
