"""Figures: functions that turn the values of this package into plotly figures, never shown here.

Each figure has a title that is true of the data in it, a subtitle with population, tau and lambda,
and hover texts with the exact numbers. Title, notes and findings are also data, in
``figure.layout.meta``. `style` holds the visual language, `labels` makes text safe, `numbers` says
how numbers are written, `panels` holds what figures draw alike.

>>> import lensneurons as ln
>>> figure = ln.plots.overlap(ln.load_sample("gemma-3-270m").neurons)
>>> figure.show()                                                          # doctest: +SKIP
>>> ln.plots.save_figure(figure, "overlap.html")                           # doctest: +SKIP
"""

from lensneurons.plots.ablation import ablation_effects
from lensneurons.plots.attention import attention_shares
from lensneurons.plots.comparison import (
    checkpoint_series,
    class_changes,
    histogram_change,
    language_changes,
    transitions,
)
from lensneurons.plots.couplings import coupling, language_coupling
from lensneurons.plots.curves import alignment_curves, steering_curve
from lensneurons.plots.edges import neuron_edges
from lensneurons.plots.files import figure_fragment, save_figure
from lensneurons.plots.labels import escape_label
from lensneurons.plots.languages import neuron_map, neuron_probabilities, overlap
from lensneurons.plots.latent import lens_languages
from lensneurons.plots.methods import (
    importance_agreement,
    method_effects,
    method_layers,
    method_overlap,
)
from lensneurons.plots.profile import language_histogram, layer_profile, layer_profiles
from lensneurons.plots.streams import carry_over, lens_curves
from lensneurons.plots.style import in_theme, language_colour
from lensneurons.plots.verdicts import claims

__all__ = [
    "ablation_effects",
    "alignment_curves",
    "attention_shares",
    "carry_over",
    "checkpoint_series",
    "claims",
    "coupling",
    "class_changes",
    "escape_label",
    "figure_fragment",
    "histogram_change",
    "importance_agreement",
    "in_theme",
    "language_changes",
    "language_colour",
    "language_coupling",
    "language_histogram",
    "layer_profile",
    "layer_profiles",
    "lens_curves",
    "lens_languages",
    "neuron_edges",
    "method_effects",
    "method_layers",
    "method_overlap",
    "neuron_map",
    "neuron_probabilities",
    "overlap",
    "save_figure",
    "steering_curve",
    "transitions",
]
