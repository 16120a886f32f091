"""Experiments on language neurons: each runs a model many times, and gives one value to look at."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
