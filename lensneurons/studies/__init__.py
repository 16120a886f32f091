"""Whole studies of a model: every step of the analysis, planned, resumable, and written down."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
