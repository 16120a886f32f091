"""The shapes of every array in the package, named once.

``layer`` counts transformer blocks, ``neuron`` the units of one MLP (d_mlp), ``language`` the
languages of a corpus in its order, ``group`` the resampling groups of items. The test suite checks
each annotation at run time (jaxtyping with beartype); in use they cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64

Array = np.ndarray
Tensor = torch.Tensor

# Statistics of a model over a corpus
Counts = Int64[Array, "layer neuron language"]
Sums = Float64[Array, "layer neuron language"]
Tokens = Int64[Array, "language"]
GroupWeights = Int64[Array, "group"]
Probabilities = Float64[Array, "layer neuron language"]
LayerSums = Float64[Array, "layer neuron"]

# One value a neuron
NeuronScores = Float64[Array, "layer neuron"]
NeuronNumbers = Int64[Array, "layer neuron"]
NeuronMask = Bool[Array, "layer neuron"]
FlatNeurons = Int64[Array, "neurons"]
Memberships = Bool[Array, "layer neuron language"]

# One value a pair of languages; class counts of a layer
LanguageMatrix = Float64[Array, "row column"]
LayerProfile = Int64[Array, "layer kind"]

# Tokens and activations of one batch
TokenIds = Int64[Tensor, "batch pos"]
AttentionMask = Int64[Tensor, "batch pos"]
CountedMask = Bool[Tensor, "batch pos"]
Activation = Float[Tensor, "batch pos d_mlp"]
Logits = Float[Tensor, "batch pos vocabulary"]

# Chosen neurons of one layer
NeuronIndices = Int64[Tensor, "neurons"]

# An encoded corpus, flat
TextNumbers = Int[Array, "texts"]

# Two models that read the same texts: before and after
ModelMemberships = Bool[Array, "2 language neurons"]
RowMask = Bool[Array, "neurons"]
PairedRates = Float64[Array, "2 language neurons"]


@runtime_checkable
class Cache(Protocol):
    """Activations by hook name: an `ActivationCache` of TransformerLens, or a dictionary."""

    def __iter__(self) -> Iterator[Any]:
        """The names of the hooks whose activations were kept."""
        ...

    def __getitem__(self, name: Any) -> Any:
        """The activation of a hook."""
        ...
