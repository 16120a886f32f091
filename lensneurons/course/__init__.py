"""What the notebooks of the course share: their start, the checks of the exercises, two figures.

>>> from lensneurons import course
>>> course.begin()                                                        # doctest: +SKIP
>>> course.check_class_of(lambda n, k: "specific")
✗ Not yet. `class_of(0, 2)` gives `'specific'`. Read the table again.

A check gets the answer, and what it needs to know the right one. Its reply shows itself in a
notebook; ``reply.right`` says whether the answer was right.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
