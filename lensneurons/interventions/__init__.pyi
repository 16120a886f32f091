from .editing import ablate as ablate
from .editing import scale as scale
from .editing import steer as steer
from .experts import ablate_experts as ablate_experts
from .experts import steer_experts as steer_experts
from .export import export as export
from .patching import patch as patch
