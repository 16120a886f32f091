"""One neuron looked at closely: its texts, its words, its importance, on one card."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
