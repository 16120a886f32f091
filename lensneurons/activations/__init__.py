"""From a model and a corpus to activation statistics: counted in the hook, resumable, additive."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
