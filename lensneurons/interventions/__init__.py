"""Changing a model while it runs: ablation, scaling, steering and patching, as context managers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
