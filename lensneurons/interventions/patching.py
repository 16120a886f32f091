"""Activations of one run put into another: patching, as a context manager.

The model reads a source text once. In the block, every pass gets the source's activations in place
of its own, at chosen positions:

    layer     the residual stream after a layer, ``blocks.{layer}.hook_resid_post``: all that later
              layers read from that position, so they see the source there and the target at every
              other position
    neurons   what the neurons hand to W_out, ``hook_post``: nothing else of the source

At the last position, the stream after the last layer *is* the prediction: the model says what the
source would have said. Before the first layer it would be one token. In between lies the question:
what of a text in one language can a text in another one go on from (Dumas et al. 2024, arXiv
2411.08745; Meng et al. 2022, arXiv 2202.05262)?

>>> with ln.patch(model, "The cat sat on the", layer=12):                # doctest: +SKIP
...     logits = model(swahili)                    # int64 [batch, pos], a row for each row

Hooks live as long as the block, as those of `lensneurons.interventions.editing`. Blocks nest: hooks
that were on the model before also act on the run of the source, but one patch never reaches into
the source of another.

What it does not show: that the model uses what was put in where it came from. The model has never
continued a stream of another text, and later layers still read the target at all other positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64

from lensneurons.errors import LensNeuronsError, ModelError, shown
from lensneurons.interventions.editing import hooking, single_set
from lensneurons.models.family import model_family
from lensneurons.models.forward import to_device
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.sets import OneSet
from lensneurons.options import plain_options
from lensneurons.shapes import AttentionMask, FlatNeurons, TokenIds

PositionNumbers = Int64[torch.Tensor, "_ _"]
PositionValues = Float[torch.Tensor, "batch chosen width"]
Places = int | Sequence[int] | PositionNumbers

# Set while a source is read: patches leave that run alone.
_reading: ContextVar[bool] = ContextVar("reading a source", default=False)


@plain_options
@contextmanager
def patch(
    model: Any,
    source: TokenIds | str,
    *,
    layer: int | None = None,
    neurons: OneSet | None = None,
    positions: Places = -1,
    source_positions: Places | None = None,
    source_mask: AttentionMask | None = None,
) -> Iterator[Any]:
    """Put the activations of a source text into every pass that runs in the block.

    Args:
        model: a TransformerLens model.
        source: a text, or int64 [batch, pos] token ids; a single row is put into every row.
        layer: after which layer the residual stream is put in.
        neurons: or which neurons' ``hook_post`` is put in, as a set or by name; give one of the
            two.
        positions: where in the passes of the block: a number, some numbers, or int64 [batch, n]
            with a row for each row. Negative ones count from the end, padding included. Steps of a
            generation (passes of one position where the source had more) are left alone.
        source_positions: from where in the source, as many; None takes `positions`.
        source_mask: int64 [batch, pos], 0 on padding; needed for padding on the left.

    Yields:
        The model.

    Raises:
        LensNeuronsError: both or none of `layer` and `neurons`, neurons or a layer of another
            model, or positions that do not fit; in a pass, another number of rows or a shorter
            text.
        ModelError: the model lacks a hook that is needed, so nothing would be put in.

    Warns:
        EmptySetWarning: there are no neurons in `neurons`, so nothing changes.
    """
    site, source = neuron_site(model), _token_ids(model, source)
    length = source.shape[1]
    if (layer is None) == (neurons is None):
        raise LensNeuronsError(
            "give either layer= (the residual stream after it) or neurons= (their hook_post)"
        )
    entries: dict[str, Any] = {}  # of the last axis, by the name of the hook
    if neurons is not None:
        chosen = single_set(neurons, site)
        entries = {site.post[number]: own for number, own in chosen.by_layer().items()}
    elif layer is None or layer not in range(site.n_layers):
        raise LensNeuronsError(f"layer={layer}: the model has layers 0 to {site.n_layers - 1}")
    else:
        entries[residual_name(layer)] = slice(None)
    taken = positions if source_positions is None else source_positions
    if (put := _number_of(positions)) != (read := _number_of(taken)):
        raise LensNeuronsError(f"{read} positions of the source cannot go into {put} positions")
    values = read_source(model, source, list(entries), taken, source_mask)
    puts = [(name, Put(values[name], positions, length, own)) for name, own in entries.items()]
    with hooking(model, puts):
        yield model


def _token_ids(model: Any, source: TokenIds | str) -> TokenIds:
    """The source as token ids int64 [batch, pos]; a text as the model's tokenizer reads it."""
    if isinstance(source, torch.Tensor):
        if source.ndim != 2 or not source.numel():
            raise LensNeuronsError(
                f"source of shape {list(source.shape)}: give a text, or token ids [batch, pos]"
            )
        return source
    if not isinstance(source, str) or not source:
        raise LensNeuronsError(f"source={shown(source)}: give a text, or token ids [batch, pos]")
    return torch.tensor([original_tokenizer(model)(source)["input_ids"]])


