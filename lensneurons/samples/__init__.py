"""Measured statistics of real models, small enough to come with the package: no model is needed.

>>> import lensneurons as ln
>>> sample = ln.load_sample("gemma-3-270m")
>>> sample.statistics.n_groups
10

`load_sample` gives the counts of a model with the neurons, parts, effects, lens curves and cards
that were measured on it; `published_profile` the layer profile of the model of the paper.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
