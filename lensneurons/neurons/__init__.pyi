from .identification import identify as identify
from .language_neurons import LanguageNeurons as LanguageNeurons
from .parts import LayerParts as LayerParts
from .parts import divide_layers as divide_layers
from .published import read_published_counts as read_published_counts
from .published import read_published_mask as read_published_mask
from .published import write_published_mask as write_published_mask
from .sets import NeuronSet as NeuronSet
