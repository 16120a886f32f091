"""Languages: their codes, scripts and names, and the detection of a text's language."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
