from .collection import collect as collect
from .statistics import ActivationStatistics as ActivationStatistics
