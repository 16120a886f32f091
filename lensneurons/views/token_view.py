"""A text coloured by a neuron, or by the mean of several, character by character.

For every token t of a text

    value(t) = mean over the neurons of act_fn(hook_pre)(t)

and every span of whole characters (`characters`) has the colour of the largest magnitude among the
tokens that touch it. One scale, centred on zero, serves all texts of a view.

>>> import lensneurons as ln
>>> texts = ["She has 3 apples.", "小明有3个苹果。"]                        # doctest: +SKIP
>>> ln.views.tokens(model, texts, "L3N17", labels=["en", "zh"])           # doctest: +SKIP
>>> ln.views.tokens(model, texts, neurons["zh"]).save("zh.html")          # doctest: +SKIP

The colours are those of changes in figures: orange above zero, blue below. Their opacity grows with
the magnitude, so the text keeps its contrast on a light and on a dark ground. A line under the text
says the same without colour: solid above zero, dotted below. There is no JavaScript.

What this does not show: why the neuron is active, or what follows from it. The tokens that the
tokenizer adds (BOS) stand for no character; their values are named below the text and do not set
the scale. In a mean over many neurons opposite values cancel out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float64

from lensneurons.errors import LensNeuronsError
from lensneurons.models.running import runs_model
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.neurons.sets import NeuronSet
from lensneurons.options import plain_options
from lensneurons.plots.labels import plain
from lensneurons.plots.numbers import signed
from lensneurons.tokens.characters import Span, TextTokens, bytes_note, bytes_told
from lensneurons.views.page import View, label_of, read_texts, render, visible
from lensneurons.views.watched import watch_chosen

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

COLUMNS = (
    "text", "label", "position", "token_id", "piece", "begin", "end", "characters", "activation",
)  # fmt: skip
# A token takes about 300 bytes of HTML; beyond some megabytes a notebook slows down.
MOST_TOKENS = 20_000
ABOVE, BELOW = (213, 94, 0), (42, 112, 174)
# Opacity at the ends of the scale. With it the text of JupyterLab, VS Code and Colab, light and
# dark, keeps a contrast of 4.5 : 1 or more.
OPACITY = 0.55
_LINE = 3  # pixels of the line under the text at the ends of the scale


@dataclass(frozen=True, eq=False)
class ColouredText:
    """One text of a view.

    Attributes:
        label: what stands above it; a BCP-47 tag such as ``"th"`` is taken for its language.
        read: the text, its tokens, and the spans of characters that they touch.
        activations: float64 [token], the value of each token.
    """

    label: str
    read: TextTokens
    activations: Float64[np.ndarray, " token"]

    @cached_property
    def values(self) -> tuple[float | None, ...]:
        """The value of largest magnitude among the tokens of each span; None if it has none."""
        own = ((float(self.activations[t]) for t in span.tokens) for span in self.read.spans)
        return tuple(max(values, key=abs, default=None) for values in own)


@dataclass(frozen=True, eq=False, repr=False)
class TokenView(View):
    """Texts of a model, coloured by the activation of a neuron, or by the mean of several."""

    texts: tuple[ColouredText, ...]
    neurons: NeuronSet
    model: str
    SCRIPTS: ClassVar[bool] = False

    @property
    def title(self) -> str:
        """What the colours mean, in words."""
        if len(self.neurons) == 1:
            return f"activation of {self.neurons.names[0]}"
        return f"mean activation of {len(self.neurons):,} neurons ({self.neurons.label})"

    @property
    def end(self) -> float:
        """The activation at the ends of the colour scale: the largest magnitude in any text."""
        return max((abs(v) for text in self.texts for v in text.values if v is not None), default=0)

    @property
    def start(self) -> float:
        """The activation at the low end: minus `end`, or 0 if no value is negative."""
        values = [v for text in self.texts for v in text.values if v is not None]
        return -self.end if min(values, default=0) < 0 else 0.0

    def to_pandas(self) -> pd.DataFrame:
        """One row a token, those that the tokenizer adds included.

        ``begin`` and ``end`` are the code points that it holds, ``characters`` all whole
        characters that it touches.
        """
        import pandas as pd

        rows = []
        for number, text in enumerate(self.texts):
            read = text.read
            touched = ["" for _ in read.ids]
            for span in read.spans:
                for place in span.tokens:
                    touched[place] += span.text
            # No table can hold a lone surrogate: ``\\ud800`` stands for one.
            shown = [one.encode("utf-8", "backslashreplace").decode("utf-8") for one in touched]
            columns = (range(len(shown)), read.ids, read.pieces, *zip(*read.offsets, strict=True))
            own = zip(*columns, shown, text.activations.tolist(), strict=True)
            rows += [(number, text.label, *row) for row in own]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def __repr__(self) -> str:
        tokens = sum(len(text.read.ids) for text in self.texts)
        return f"TokenView({self.title}; {len(self.texts)} texts, {tokens} tokens)"

    def _repr_html_(self) -> str:
        above, below = (f"rgba({','.join(map(str, c))},{OPACITY})" for c in (ABOVE, BELOW))
        return render(
            "tokens.html.jinja",
            view=self,
            texts=[_shown(text, self.end) for text in self.texts],
            bytes_note=bytes_note(piece for text in self.texts for piece in text.read.pieces),
            ticks=[signed(part, ".3g") for part in np.linspace(self.start, self.end, 5).tolist()],
            above=above,
            below=below,
        )


@plain_options
@runs_model
def tokens(
    model: Any,
    texts: str | Sequence[str],
    neurons: str | tuple[int, int] | NeuronSet,
    *,
    labels: Sequence[str] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    most_tokens: int = MOST_TOKENS,
) -> TokenView:
    """Colour texts by the activation of a neuron.

    Args:
        model: a TransformerLens model; it is not changed, and hooks that are on it act.
        texts: a text, or several to show side by side.
        neurons: a neuron (``"L3N17"``, or layer and index), or a set, whose mean is shown.
        labels: a label for each text; language tags are best.
        tokenizer: by default the model's own, as it was saved.
        most_tokens: longest view, in tokens.

    Returns:
        The view; a notebook shows it.

    Raises:
        ModelError: the model has no dense MLP neurons, or no tokenizer.
        CorpusError: a text is longer than the model's context.
        LensNeuronsError: neurons of another model, none at all, no text, an empty text, or more
            tokens than `most_tokens`.
    """
    site = neuron_site(model)
    if isinstance(neurons, NeuronSet):
        chosen = neurons
        if (chosen.n_layers, chosen.d_mlp) != (site.n_layers, site.d_mlp) or not len(chosen):
            raise LensNeuronsError(
                f"{chosen!r} (of a model of {chosen.n_layers} x {chosen.d_mlp}) holds no "
                f"neurons of this model of {site.n_layers} layers x {site.d_mlp} neurons"
            )
    else:
        name = neurons if isinstance(neurons, str) else "L{}N{}".format(*neurons)
        chosen = NeuronSet.from_names([name], n_layers=site.n_layers, d_mlp=site.d_mlp, label=name)
    names, read = read_texts(model, texts, labels, tokenizer)
    if (number := sum(len(one.ids) for one in read)) > most_tokens:
        raise LensNeuronsError(
            f"{number:,} tokens to show, but most_tokens={most_tokens:,}: show fewer or shorter "
            "texts, or raise most_tokens"
        )
    values = _activations(model, site, chosen, read)
    shown = (ColouredText(*parts) for parts in zip(names, read, values, strict=True))
    return TokenView(tuple(shown), chosen, str(model.cfg.model_name))


def _activations(
    model: Any, site: NeuronSite, neurons: NeuronSet, read: Sequence[TextTokens]
) -> list[np.ndarray]:
    """float64 [token] of each text: the mean of ``act_fn(hook_pre)`` over the neurons."""

    def total(layer: int, pre: torch.Tensor) -> torch.Tensor:
        return site.activations[layer](pre).double().sum(-1).cpu()

    seen = watch_chosen(model, site, neurons, read, total)
    return [(torch.stack(parts).sum(0) / len(neurons)).numpy() for parts in seen]


def shade(value: float | None, end: float) -> str:
    """An activation as CSS, on a scale up to `end`: colour and line; none for zero or no value."""
    share = min(abs(value) / end, 1.0) if value and end else 0.0
    if share < 0.005:
        return ""
    positive = value is not None and value > 0
    rgb, line = (ABOVE, "solid") if positive else (BELOW, "dotted")
    colour = ",".join(map(str, rgb))
    return (
        f"background-color:rgba({colour},{OPACITY * share:.3f});"
        f"border-bottom:{round(_LINE * share)}px {line} rgba({colour},0.9)"
    )


def _shown(text: ColouredText, end: float) -> dict[str, Any]:
    """One text for the template."""
    label, language = label_of(text.label)
    read = text.read
    numbers = [signed(value, ".3g") for value in text.activations.tolist()]
    spans = [*zip(read.spans, text.values, strict=True)]
    # Its size and where its value is largest, for readers who cannot hover.
    facts, known = f"{len(read.ids)} tokens", [(s, v) for s, v in spans if v is not None]
    if known:
        span, value = max(known, key=lambda pair: abs(pair[1]))
        strongest = f"strongest {signed(value, '.3g')} at “{plain(span.text)}”"
        facts += f", {strongest if value else '0 everywhere'}"

    def tooltip(span: Span, value: float | None) -> str:
        if value is None:
            return "no token holds this"
        told = (f"token {read.ids[p]} {named(read.pieces[p])} {numbers[p]}" for p in span.tokens)
        return "\n".join([signed(value, ".3g"), *told])

    def named(piece: str) -> str:
        held = bytes_told(piece)
        return f"“{plain(piece)}” ({held})" if held else f"“{plain(piece)}”"

    return {
        "label": label,
        "language": language,
        "facts": facts,
        "added": [f"{plain(read.pieces[place])} {numbers[place]}" for place in read.added],
        "spans": [
            (visible(span.text), shade(value, end), tooltip(span, value), "\n" in span.text)
            for span, value in spans
        ],
    }
