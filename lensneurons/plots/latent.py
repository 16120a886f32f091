"""In whose words each layer has the item: leads of the latent languages, and entropy, by layer.

>>> ln.plots.lens_languages(read)                                          # doctest: +SKIP

What it does not show: a lead near 0 is no proof of absence; early layers are read poorly. Languages
whose words are in fewer pieces have larger leads, so compare the layers of one line.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from lensneurons.experiments.latent_languages import LensLanguages
from lensneurons.plots.labels import entities, full_name, headed
from lensneurons.plots.numbers import counted, with_ends
from lensneurons.plots.panels import Look, level_line, line_with_band, stack
from lensneurons.plots.style import GREY, frame, language_colour

_MOST = 6  # languages that are drawn
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")


def lens_languages(read: LensLanguages) -> go.Figure:
    """Draw the lead of the latent languages and the entropy of the lens by layer.

    Args:
        read: what `lensneurons.experiments.lens_languages` gives.

    Returns:
        Above, the leads of up to six languages, those with the largest first, over texts in all
        other languages, with 95% bands over items; below, the entropy and its band.

    Raises:
        LensNeuronsError: fewer than two items, which have no interval.
    """
    leads = {code: read.lead(code, pooled=True) for code in read.languages}
    best = sorted(leads, key=lambda code: -float(np.nanmax(leads[code].estimate)))
    layers = np.arange(len(read.entropies))
    figure, height = stack([240, 130], gap=34)
    for number, code in enumerate(best[:_MOST]):
        look = Look(language_colour(code), _DASHES[number], _SYMBOLS[number])
        name = entities(f"{full_name(code)}")
        drawn = line_with_band(layers, leads[code], name=name, number=".4f", look=look)
        figure.add_traces(drawn, rows=1, cols=1)
    entropy = read.entropy(pooled=True)
    look = Look(GREY, "solid", "circle")
    figure.add_traces(
        line_with_band(layers, entropy, name="entropy", number=".2f", look=look), rows=2, cols=1
    )
    level_line(figure, 1)
    figure.update_yaxes(title="lead over another item's<br>words, probability", row=1)
    figure.update_yaxes(title="entropy,<br>nats", rangemode="tozero", row=2)
    figure.update_xaxes(title="layer", row=2)
    figure.update_layout(hovermode="x unified")
    first = leads[best[0]]
    layer = int(np.nanargmax(first.estimate))
    middle, low, high = (float(one[layer]) for one in (first.estimate, first.low, first.high))
    ends = with_ends(middle, low, high)
    title = f"No layer has an item's words in another language than that of the text: {ends}"
    if low > 0:
        title = (
            f"Layer {layer} has an item's words in {full_name(best[0])} most, while it reads other "
            f"languages: {ends}"
        )
    more = len(best) - _MOST
    notes = [
        headed(read.provenance, "logit lens on parallel texts, by the words of the translation"),
        f"Probability of the words of the item's own translation less that of another item's, over "
        f"texts in all other languages; {counted(len(set(read.item_ids)), 'item')}, bands: 95% "
        "over items",
        f"The largest of {len(layers) * len(best)} leads is named; of so many intervals, one in "
        "forty lies above 0 by chance",
        *([f"{counted(more, 'language')} with smaller leads are not drawn"] if more > 0 else []),
    ]
    return frame(figure, title, notes, plot_height=height, legend=True)
