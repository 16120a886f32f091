"""What a neuron says and hears in the words of the vocabulary, read from its weights alone.

Whenever neuron j of layer l is active, ``hook_post`` times its output row ``W_out[j]`` is added to
the residual stream. Read straight through the final norm and the unembedding (the direct
path; Geva et al. 2022, arXiv 2203.14680) it moves the logit of every token v by

    writes[v] = (gain * W_out[j]) @ W_U[:, v]            (the row centred first, where the norm is)

up to one positive factor, the scale of the norm, which depends on the text. So the order of the
tokens counts, not the size. Beside each value stands its distance from the mean over the
vocabulary in standard deviations; the largest of n such distances of a random row is about
``sqrt(2 ln n)`` (4.6 for 32,000 tokens), and what is not far beyond it says nothing.

In the other direction, the pre-activation that the bare embedding of token v would give:

    hears[v] = norm(W_E[v]) @ W_in[:, j]                 (W_gate where the MLP is gated)

>>> effect = promoted_tokens(model, "L12N345")           # doctest: +SKIP
>>> [token.text for token in effect.promoted]            # doctest: +SKIP

All products are made in float32 (in float64 for a float64 model). Those that could be among the
strongest by the bound of their rounding are made again in float64, so the lists are those of
float64 at a third of its time.

What this does not show: what later layers do with the row; after early layers it is nearly always
something else. In a gated MLP ``hook_post`` may be negative while the neuron is active: then
promoted and suppressed change places. And deep layers do not read bare embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64

from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.identity import once, one_call, original_tokenizer
from lensneurons.models.offload import in_memory
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.sets import flat_index
from lensneurons.options import plain_options
from lensneurons.tokens.characters import token_texts
from lensneurons.values.base import Overview, Shown

if TYPE_CHECKING:
    import pandas as pd
    import tokenizers
    from transformers import PreTrainedTokenizerBase

# Rows of the vocabulary at once: 1024 x 640 in float32 are 2.6 MB and stay in a cache.
_ROWS = 1024

VocabularyScores = Float64[np.ndarray, " vocabulary"]


@dataclass(frozen=True, slots=True)
class TokenValue:
    """One token of the vocabulary, and how strongly a neuron is tied to it.

    Attributes:
        id: its number in the vocabulary.
        text: its characters; a piece of a character as its bytes, such as ``"<E0 B8>"``.
        value: the dot product.
        deviation: distance of `value` from the mean over the vocabulary, in standard deviations.
    """

    id: int
    text: str
    value: float
    deviation: float


@dataclass(frozen=True, repr=False)
class VocabularyEffect(Shown):
    """What one neuron writes to the vocabulary, and what it hears. Made by `promoted_tokens`.

    Attributes:
        neuron: its name, such as ``"L12N345"``.
        promoted: tokens whose logits its output row raises most, the strongest first.
        suppressed: tokens whose logits it lowers most, the strongest first.
        heard: tokens whose bare embeddings give it the largest pre-activation.
        n_tokens: tokens that were compared.
    """

    neuron: str
    promoted: tuple[TokenValue, ...]
    suppressed: tuple[TokenValue, ...]
    heard: tuple[TokenValue, ...]
    n_tokens: int

    @property
    def chance(self) -> float:
        """``sqrt(2 ln n_tokens)``: about the largest deviation that a random row has."""
        return float(np.sqrt(2 * np.log(max(self.n_tokens, 1))))

    @property
    def lists(self) -> list[tuple[str, tuple[TokenValue, ...]]]:
        """What the neuron does (promotes, suppresses, hears), and its tokens where it has some."""
        names = {"promotes": self.promoted, "suppresses": self.suppressed, "hears": self.heard}
        return [(name, tokens) for name, tokens in names.items() if tokens]

    def to_pandas(self) -> pd.DataFrame:
        """One row a token: direction, rank, id, text, value, deviation.

        The direction is promoted, suppressed or heard.
        """
        import pandas as pd

        rows = [
            {"direction": direction, "rank": rank, **asdict(token)}
            for direction in ("promoted", "suppressed", "heard")
            for rank, token in enumerate(getattr(self, direction), start=1)
        ]
        return pd.DataFrame(rows, columns=["direction", "rank", "id", "text", "value", "deviation"])

    def _brief(self) -> str:
        up, down = (
            " ".join(repr(t.text) for t in ts[:5]) for ts in (self.promoted, self.suppressed)
        )
        return f"{self.neuron}: promotes {up}; suppresses {down}"

    def _overview(self) -> Overview:
        rows = [
            [f"{t.text!r} {t.deviation:+.1f}" if t else "" for t in row]
            for row in zip_longest(self.promoted, self.suppressed, self.heard)
        ]
        title = f"{self.neuron}: tokens, and standard deviations (chance: {self.chance:.1f})"
        return Overview(title, ("promotes", "suppresses", "hears"), rows)


@plain_options
def promoted_tokens(
    model: Any, neuron: str, *, k: int = 10, tokenizer: PreTrainedTokenizerBase | None = None
) -> VocabularyEffect:
    """Read the output row of a neuron, and its input column, in the words of the vocabulary.

    Args:
        model: a TransformerLens model; it is not run.
        neuron: its name, such as ``"L12N345"``.
        k: how many tokens in each list.
        tokenizer: names the tokens; None for the model's own, as it was saved.

    Returns:
        The k tokens that the neuron promotes most, suppresses most, and hears best. Rows of the
        unembedding that no token has (padding of the vocabulary) are left out; equal values are
        ordered by token id.

    Raises:
        ModelError: the model has no dense MLP neurons, or no tokenizer, or embeds its vocabulary
            in fewer dimensions than its residual stream has.
        LensNeuronsError: `neuron` is not in the model, or `k` is less than 1.
    """
    site = neuron_site(model)
    layer, index = divmod(flat_index(neuron, site.n_layers, site.d_mlp), site.d_mlp)
    if k < 1:
        raise LensNeuronsError(f"k={k} asks for no token; give 1 or more")
    with one_call():
        backend = getattr(tokenizer or original_tokenizer(model), "backend_tokenizer")  # noqa: B009
        writes, hears = _writing(model, layer, index), _hearing(model, layer, index)
        ids = _token_ids(backend)
        ids = ids[ids < len(writes.scores)]
        up, down = (_strongest(writes, ids, k, backend, sign=sign) for sign in (1, -1))
        return VocabularyEffect(
            neuron=f"L{layer}N{index}",
            promoted=up,
            suppressed=down,
            heard=_strongest(hears, ids, k, backend),
            n_tokens=len(ids),
        )


def _token_ids(backend: tokenizers.Tokenizer) -> np.ndarray:
    """The ids that have a token, in order. Asking for 262,000 of them takes half a second."""
    size = backend.get_vocab_size()
    return once(
        backend, "token ids", size, lambda: np.array(sorted(backend.get_vocab().values()), np.int64)
    )


@plain_options
def written_logits(model: Any, layer: int, neuron: int) -> VocabularyScores:
    """float64 [d_vocab]: what the output row of a neuron adds to each logit.

    Up to one positive factor that depends on the text. Of a model in float32 or less the products
    are float32.

    Where a norm stands between the MLP and the residual stream (Gemma 2 and 3, OLMo 2), the row
    goes through its gain as well.
    """
    return _writing(model, layer, neuron).scores


@plain_options
def heard_tokens(model: Any, layer: int, neuron: int) -> VocabularyScores:
    """float64 [d_vocab]: the pre-activation, less its bias, that each bare embedding would give.

    The norm before the MLP is applied exactly; attention, positions and earlier layers are not. Of
    a model in float32 or less the products are float32.
    """
    return _hearing(model, layer, neuron).scores


@torch.inference_mode()
def _writing(model: Any, layer: int, neuron: int) -> _Products:
    block = model.blocks[layer]
    norms = getattr(block, "ln2_post", None), getattr(model, "ln_final", None)
    with in_memory(block.mlp, *norms, getattr(model, "unembed", None)):
        row = block.mlp.W_out[neuron]
        for norm in norms:
            row = _through(norm, row)
        return _Products(model.W_U.T, row)


def _hearing(model: Any, layer: int, neuron: int) -> _Products:
    block = model.blocks[layer]
    # Blocks with attention and MLP side by side may share one norm; OLMo 2 has none before either.
    norm = getattr(block, "ln2", None) or getattr(block, "ln1", None)
    with in_memory(block.mlp, norm, getattr(model, "embed", None)):
        gate = block.mlp.W_gate if neuron_site(model).gated else block.mlp.W_in
        return _Products(model.W_E, gate[:, neuron], None if norm is None else plain_forward(norm))


def plain_forward(norm: Any) -> Any:
    """The forward function of a norm without its hooks, which are for passes of the model."""
    return getattr(norm, "original_component", norm).forward


def _through(norm: Any, row: torch.Tensor) -> torch.Tensor:
    """A direction through the linear part of a norm: centred where it centres, times its gain."""
    if norm is None:
        return row
    gain, _, centres = linear_part(norm, row)
    row = row.to(gain.device)
    return gain * (row - row.mean()) if centres else gain * row


def linear_part(norm: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Gain and bias of a norm, [d_model], and whether it centres its input.

    The gain is measured, not read: some norms store it less one (Gemma). Alternating signs have
    mean 0 and mean square 1, so every norm returns them times its gain, plus its bias.

    Args:
        norm: the bridge's module.
        like: [d_model], a tensor of the width and dtype of its input.
    """
    place = next(iter(norm.parameters()), like).device
    forward, signs = plain_forward(norm), torch.ones_like(like, device=place)
    signs[1::2] = -1
    bias = forward(torch.zeros_like(signs)[None, None])
    normed = forward(signs[None, None]) - bias
    # Where it centres, a constant added to its input changes nothing.
    shifted = forward((signs + 3)[None, None]) - bias
    centres = bool((shifted - normed).abs().max() < 0.1 * normed.abs().max())
    return (normed * signs)[0, 0], bias[0, 0], centres


