"""Where the heads of one layer look, token by token, every token named.

For every head h of a layer and every pair of tokens

    A[h, i, j] = softmax over j <= i of (q_i . k_j / scale)        hook_pattern

A row is the token that looks (destination), a column the token that is looked at (source); a row
adds up to 1. The tokens are named by the whole characters that they touch (`characters`).

>>> import lensneurons as ln
>>> ln.views.attention(model, "She has 3 apples.", 2)                     # doctest: +SKIP
>>> texts = ["She has 3 apples.", "小明有3个苹果。"]                        # doctest: +SKIP
>>> ln.views.attention(model, texts, 2, labels=["en", "zh"]).save("a.html")   # doctest: +SKIP

The page draws with a few lines of its own: the usual libraries leave names out where tokens are
many, and have no dark ground. Its cells have one colour whose opacity is the root of the weight,
so they show on any ground, that of a dark notebook too. Names are written as text, never as HTML.
The kind of view is Vig's (2019, arXiv 1906.05714).

What this does not show: what the model uses. A large weight on a token is no proof that the token
matters (Jain and Wallace 2019, arXiv 1902.10186); the first token often gets what a head has left
over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import numpy as np
import torch
from jaxtyping import Float32

from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.attention_patterns import ROW_TOLERANCE, pattern_hooks
from lensneurons.models.family import model_family
from lensneurons.models.forward import to_device
from lensneurons.models.running import runs_model
from lensneurons.options import plain_options
from lensneurons.plots.labels import plain
from lensneurons.tokens.characters import TextTokens, token_labels
from lensneurons.views.page import View, label_of, read_texts, render, visible

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

# A number takes about 7 bytes of the page, and a browser draws each as a rectangle.
MOST_NUMBERS = 500_000
_LONGEST = 14  # characters of a token's name on an axis


@dataclass(frozen=True, eq=False)
class TextAttention:
    """One text of a view.

    Attributes:
        label: what stands above it; a BCP-47 tag such as ``"th"`` is taken for its language.
        read: the text and its tokens.
        pattern: float32 [head, destination, source], the heads that are shown.
    """

    label: str
    read: TextTokens
    pattern: Float32[np.ndarray, "head destination source"]

    @property
    def tokens(self) -> tuple[str, ...]:
        """The names of the tokens; see `characters.token_labels`."""
        return token_labels(self.read, plain)


@dataclass(frozen=True, eq=False, repr=False)
class AttentionView(View):
    """The attention patterns of some heads of one layer of a model, over one or more texts."""

    texts: tuple[TextAttention, ...]
    layer: int
    heads: tuple[int, ...]
    model: str
    SCRIPTS: ClassVar[bool] = True

    @property
    def title(self) -> str:
        """Layer and model."""
        return f"attention of layer {self.layer} in {plain(self.model)}"

    def to_pandas(self) -> pd.DataFrame:
        """One row a head and pair of tokens; sources behind their destination are left out."""
        import pandas as pd

        tables = []
        for number, text in enumerate(self.texts):
            names = np.array(text.tokens, object)
            later, earlier = np.tril_indices(len(names))
            columns = {
                "head": np.repeat(self.heads, len(later)),
                "destination": np.tile(later, len(self.heads)),
                "source": np.tile(earlier, len(self.heads)),
                "destination_token": np.tile(names[later], len(self.heads)),
                "source_token": np.tile(names[earlier], len(self.heads)),
                "attention": text.pattern[:, later, earlier].ravel(),
            }
            tables.append(pd.DataFrame({"text": number, "label": text.label, **columns}))
        return pd.concat(tables, ignore_index=True)

    def __repr__(self) -> str:
        lengths = ", ".join(str(len(text.read.ids)) for text in self.texts)
        return (
            f"AttentionView(layer {self.layer}, {len(self.heads)} heads; texts of {lengths} tokens)"
        )

    def _repr_html_(self) -> str:
        texts = [_shown(text, self.heads) for text in self.texts]
        element = f"lensneurons-attention-{uuid4().hex}"
        return render("attention.html.jinja", view=self, texts=texts, element=element)


@plain_options
@runs_model
def attention(
    model: Any,
    texts: str | Sequence[str],
    layer: int,
    *,
    heads: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    most_numbers: int = MOST_NUMBERS,
) -> AttentionView:
    """Look at the attention patterns of a layer.

    Args:
        model: a TransformerLens model; it is not changed, and hooks that are on it act.
        texts: a text, or several to show side by side.
        layer: which block.
        heads: which heads; None takes all.
        labels: a label for each text; language tags are best.
        tokenizer: by default the model's own, as it was saved.
        most_numbers: largest view: the sum over the texts of heads x tokens x tokens.

    Returns:
        The view; a notebook shows it.

    Raises:
        ModelError: no TransformerLens model, or one without attention patterns in this layer.
        CorpusError: a text is longer than the model's context.
        LensNeuronsError: no such layer or head, no text, an empty text, or a view larger than
            `most_numbers`.
    """
    model_family(model)
    (name,) = pattern_hooks(model, [layer])
    n_heads = int(model.cfg.n_heads)
    chosen = tuple(range(n_heads) if heads is None else heads)
    if not chosen or not set(chosen) <= set(range(n_heads)) or len(set(chosen)) < len(chosen):
        raise LensNeuronsError(
            f"heads={list(chosen)}: give each of the heads 0 to {n_heads - 1} once, at least one"
        )
    names, read = read_texts(model, texts, labels, tokenizer)
    lengths = [len(one.ids) for one in read]
    numbers = len(chosen) * sum(length**2 for length in lengths)
    if numbers > most_numbers:
        raise LensNeuronsError(
            f"{len(chosen)} heads x texts of {', '.join(map(str, lengths))} tokens are "
            f"{numbers:,} numbers to draw, but most_numbers={most_numbers:,}: shorten the texts, "
            "choose heads=[...], or raise most_numbers"
        )
    patterns = [_pattern(model, name, one)[list(chosen)] for one in read]
    shown = (TextAttention(*parts) for parts in zip(names, read, patterns, strict=True))
    return AttentionView(tuple(shown), layer, chosen, str(model.cfg.model_name))


def _pattern(model: Any, name: str, read: TextTokens) -> Float32[np.ndarray, "head to from"]:
    """The patterns of one text; raise unless the hook fires once and holds causal attention."""
    seen: list[torch.Tensor] = []
    options = {"logits_to_keep": 1} if model_family(model) == "bridge" else {"return_type": None}
    keep = [(name, lambda tensor, hook: seen.append(tensor.detach()))]
    with model.hooks(fwd_hooks=keep), torch.inference_mode():
        model(to_device(model, torch.tensor([read.ids])), **options)
    shape = (1, int(model.cfg.n_heads), len(read.ids), len(read.ids))
    if len(seen) != 1 or seen[0].shape != shape:
        raise ModelError(
            f"{name} fired {len(seen)} times, with shapes {[tuple(s.shape) for s in seen]}; once "
            f"with {shape} is expected"
        )
    pattern = seen[0][0].float().cpu().numpy()
    # The hook may hold something else, such as scores before the softmax.
    ahead, rows = float(np.abs(np.triu(pattern, 1)).max()), pattern.sum(-1)
    if not (pattern.min() >= 0 and ahead == 0 and np.abs(rows - 1).max() <= ROW_TOLERANCE):
        raise ModelError(
            f"{name} holds no causal attention: rows add up to {rows.min():.3g} to "
            f"{rows.max():.3g}, the smallest entry is {pattern.min():.3g} and the largest on a "
            f"later token {ahead:.3g}; remove other hooks, or report the architecture"
        )
    return pattern


def _shown(text: TextAttention, heads: tuple[int, ...]) -> dict[str, Any]:
    """One text for the template."""
    label, language = label_of(text.label)
    short = (name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in text.tokens)
    return {
        "label": label,
        "language": language,
        "shown": visible(text.read.text),
        "drawing": {
            "attention": [[[round(float(v), 4) for v in row] for row in h] for h in text.pattern],
            "tokens": [*short],
            "heads": [f"H{head}" for head in heads],
        },
    }