def _number_of(positions: Places) -> int:
    if isinstance(positions, int):
        return 1
    return positions.shape[1] if isinstance(positions, torch.Tensor) else len(positions)


def residual_name(layer: int) -> str:
    """The hook of the residual stream after a layer."""
    return f"blocks.{layer}.hook_resid_post"


@torch.no_grad()
def read_source(
    model: Any,
    source: TokenIds,
    names: Sequence[str],
    positions: Places,
    mask: AttentionMask | None = None,
) -> dict[str, PositionValues]:
    """Run a text and keep what hooks with tensors [batch, pos, width] see at some positions.

    Hooks that are on the model act, patches do not. Positions and mask are as for `patch`.

    Returns:
        Hook name to [batch, positions, width].

    Raises:
        ModelError: the model lacks a hook, or it did not fire.
        LensNeuronsError: positions outside the text or on its padding, or a mask of another shape.
    """
    places = place_numbers(positions, source.shape)
    if mask is not None:
        if mask.shape != source.shape:
            raise LensNeuronsError(f"source_mask {list(mask.shape)} is not of {list(source.shape)}")
        if not mask.gather(1, places.to(mask.device)).all():
            raise LensNeuronsError("source_positions point at padding of the source")
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        return lambda tensor, hook: kept.__setitem__(name, tensor[_at(places, tensor)].clone())

    options = {"return_type": None} if model_family(model) == "hooked" else {"logits_to_keep": 1}
    ids = to_device(model, source)
    token = _reading.set(True)
    try:
        with hooking(model, [(name, keep(name)) for name in names]):
            model(ids, attention_mask=None if mask is None else to_device(model, mask), **options)
    finally:
        _reading.reset(token)
    if silent := [name for name in names if name not in kept]:
        raise ModelError(f"{silent[0]} did not fire in the run of the source: report this model")
    return kept


def place_numbers(positions: Places, shape: Sequence[int]) -> PositionNumbers:
    """Positions in texts of a shape (rows, length), counted from the start: int64 [batch, n].

    Raises:
        LensNeuronsError: no position, one outside the texts, or another number of rows.
    """
    batch, length = shape
    if isinstance(positions, int):
        positions = [positions]
    chosen = positions if isinstance(positions, torch.Tensor) else torch.tensor([list(positions)])
    if chosen.numel() == 0:
        raise LensNeuronsError("no positions: give at least one")
    if len(chosen) not in (1, batch):
        raise LensNeuronsError(f"positions of {len(chosen)} rows do not fit a batch of {batch}")
    if int(chosen.min()) < -length or int(chosen.max()) >= length:
        given = chosen.unique().tolist()
        raise LensNeuronsError(f"positions {given} are not all within a text of {length} tokens")
    return (chosen % length).expand(batch, -1)


def _at(places: PositionNumbers, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of places [batch, n] in a tensor [batch, pos, ...]."""
    rows = torch.arange(len(places), device=tensor.device)
    return rows[:, None], places.to(tensor.device)


@dataclass(frozen=True, eq=False, repr=False)
class Put:
    """The hook that puts values [batch or 1, positions, width] into the positions of a pass.

    Passes of one position are left alone if the source was longer. `entries` of the last axis are
    put in: some neurons, or all.
    """

    values: PositionValues
    positions: Places
    source_length: int
    entries: FlatNeurons | slice

    def __call__(self, tensor: torch.Tensor, hook: Any) -> torch.Tensor | None:
        """The tensor [batch, pos, width] with the values in it; None where it stays as it is."""
        if _reading.get() or (tensor.shape[1] == 1 < self.source_length):
            return None
        if len(self.values) not in (1, len(tensor)):
            raise LensNeuronsError(
                f"a source of {len(self.values)} rows does not fit a batch of {len(tensor)}: give "
                "one row for all, or as many rows"
            )
        here = _at(place_numbers(self.positions, tensor.shape[:2]), tensor)
        values = self.values.to(tensor).expand(len(tensor), -1, -1)
        result = tensor.clone()
        edited = result[here]
        edited[..., self.entries] = values[..., self.entries]
        result[here] = edited
        return result
