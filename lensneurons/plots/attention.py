"""What the heads look at, language by language: those that treat languages most differently.

>>> ln.plots.attention_shares(shares, "special")                           # doctest: +SKIP

What it does not show: what a head does with it. A head of the list is there because its shares
differ; the row "every source alike" says how much they would differ by the texts alone.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from lensneurons.errors import LensNeuronsError, choose
from lensneurons.experiments.attention_shares import TARGETS, AttentionShares, Target
from lensneurons.plots.labels import entities, full_name, headed
from lensneurons.plots.numbers import counted, share
from lensneurons.plots.style import frame, language_ticks, ticks

_WORDS: dict[Target, str] = {
    "special": "BOS and other special tokens",
    "own": "letters of the text's own script",
    "foreign": "letters of other scripts",
    "digits": "digits",
    "rest": "punctuation, spaces and signs",
    "prompt": "the prompt",
    "response": "the response",
}
_ALIKE = "every source alike"


def attention_shares(
    shares: AttentionShares, target: Target = "special", *, heads: int = 12
) -> go.Figure:
    """Draw the heads whose attention to a target differs most among the languages.

    Args:
        shares: made by `lensneurons.experiments.attention_shares`.
        target: what is looked at.
        heads: how many heads to draw.

    Returns:
        A heat map of shares, head by language, with the share of a head that looks at every source
        alike in the first row.

    Raises:
        LensNeuronsError: no such target, fewer than one head, or texts in which languages cannot be
            compared (`AttentionShares.ranked`).
    """
    choose(target, TARGETS, "target")
    if heads < 1:
        raise LensNeuronsError(f"heads={heads}: give 1 or more")
    ranked = shares.ranked(target)
    table = ranked.head(heads)
    names = [f"L{layer}H{head}" for layer, head in table[["layer", "head"]].to_numpy()]
    values = shares.shares(target)[table["layer"], table["head"]]
    values = np.concatenate([shares.available(target)[None], values])
    rows = [_ALIKE, *names]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            zmin=0,
            zmax=float(values.max()) or 1.0,
            text=[[share(value) for value in row] for row in values],
            texttemplate="%{text}",
            customdata=[[[row, entities(full_name(k))] for k in shares.languages] for row in rows],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>share %{z:.4f}<extra></extra>",
            colorbar={"title": {"text": "share"}},
            name="shares",
        )
    )
    figure.update_xaxes(**language_ticks(shares.languages))
    ends = {"range": [len(rows) - 0.5, -0.5], "showgrid": False}
    figure.update_yaxes(**ticks(rows), **ends)
    differing = int(np.count_nonzero(ranked["p_adjusted"].to_numpy() < 0.05))
    first = table.iloc[0]
    least, most = (float(table[f"{end}_share"].to_numpy()[0]) for end in ("lowest", "highest"))
    title = f"No head's attention to {_WORDS[target]} differs among languages beyond chance"
    if differing:
        high, low = (full_name(str(first[end])) for end in ("highest", "lowest"))
        title = (
            f"{names[0]} gives {share(most)} of its attention to {_WORDS[target]} in {high}, "
            f"{share(least)} in {low}"
        )
    notes = [
        headed(shares.provenance, f"share of attention on {_WORDS[target]}"),
        f"{counted(differing, 'head')} of {len(ranked)} differ beyond shuffled languages (false "
        f"discovery rate .05); the {len(names)} with the largest spread, and a head that looks at "
        "every source alike",
    ]
    return frame(figure, title, notes, plot_height=34 * len(rows))
