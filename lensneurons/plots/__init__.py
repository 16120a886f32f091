"""Figures: pure functions from the values of this package to plotly figures, never shown here.

Each has a title that is true of the data in it, a subtitle with population, tau and lambda, and
hover with the exact numbers. `style` holds the visual language, `labels` makes text safe.

>>> ln.plots.layer_profile(neurons, parts).show()                          # doctest: +SKIP
>>> ln.plots.save_figure(ln.plots.overlap(neurons), "overlap.html")        # doctest: +SKIP
"""

from lensneurons.plots.alignments import alignment_curves
from lensneurons.plots.class_lines import checkpoint_series, class_changes
from lensneurons.plots.comparison import histogram_change, transitions
from lensneurons.plots.effects import ablation_effects
from lensneurons.plots.files import figure_fragment, save_figure
from lensneurons.plots.forest import claims, language_changes
from lensneurons.plots.histogram import language_histogram
from lensneurons.plots.labels import escape_label
from lensneurons.plots.layers import layer_profile
from lensneurons.plots.lens import lens_curves
from lensneurons.plots.maps import neuron_map
from lensneurons.plots.overlaps import overlap
from lensneurons.plots.patching import carry_over
from lensneurons.plots.single import neuron_probabilities
from lensneurons.plots.steering import steering_curve
from lensneurons.plots.style import in_theme, language_colour

__all__ = [
    "ablation_effects",
    "alignment_curves",
    "carry_over",
    "checkpoint_series",
    "claims",
    "class_changes",
    "escape_label",
    "figure_fragment",
    "histogram_change",
    "in_theme",
    "language_changes",
    "language_colour",
    "language_histogram",
    "layer_profile",
    "lens_curves",
    "neuron_map",
    "neuron_probabilities",
    "overlap",
    "save_figure",
    "steering_curve",
    "transitions",
]
