from .adapters import demo_adapters as demo_adapters
from .loading import load_model as load_model
from .sites import neuron_site as neuron_site
from .sites import verify_neuron_hooks as verify_neuron_hooks
