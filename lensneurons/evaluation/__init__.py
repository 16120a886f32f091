"""What a model says: likelihood of texts, answers written, and whether they are right."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
