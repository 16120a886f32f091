"""How strongly every neuron answers every text: one number a text, for what counts cannot tell.

    a[k, i, l, j] = mean of act_fn(hook_pre) of neuron j of layer l over the counted tokens of
                    item i in language k

Counts add items up (`lensneurons.activations.collection`). What is asked of pairs of texts, such as
whether a neuron answers a sentence and its translation alike, or how well it tells the texts of one
language from all others (arXiv 2404.02431), needs a number for each text. One forward pass gives
them all.

They take ``4 * languages * items`` bytes a neuron: 442 MB for 300 items in ten languages of a
model of 36,864 neurons. With `file` they lie in a file instead, mapped into memory where they are
read, so memory does not grow with the number of items.

>>> items = item_activations(model, corpus)                              # doctest: +SKIP
>>> items.mean[items.languages.index("zh"), :, 3, 17]                    # doctest: +SKIP

What this does not show: where in a text a neuron is active. A mean over ten tokens is less certain
than one over a hundred, and no text has weight here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float32

from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.models.forward import to_device, watching
from lensneurons.models.running import runs_model
from lensneurons.options import plain_options
from lensneurons.shapes import CountedMask
from lensneurons.tokens.encoding import EncodedCorpus, Scope
from lensneurons.tokens.prepared import PreparedCorpus, prepare
from lensneurons.values.base import Overview, Value, read_only
from lensneurons.values.files import replacing
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lensneurons.corpora.corpus import ParallelCorpus

BLOCK = 2**20  # activations that are read at once; a few float64 copies of them are 8 MB each


@dataclass(frozen=True, eq=False, repr=False)
class ItemActivations(Value):
    """The mean activation of every neuron in every text of a parallel corpus.

    Attributes:
        languages: codes, in the order of the first axis.
        item_ids: the items that have a text in every language, in the order of the corpus.
        mean: float32 [language, item, layer, neuron].
        left_out: items that lack a language and are not among them.
        provenance: where the numbers come from.
    """

    FILE_KIND: ClassVar = "activations of items"
    AXES: ClassVar = {"mean": ("language", "item", "layer", "neuron")}
    COORDINATES: ClassVar = {"language": "languages", "item": "item_ids"}

    languages: tuple[str, ...]
    item_ids: tuple[str, ...]
    mean: Float32[np.ndarray, "language item layer neuron"]
    left_out: int = 0
    provenance: Provenance = field(default_factory=Provenance)

    @classmethod
    @plain_options
    def load(cls, path: str | Path, *, memory_map: bool = False) -> ItemActivations:
        """Read a saved file.

        Args:
            path: the file.
            memory_map: leave the numbers in the file and read them as they are needed.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        return cls._read(path, memory_map=memory_map)

    def __post_init__(self) -> None:
        size = len(self.languages), len(self.item_ids)
        if self.mean.shape[:2] != size:
            raise LensNeuronsError(
                f"{size[0]} languages and {size[1]} items do not fit {self.mean.shape}"
            )
        super().__post_init__()

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return self.mean.shape[2]

    @property
    def d_mlp(self) -> int:
        """Neurons a layer."""
        return self.mean.shape[3]

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """Every layer and run of its neurons that is read at once: `BLOCK` numbers at most, or one
        neuron. So what reads a file block by block needs no more memory for more items.
        """
        width = max(1, BLOCK // max(1, len(self.languages) * len(self.item_ids)))
        for layer in range(self.n_layers):
            for first in range(0, self.d_mlp, width):
                yield layer, slice(first, first + width)

    def _brief(self) -> str:
        size = f"{self.n_layers} layers x {self.d_mlp} neurons"
        out = f"; {self.left_out} items lack a language" if self.left_out else ""
        return f"{len(self.item_ids)} items in {' '.join(self.languages)}: {size}{out}"

    def _overview(self) -> Overview:
        rows = [
            (f"layer {n}", *(f"{one.mean():.4g}" for one in self.mean[:, :, n]))
            for n in range(self.n_layers)
        ]
        return Overview(f"{self!r}. Mean activation", ("", *self.languages), rows)


@plain_options
@runs_model
def item_activations(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    *,
    file: str | Path | None = None,
    scope: Scope | None = None,
    batch_tokens: int = 4096,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> ItemActivations:
    """Take the mean activation of every neuron over the counted tokens of every text.

    Args:
        model: a TransformerLens model; hooks that are on it act.
        corpus: parallel items, prepared or not. Items that lack one of its languages are left out.
        file: a file for the numbers (``.npy``), which are then read from there as they are needed
            and take no memory; one that is there is replaced. None keeps them in memory.
        scope: which tokens count, as for `collect`.
        batch_tokens: most tokens in a batch, padding included.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.
        progress: show a progress bar, in texts.

    Raises:
        CorpusError: no item has a text with counted tokens in every language.
        ModelError: the model has no dense MLP neurons, or no tokenizer.
    """
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    encoded, site = prepared.encoded, prepared.site
    kept, left_out = whole_items(encoded)
    if not kept:
        raise CorpusError(
            f"no item has counted tokens in all of {list(encoded.languages)}: select languages "
            "whose items are parallel"
        )
    place = {name: number for number, name in enumerate(kept)}
    provenance = prepared.provenance()
    shape = (len(encoded.languages), len(kept), site.n_layers, site.d_mlp)
    counted: CountedMask = torch.zeros((0, 0), dtype=torch.bool)
    means: list[np.ndarray] = []

    def watch(layer: int, pre: torch.Tensor) -> None:
        means.append(_mean_of_rows(site.activations[layer](pre), counted))

    with _place_for(file, shape) as rows, watching(model, site, watch) as run:
        for batch in prepared.read(batch_tokens, "items", progress=progress):
            counted, means = batch.counted, []
            run(to_device(model, batch.tokens), None)
            by_layer = np.stack(means, axis=1)  # [row, layer, neuron]
            language = encoded.languages.index(batch.language)
            for number, own in zip(batch.rows.tolist(), by_layer, strict=True):
                if (item := place.get(encoded.item_ids[number])) is not None:
                    rows[language, item] = own
    found = read_only(rows) if file is None else np.load(file, mmap_mode="r")
    return ItemActivations(encoded.languages, tuple(kept), found, left_out, provenance)


def _mean_of_rows(values: torch.Tensor, counted: CountedMask) -> np.ndarray:
    """Mean over the counted tokens of each row, float32 [row, neuron]; 0 where none counts."""
    inside = counted.to(values.device)
    total = torch.where(inside[..., None], values.float(), 0.0).sum(1, dtype=torch.float64)
    return (total / inside.sum(1).clamp(min=1)[:, None]).float().cpu().numpy()


def whole_items(encoded: EncodedCorpus) -> tuple[list[str], int]:
    """The items with counted tokens in every language, and how many others there are."""
    languages: dict[str, set[int]] = {name: set() for name in encoded.item_ids}
    for name, language, start, stop in zip(
        encoded.item_ids, encoded.language.tolist(), encoded.start, encoded.stop, strict=True
    ):
        if stop > start:
            languages[name].add(language)
    whole = [name for name, found in languages.items() if len(found) == len(encoded.languages)]
    return whole, len(languages) - len(whole)


@contextmanager
def _place_for(file: str | Path | None, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield a float32 array to fill: in memory, or in a file that is there when it is full."""
    if file is None:
        yield np.zeros(shape, np.float32)
        return
    with replacing(Path(file)) as temporary:
        mapped = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        if hasattr(os, "posix_fallocate"):  # a disk that fills up later would kill the process
            with temporary.open("r+b") as held:
                os.posix_fallocate(held.fileno(), 0, temporary.stat().st_size)
        yield mapped
        mapped.flush()
