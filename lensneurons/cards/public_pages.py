"""The public page of a neuron, where somebody publishes one for every neuron of the model.

Two are documented, and only they are linked; nothing is fetched:

* GPT-2 small: Neuronpedia, whose source of plain MLP neurons is the number of the layer. Its
  documentation shows ``https://www.neuronpedia.org/gpt2-small/6/200``
  (docs.neuronpedia.org, "Scores"; ``isNeuronLayerSource`` in its code).
* GPT-2 XL: the viewer of Bills et al. 2023, *Language models can explain neurons in language
  models*; route ``/layers/:layer/neurons/:neuron`` (openai/automated-interpretability).

Most pages of Neuronpedia are of features of sparse autoencoders, not of neurons: a model that is
there for those has no page here.

What a link does not say: that the weights are the same. A model is known by the name that it was
loaded by, and by its size; a folder that somebody calls ``gpt2`` is taken for it.
"""

from __future__ import annotations

from lensneurons.neurons.language_neurons import LanguageNeurons

_VIEWER = "https://openaipublic.blob.core.windows.net/neuron-explainer/neuron-viewer/index.html"
_SMALL = ((12, 3072), "https://www.neuronpedia.org/gpt2-small/{layer}/{neuron}")
_XL = ((48, 6400), _VIEWER + "#/layers/{layer}/neurons/{neuron}")
# Name of the model to its layers and width, and to the address of a neuron.
PAGES = {
    "gpt2": _SMALL,
    "openai-community/gpt2": _SMALL,
    "gpt2-xl": _XL,
    "openai-community/gpt2-xl": _XL,
}


def public_page(neurons: LanguageNeurons, name: str) -> str | None:
    """The address of the public page of a neuron, or None where none is documented.

    Args:
        neurons: what `identify` gave; of neurons of an unchanged model.
        name: such as ``"L6N200"``.
    """
    origin = neurons.provenance
    size, address = PAGES.get(origin.model, (None, ""))
    if size != (neurons.n_layers, neurons.d_mlp) or origin.interventions == "hooks":
        return None
    layer, neuron = divmod(neurons.flat_index(name), neurons.d_mlp)
    return address.format(layer=layer, neuron=neuron)
