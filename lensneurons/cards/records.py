"""Activations of neurons in the form that tools of automated interpretation read.

Such a tool shows a language model the texts on which a neuron is most active, asks for an
explanation, lets it predict the activations of other texts from the explanation, and scores the
prediction. It needs whole texts, token by token, not the excerpts of `top_contexts`.

The form is the ``NeuronRecord`` of Bills et al. 2023, *Language models can explain neurons in
language models*, the one that is documented as a class with a sentence for every field
(``neuron_explainer/activations/activations.py`` of openai/automated-interpretability). One JSON
file a neuron, where its ``load_neuron(layer, neuron, dataset_path=folder)`` looks for it:

    folder/
      lensneurons.json             model, corpus and options; not part of the form
      <layer>/<neuron>.json
        neuron_id                         layer_index, neuron_index
        most_positive_activation_records  texts with the largest activation, strongest first
        random_sample                     texts drawn at random
          tokens, activations             of each text, one number a token
        mean, variance                    over all counted tokens of the corpus
        random_sample_by_quantile, quantile_boundaries, skewness, kurtosis    null: not measured

>>> write_records(model, corpus.select("zh"), neurons["zh"], "records/zh")      # doctest: +SKIP

The form has no place for a language, so give a corpus of one language where an explanation should
be of that language alone. Its tools split the texts into four parts: 20 texts give 5 to each.

What this does not show: an explanation that predicts activations need not say what a neuron does
to the model's output.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lensneurons.activations.recording import record_activations
from lensneurons.errors import LensNeuronsError
from lensneurons.interventions.edited_sites import edited_site
from lensneurons.interventions.editing import single_set
from lensneurons.models.routers import ExpertSite
from lensneurons.models.running import runs_model
from lensneurons.neurons.sets import NeuronSet, OneSet
from lensneurons.options import plain_options
from lensneurons.tokens.characters import token_texts
from lensneurons.tokens.encoding import Scope, exact_backend
from lensneurons.tokens.prepared import PreparedCorpus, Texts, prepare
from lensneurons.values.files import new_folder, save_json, whole_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ABOUT = "lensneurons.json"


@plain_options
@runs_model
def write_records(
    model: Any,
    corpus: Texts,
    neurons: OneSet,
    folder: str | Path,
    *,
    top: int = 20,
    random: int = 20,
    seed: int = 0,
    scope: Scope | None = None,
    batch_tokens: int = 4096,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Path:
    """Write a ``NeuronRecord`` for each neuron of a set, for tools of automated interpretation.

    The activations of all counted tokens are held at once: 4 bytes a token and neuron; while an
    expert layer passes, of all its neurons for one batch.

    Args:
        model: a TransformerLens model; it is not changed, and hooks that are on it act.
        corpus: the texts: a corpus, prepared or not, a text, or a list of texts.
        neurons: a set, a neuron's name, or several.
        folder: a folder that does not exist or is empty. It appears whole or not at all.
        top: texts with the largest activation; fewer where the corpus has fewer. A text on which
            the neuron is never active is left out.
        random: texts drawn at random, without replacement, for each neuron anew.
        seed: of the draws.
        scope: which tokens of a text stand in a record, as for `collect`.
        batch_tokens: most tokens in a batch, padding included.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.

    Returns:
        `folder`. Activations are ``act_fn(hook_pre)``; of neuron j of expert e, whose index is
        ``e * width + j``, 0 on tokens that were sent elsewhere; of outputs of linear maps, the
        value itself. A token that holds a part of a character is
        written as its bytes in hexadecimal, such as ``<E6 98>``.

    Raises:
        ModelError: the model has no such neurons, or no tokenizer.
        CorpusError: a text has no counted token, or is longer than the model's context.
        LensNeuronsError: no neurons, neurons of another model, or a number of texts below 1.
        StorageError: `folder` holds something, or cannot be written.
    """
    target, site = new_folder(folder), edited_site(model, neurons)
    if isinstance(site, ExpertSite):
        raise LensNeuronsError(
            "experts have no activation that a record could hold: give neurons inside them, of "
            "collect(model, corpus, site='expert_neurons')"
        )
    if isinstance(neurons, NeuronSet) and not len(neurons):
        raise LensNeuronsError(f"{neurons!r} holds no neurons: give one or more")
    chosen = single_set(neurons, site)
    if top < 1 or random < 1:
        raise LensNeuronsError(f"top={top}, random={random}: give 1 text or more of each")
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    layers = {layer: torch.from_numpy(own) for layer, own in chosen.by_layer().items()}
    found = record_activations(model, prepared, layers, site=site, batch_tokens=batch_tokens)
    numbers, tokens = _texts(prepared, batch_tokens)
    ends = np.cumsum([len(text) for text in tokens])[:-1]
    about = {
        "made_by": "lensneurons.cards.records",
        "form": "NeuronRecord (openai/automated-interpretability)",
        "neurons": chosen.names,
        "units": chosen.units,
        "items": [prepared.encoded.item_ids[number] for number in numbers],
        "provenance": prepared.provenance().to_dict(),
    }
    with whole_folder(target) as temporary:
        save_json(temporary / ABOUT, about)
        for layer, own in layers.items():
            values = found[layer].double().cpu().numpy()
            for place, neuron in enumerate(own.tolist()):
                texts = np.split(values[:, place], ends)
                draw = np.random.default_rng([seed, layer, neuron])
                drawn = draw.permutation(len(texts))[:random]
                best = sorted(range(len(texts)), key=lambda text: (-texts[text].max(), text))
                record = {
                    "dataclass_name": "NeuronRecord",
                    "neuron_id": {
                        "dataclass_name": "NeuronId",
                        "layer_index": layer,
                        "neuron_index": neuron,
                    },
                    "random_sample": list(_records(tokens, texts, drawn)),
                    "random_sample_by_quantile": None,
                    "quantile_boundaries": None,
                    "mean": float(values[:, place].mean()),
                    "variance": float(values[:, place].var()),
                    "skewness": None,
                    "kurtosis": None,
                    "most_positive_activation_records": list(
                        _records(tokens, texts, [k for k in best[:top] if texts[k].max() > 0])
                    ),
                }
                save_json(temporary / str(layer) / f"{neuron}.json", record, sealed=False)
    return target


def _records(tokens: list[list[str]], texts: list[np.ndarray], chosen: Any) -> Iterator[Any]:
    """An ``ActivationRecord`` for each of some texts."""
    for text in chosen:
        yield {
            "dataclass_name": "ActivationRecord",
            "tokens": tokens[text],
            "activations": texts[text].tolist(),
        }


def _texts(prepared: PreparedCorpus, batch_tokens: int) -> tuple[list[int], list[list[str]]]:
    """The texts in the order of the batches: their numbers, and their counted tokens as strings."""
    encoded, numbers, tokens = prepared.encoded, [], []
    backend = exact_backend(prepared.tokenizer, [prepared.corpus.items[0].text])
    for rows in prepared.batches(batch_tokens):
        for row in rows.tolist():
            first = int(encoded.offsets[row])
            span = slice(first + int(encoded.start[row]), first + int(encoded.stop[row]))
            numbers.append(row)
            tokens.append(token_texts(backend, encoded.ids[span].tolist()))
    return numbers, tokens
