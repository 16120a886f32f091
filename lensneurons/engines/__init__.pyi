from .choice import Engine as Engine
from .choice import RayEngine as RayEngine
