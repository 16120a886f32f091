from .collection import collect as collect
from .items import ItemActivations as ItemActivations
from .items import item_activations as item_activations
from .merging import merge_statistics as merge_statistics
from .sign_differences import SignDifferences as SignDifferences
from .sign_differences import sign_differences as sign_differences
from .statistics import ActivationStatistics as ActivationStatistics