class _Products:
    """The dot product of every row (through a norm, if any) with a direction.

    Attributes:
        scores: float64 [d_vocab], the products.
        margin: how far a score may be from its float64 value: the bound of a sum of n float32
            products, ``n * 2^-23 * |row| * |direction|``, for the longest row.
    """

    @torch.inference_mode()
    def __init__(
        self,
        rows: torch.Tensor,
        direction: torch.Tensor,
        norm: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        if rows.shape[1] != len(direction):
            raise ModelError(
                f"the vocabulary is embedded in {rows.shape[1]} dimensions and the residual stream "
                f"has {len(direction)}: models that project between the two (OPT-350m) are not "
                "supported"
            )
        self._rows, self._direction, self._norm = rows, direction, norm
        one = direction if rows.dtype == torch.float64 else direction.float()
        parts, longest = [], 0.0
        for part in rows.split(_ROWS):
            part = self._normed(part).to(one.dtype)
            parts.append((part @ one.to(part.device)).cpu())
            longest = max(longest, float(part.norm(dim=1).max()))
        self.scores: VocabularyScores = torch.cat(parts).double().numpy()
        self.margin = len(one) * torch.finfo(one.dtype).eps * float(one.norm()) * longest

    @torch.inference_mode()
    def exactly(self, ids: np.ndarray) -> VocabularyScores:
        """float64 [id]: the products of some rows."""
        found = []
        for some in torch.from_numpy(ids).to(self._rows.device).split(_ROWS):
            part = self._normed(self._rows[some]).double()
            found.append(part @ self._direction.double().to(part.device))
        return torch.cat(found).cpu().numpy()

    def _normed(self, part: torch.Tensor) -> torch.Tensor:
        return part if self._norm is None else self._norm(part[None])[0]


def _strongest(
    products: _Products, ids: np.ndarray, k: int, backend: tokenizers.Tokenizer, sign: int = 1
) -> tuple[TokenValue, ...]:
    """The k tokens with the largest (sign 1) or smallest (-1) products; equal ones by id."""
    values = products.scores[ids]
    mean, spread = values.mean(), max(float(values.std()), float(np.finfo(np.float64).tiny))
    signed = sign * values
    least = np.partition(signed, -min(k, len(ids)))[-min(k, len(ids))]
    near = ids[signed >= least - 2 * products.margin]  # two products may both be off
    exact = products.exactly(near)
    if (np.abs(exact - products.scores[near]) > products.margin).any():  # TF32 and its like
        near, exact = ids, products.exactly(ids)
    chosen = np.argsort(-sign * exact, kind="stable")[:k]
    texts = token_texts(backend, [int(near[place]) for place in chosen])
    return tuple(
        TokenValue(int(near[i]), text, float(exact[i]), float((exact[i] - mean) / spread))
        for i, text in zip(chosen, texts, strict=True)
    )
