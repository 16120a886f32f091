"""Language neurons: sets, scores, the bar tau, classes, published files, and layer parts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
