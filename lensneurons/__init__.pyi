from . import intervals as intervals
from . import plots as plots
from .activations import collect as collect
from .corpora import Item as Item
from .corpora import ParallelCorpus as ParallelCorpus
from .corpora import build_corpus as build_corpus
from .corpora import load_corpus as load_corpus
from .errors import LensNeuronsError as LensNeuronsError
from .identification import identify as identify
from .intervals import bootstrap as bootstrap
from .intervals import bootstrap_difference as bootstrap_difference
from .intervals import jackknife as jackknife
from .models import load_model as load_model
from .neuron_sets import NeuronSet as NeuronSet
from .neurons import LanguageNeurons as LanguageNeurons
from .phases import LayerParts as LayerParts
from .phases import divide_layers as divide_layers
from .published import read_published_counts as read_published_counts
from .published import read_published_mask as read_published_mask
from .sites import neuron_site as neuron_site
from .sites import verify_neuron_hooks as verify_neuron_hooks
from .statistics import ActivationStatistics as ActivationStatistics

__version__: str
