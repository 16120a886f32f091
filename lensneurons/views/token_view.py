"""The token view as HTML: one span for each run of characters, its numbers in its tooltip.

The colours are those of changes in figures (`plots.diverging`): orange above zero, blue below, and
nothing at zero. They are laid over the page with an opacity that grows with the magnitude, so that
the text keeps its own colour and its contrast on a light and on a dark ground. A line under the
text says the same without colour: solid above zero, dotted below, thicker with the magnitude.

Colours stand in the style of each span, where no notebook's clean-up loses them; the rest of the
style sheet names the class ``lensneurons-tokens`` in every rule. There is no JavaScript.

A text coloured by a neuron, or by the mean of several, character by character.

For every token t of a text

    value(t) = mean over the neurons of act_fn(hook_pre)(t)

and every span of whole characters (`characters`) has the colour of the largest magnitude among the
tokens that touch it. One scale, centred on zero, serves all texts of a view.

>>> import lensneurons as ln
>>> texts = ["She has 3 apples.", "小明有3个苹果。"]                        # doctest: +SKIP
>>> ln.views.tokens(model, texts, "L3N17", labels=["en", "zh"])           # doctest: +SKIP
>>> ln.views.tokens(model, texts, neurons["zh"]).save("zh.html")          # doctest: +SKIP

What this does not show: why the neuron is active, or what follows from it. The tokens that the
tokenizer adds (BOS) stand for no character; their values are named below the text and do not set
the scale. In a mean over many neurons opposite values cancel out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.forward import to_device, watching
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.neurons.sets import NeuronSet
from lensneurons.plots.labels import plain
from lensneurons.plots.notes import MINUS
from lensneurons.shapes import TokenValues
from lensneurons.tokens.characters import Span, TextTokens
from lensneurons.values.files import replacing
from lensneurons.views.inputs import label_texts, read_texts
from lensneurons.views.pages import label_of, render, visible

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


COLUMNS = (
    "text", "label", "position", "token_id", "piece", "begin", "end", "characters", "activation",
)  # fmt: skip
# A token takes about 300 bytes of HTML; beyond some megabytes a notebook slows down.
MOST_TOKENS = 20_000


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
    activations: TokenValues

    def value(self, span: Span) -> float | None:
        """The value of largest magnitude among the tokens of a span; None where it has none."""
        if not span.tokens:
            return None
        return max((float(self.activations[place]) for place in span.tokens), key=abs)

    @cached_property
    def values(self) -> tuple[float | None, ...]:
        """The value of each span."""
        return tuple(map(self.value, self.read.spans))


@dataclass(frozen=True, eq=False, repr=False)
class TokenView:
    """Texts coloured by the activation of a neuron, or by the mean of several.

    Attributes:
        texts: the texts, their tokens and values.
        neurons: the neurons.
        model: name of the model.
    """

    texts: tuple[ColouredText, ...]
    neurons: NeuronSet
    model: str

    @property
    def what(self) -> str:
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
        """The activation at the low end: minus `end`, or 0 where no value is negative."""
        values = [v for text in self.texts for v in text.values if v is not None]
        return -self.end if min(values, default=0) < 0 else 0.0

    def to_pandas(self) -> pd.DataFrame:
        """One row a token, those that the tokenizer adds included.

        ``begin`` and ``end`` are the code points that it holds, ``characters`` all whole
        characters that it touches.
        """
        import pandas as pd

        rows = [
            (number, text.label, *row)
            for number, text in enumerate(self.texts)
            for row in _token_rows(text)
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def html(self) -> str:
        """A whole page that needs neither a network nor JavaScript."""
        from lensneurons.views.token_view import token_page

        return token_page(self)

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all, and return its path."""
        with replacing(path) as temporary:
            temporary.write_text(self.html(), encoding="utf-8")
        return Path(path)

    def __repr__(self) -> str:
        tokens = sum(len(text.read.ids) for text in self.texts)
        return f"TokenView({self.what}; {len(self.texts)} texts, {tokens} tokens)"

    def _repr_html_(self) -> str:
        from lensneurons.views.token_view import token_fragment

        return token_fragment(self)


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
    chosen = _chosen(neurons, site)
    read = read_texts(model, texts, tokenizer)
    names = label_texts(labels, len(read))
    if (number := sum(len(one.ids) for one in read)) > most_tokens:
        raise LensNeuronsError(
            f"{number:,} tokens to show, but most_tokens={most_tokens:,}: show fewer or shorter "
            "texts, or raise most_tokens"
        )
    values = _activations(model, site, chosen, read)
    shown = (ColouredText(*parts) for parts in zip(names, read, values, strict=True))
    return TokenView(tuple(shown), chosen, str(model.cfg.model_name))


def _chosen(neurons: str | tuple[int, int] | NeuronSet, site: NeuronSite) -> NeuronSet:
    """The neurons as a set, once they are of this model."""
    if isinstance(neurons, NeuronSet):
        if (neurons.n_layers, neurons.d_mlp) != (site.n_layers, site.d_mlp) or not len(neurons):
            raise LensNeuronsError(
                f"{neurons!r} (of a model of {neurons.n_layers} x {neurons.d_mlp}) holds no "
                f"neurons of this model of {site.n_layers} layers x {site.d_mlp} neurons"
            )
        return neurons
    name = neurons if isinstance(neurons, str) else "L{}N{}".format(*neurons)
    return NeuronSet.from_names([name], n_layers=site.n_layers, d_mlp=site.d_mlp, label=name)


