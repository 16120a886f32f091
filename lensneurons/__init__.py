"""lensneurons: the neurons of a multilingual language model that belong to its languages.

    corpus -> tokens -> activations -> statistics -> identification -> neurons -> phases, figures

>>> import lensneurons as ln
>>> model = ln.load_model("Qwen/Qwen3-0.6B-Base")            # doctest: +SKIP
>>> corpus = ln.load_corpus("answers.jsonl")                 # doctest: +SKIP
>>> statistics = ln.collect(model, corpus)                   # doctest: +SKIP
>>> neurons = ln.identify(statistics)                        # doctest: +SKIP
>>> ln.plots.layer_profile(neurons, ln.divide_layers(neurons)).show()   # doctest: +SKIP

Names are loaded when they are first used: importing the package, or asking the command line for
help, imports neither torch nor TransformerLens.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
