"""lensneurons: which neurons of a multilingual language model belong to which languages.

    corpus -> prepared corpus -> activations -> statistics -> neurons -> parts, edits, comparison

>>> import lensneurons as ln
>>> model = ln.load_model("Qwen/Qwen3-0.6B-Base")            # doctest: +SKIP
>>> corpus = ln.load_corpus("answers.jsonl")                 # doctest: +SKIP
>>> statistics = ln.collect(model, corpus)                   # doctest: +SKIP
>>> neurons = ln.identify(statistics)                        # doctest: +SKIP
>>> ln.plots.layer_profile(neurons, ln.divide_layers(neurons)).show()   # doctest: +SKIP

The words, as every function and figure uses them:

* A **neuron** is one unit of the first MLP matrix followed by its non-linearity; in a gated MLP,
  one column of the gate. It is **active** on a token where ``act_fn(hook_pre) > 0``. The sign of
  ``hook_post`` is another statistic: in a gated MLP it agrees on half of the entries.
* **Counted tokens** are those of the response, never the prompt, padding, BOS or other special
  tokens. A token with characters of both prompt and response counts as response. (MGSM and MSVAMP
  files hold only the final number as response: generate answers first, or count the questions with
  ``scope="prompt"``.)
* **tau** is the bar that an activation probability has to exceed. **N** is the number of the K
  languages in which a neuron exceeds it: N = 1 is language-specific, 1 < N < K language-related,
  N = K language-agnostic, N = 0 unclassified.
* **lambda** weighs the largest probability in the paper's score. It is the largest value that
  selects no language-agnostic neuron. Where nothing bounds it, 0.2 stands in (the upper end of the
  published search), and the result and every figure say so.
* Edits act on the *selected* neurons; layer profiles and histograms of N count *all* neurons.
  ``population=`` says which, and so does every figure.

A class states frequencies over one corpus at one bar. Whether a neuron matters for a language needs
an intervention beside matched controls.

Importing the package, or asking the command line for help, imports neither torch nor
TransformerLens: names load when they are first used.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
