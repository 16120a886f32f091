from .groups import bootstrap as bootstrap
from .groups import bootstrap_difference as bootstrap_difference
from .groups import jackknife as jackknife
