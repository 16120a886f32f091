"""From texts to token ids: encoded, sorted into batches, and which tokens count."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