def _activations(
    model: Any, site: NeuronSite, neurons: NeuronSet, read: Sequence[TextTokens]
) -> list[np.ndarray]:
    """float64 [token] of each text: the mean of ``act_fn(hook_pre)`` over the neurons."""
    layers = {layer: torch.from_numpy(chosen) for layer, chosen in neurons.by_layer().items()}
    parts: list[torch.Tensor] = []

    def watch(layer: int, pre: torch.Tensor) -> None:
        if layer in layers:
            here = pre.detach()[0][:, layers[layer].to(pre.device)].float()
            parts.append(site.activation(here).double().sum(-1).cpu())

    values = []
    with watching(model, site, watch) as run:
        for one in read:
            parts.clear()
            run(to_device(model, torch.tensor([one.ids])), None)
            if len(parts) != len(layers):
                raise ModelError(f"hook_pre of {len(layers)} layers fired {len(parts)} times")
            values.append((torch.stack(parts).sum(0) / len(neurons)).numpy())
    return values


def _token_rows(text: ColouredText) -> list[tuple[object, ...]]:
    """Position, id, piece, begin, end, characters and activation of each token."""
    read = text.read
    touched = ["" for _ in read.ids]
    for span in read.spans:
        for place in span.tokens:
            touched[place] += span.text
    places = range(len(read.ids))
    shown = [_storable(characters) for characters in touched]
    columns = (places, read.ids, read.pieces, *zip(*read.offsets, strict=True), shown)
    return list(zip(*columns, text.activations.tolist(), strict=True))


def _storable(text: str) -> str:
    r"""A text without lone surrogates, which no table can hold: ``\ud800`` stands for one."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


ABOVE, BELOW = (213, 94, 0), (42, 112, 174)
# Opacity at the ends of the scale. With it the text of JupyterLab, VS Code and Colab, light and
# dark, keeps a contrast of 4.5 : 1 or more.
OPACITY = 0.55
_LINE = 3  # pixels of the line under the text at the ends of the scale


def token_fragment(view: TokenView) -> str:
    """The view as a piece of HTML for a notebook or a larger page."""
    return render("tokens.html.jinja", view=view, **_parts(view))


def token_page(view: TokenView) -> str:
    """The view as a whole page; its policy lets it load nothing and run nothing."""
    return render("page.html.jinja", title=view.what, body=token_fragment(view), scripts=False)


def number(value: float) -> str:
    """An activation to three digits with its sign: ``"+1.24"``, ``"−0.0312"``, ``"0"``."""
    sign = "+" if value > 0 else MINUS if value < 0 else ""
    return f"{sign}{abs(value):.3g}"


def shade(value: float | None, end: float) -> str:
    """The colour and the line of a value, as CSS; nothing for zero or no value.

    Args:
        value: an activation.
        end: the activation at the ends of the scale.
    """
    share = min(abs(value) / end, 1.0) if value and end else 0.0
    if share < 0.005:
        return ""
    red, green, blue = ABOVE if value and value > 0 else BELOW
    line = "solid" if value and value > 0 else "dotted"
    return (
        f"background-color:rgba({red},{green},{blue},{OPACITY * share:.3f});"
        f"border-bottom:{round(_LINE * share)}px {line} rgba({red},{green},{blue},0.9)"
    )


def _parts(view: TokenView) -> dict[str, Any]:
    """What the template shows beside the view itself."""
    return {
        "texts": [_text(text, view.end) for text in view.texts],
        "ticks": [number(part) for part in np.linspace(view.start, view.end, 5).tolist()],
        "above": f"rgba({','.join(map(str, ABOVE))},{OPACITY})",
        "below": f"rgba({','.join(map(str, BELOW))},{OPACITY})",
    }


def _text(text: ColouredText, end: float) -> dict[str, Any]:
    """One text for the template."""
    label, language = label_of(text.label)
    return {
        "label": label,
        "language": language,
        "facts": _facts(text),
        "added": [
            f"{plain(text.read.pieces[p])} {number(float(text.activations[p]))}"
            for p in text.read.added
        ],
        "spans": [
            (visible(span.text), shade(value, end), _tooltip(text, span), "\n" in span.text)
            for span, value in zip(text.read.spans, text.values, strict=True)
        ],
    }


def _facts(text: ColouredText) -> str:
    """The size of a text and where its value is largest, for readers who cannot hover."""
    pairs = zip(text.values, text.read.spans, strict=True)
    shown = [(value, span) for value, span in pairs if value is not None]
    if not shown:
        return f"{len(text.read.ids)} tokens"
    value, span = max(shown, key=lambda pair: abs(pair[0]))
    where = f"strongest {number(value)} at “{plain(span.text)}”" if value else "0 everywhere"
    return f"{len(text.read.ids)} tokens, {where}"


def _tooltip(text: ColouredText, span: Span) -> str:
    """The value of a span, and the id, piece and activation of every token that touches it."""
    value = text.value(span)
    if value is None:
        return "no token holds this"
    lines = [
        f"token {text.read.ids[place]} “{plain(text.read.pieces[place])}” "
        f"{number(float(text.activations[place]))}"
        for place in span.tokens
    ]
    return "\n".join([number(value), *lines])
