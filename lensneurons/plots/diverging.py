"""Colours of a change, better or worse: centred on zero, on a light and on a dark ground.

Worse is orange and better is blue in every figure, whichever sign it has; the two can be told apart
with any colour-vision deficiency, and the middle is that of the ground. The scale belongs to the
templates, so a figure that uses `colour_changes` follows its theme.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io

from lensneurons.plots.notes import MINUS
from lensneurons.plots.style import TEMPLATES

_SCALES = {
    "light": ["#0f4582", "#2a70ae", "#8fbfe0", "#f6f7f9", "#f3b183", "#d55e00", "#8a3800"],
    "dark": ["#a5cdf0", "#4d97c9", "#1d4a76", "#20252d", "#77370d", "#dd6c15", "#ffbe8c"],
}
_UNEVEN = 8  # largest change over that of the weakest panel, from which colours go by the root
_YARDSTICK = 3  # the scale reaches at least so many times the largest control
_KEY = 50  # pixels that the key of the colours takes

for _theme, _colours in _SCALES.items():
    _steps = [[i / (len(_colours) - 1), colour] for i, colour in enumerate(_colours)]
    TEMPLATES[_theme].update(layout={"colorscale": {"diverging": _steps}})
plotly.io.templates["lensneurons"] = TEMPLATES["light"]
plotly.io.templates["lensneurons_dark"] = TEMPLATES["dark"]


def needs_root(panels: list[np.ndarray]) -> bool:
    """Whether the panels differ so much that an even scale would leave one without colour."""
    tops = [_largest(panel) for panel in panels]
    return max(tops) > _UNEVEN * min(tops) > 0


def end_of_scale(effects: list[np.ndarray], controls: list[np.ndarray]) -> float:
    """The change at the ends of a scale on which effects like those of the controls stay pale."""
    most = max(map(_largest, effects))
    return max(most, _YARDSTICK * max(map(_largest, controls))) or 1.0


def on_scale(changes: np.ndarray, root: bool) -> np.ndarray:
    """Where changes stand on the scale, float32: as they are, or their signed square roots."""
    placed = np.sign(changes) * np.sqrt(np.abs(changes)) if root else changes
    return np.asarray(placed, np.float32)


def colour_changes(
    figure: go.Figure, most: float, title: str, *, root: bool, up_is_worse: bool, bottom: int
) -> None:
    """Give a figure one colour axis for all its panels, with its key at the bottom.

    Args:
        figure: the figure, changed in place; its cells name ``"coloraxis"``.
        most: change at the ends of the scale.
        title: what changes, with its unit.
        root: whether colours go by the signed square root.
        up_is_worse: whether a positive change is orange, or a negative one.
        bottom: pixels below the panels.
    """
    end = float(on_scale(np.array(most), root))
    figure.add_annotation(
        text=title + (" (colours by the square root)" if root else ""), x=0.5, xref="paper",
        y=0, yref="paper", yshift=_KEY - bottom, yanchor="bottom", showarrow=False,
    )  # fmt: skip
    key = {
        "orientation": "h",
        "thickness": 10,
        "outlinewidth": 0,
        "len": 0.6,
        "x": 0.5,
        "yref": "container",
        "y": 0.0,
        "yanchor": "bottom",
        "ticklen": 0,
        **(_root_ticks(most) if root else {"nticks": 7}),
    }
    figure.update_layout(
        coloraxis={
            "autocolorscale": True,
            "reversescale": not up_is_worse,
            "cmin": -end,
            "cmax": end,
            "colorbar": key,
        }
    )


def _root_ticks(most: float) -> dict[str, Any]:
    """Both ends, their quarters and sixteenths, and zero: evenly spaced by the root."""
    parts = np.array([-1, -1 / 4, -1 / 16, 0, 1 / 16, 1 / 4, 1]) * most
    texts = [f"{abs(part):.2g}" for part in parts]
    signs = [MINUS if part < 0 else "+" if part > 0 else "" for part in parts]
    labels = [sign + text for sign, text in zip(signs, texts, strict=True)]
    return {"tickvals": on_scale(parts, True), "ticktext": labels}


def _largest(changes: np.ndarray) -> float:
    known = np.abs(changes[np.isfinite(changes)])
    return float(known.max(initial=0.0))
