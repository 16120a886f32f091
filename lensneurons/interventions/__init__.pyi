from .editing import ablate as ablate
from .editing import scale as scale
from .editing import steer as steer
from .patching import patch as patch
