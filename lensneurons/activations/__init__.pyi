from .collection import collect as collect
from .items import ItemActivations as ItemActivations
from .items import item_activations as item_activations
from .merging import merge_statistics as merge_statistics
from .statistics import ActivationStatistics as ActivationStatistics
