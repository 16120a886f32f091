"""Figures: pure functions from the values of this package to plotly figures, never shown here.

Each has a title that is true of the data in it, a subtitle with population, tau and lambda, and
hover with the exact numbers. `style` holds the visual language, `labels` makes text safe.

>>> ln.plots.layer_profile(neurons, parts).show()                          # doctest: +SKIP
>>> ln.plots.save_figure(ln.plots.overlap(neurons), "overlap.html")        # doctest: +SKIP
"""

from lensneurons.plots.effects import ablation_effects
from lensneurons.plots.files import figure_fragment, save_figure
from lensneurons.plots.histogram import language_histogram
from lensneurons.plots.labels import escape_label
from lensneurons.plots.layers import layer_profile
from lensneurons.plots.maps import neuron_map
from lensneurons.plots.overlaps import overlap
from lensneurons.plots.patching import carry_over
from lensneurons.plots.single import neuron_probabilities
from lensneurons.plots.steering import steering_curve
from lensneurons.plots.style import in_theme, language_colour

__all__ = [
    "ablation_effects",
    "carry_over",
    "escape_label",
    "figure_fragment",
    "in_theme",
    "language_colour",
    "language_histogram",
    "layer_profile",
    "neuron_map",
    "neuron_probabilities",
    "overlap",
    "save_figure",
    "steering_curve",
]
