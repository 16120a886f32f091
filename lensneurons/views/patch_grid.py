"""Where two sentences differ: a patch at every layer and position, and what it does to the answer.

For each layer and position, a target sentence `b` runs with one activation of a source sentence `a`
put into it: the residual stream after the layer, or what its MLP writes. The grid holds what comes
of it at the last position, as one number:

    probability        p(answer)
    logit difference   logit(answer) - logit(against)

Beside the grid stand the same numbers of `a` and of `b` without any patch. A patch of the stream at
the last position after the last layer is the prediction of `a` itself, so that cell is the number
of `a`. `restored` is how far a patch goes from `b` (0) to `a` (1).

The sentences may be of two languages. Positions are counted from the end, so that the last tokens
stand over each other; of the longer one the first tokens are left alone.

>>> grid = ln.patch_grid(                                                # doctest: +SKIP
...     model, "The capital of France is", "The capital of Japan is", answer=" Paris"
... )
>>> grid.figure()                                                        # doctest: +SKIP

All positions of a layer run as one batch, which `transformer_lens.patching` does one by one; the
tests compare the two.

What this does not show: that the model uses an activation there in `b` alone. The patch brings
whatever else of `a` stands at that position, and tokens that merely stand over each other need not
mean the same. One pair is an example (arXiv 2309.16042 says what else can mislead).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float64

from lensneurons.errors import LensNeuronsError, choose, shown
from lensneurons.interventions.editing import hooking
from lensneurons.interventions.patching import Put, read_source, residual_name
from lensneurons.models.family import model_family
from lensneurons.models.forward import to_device
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.running import require_finite, runs_model
from lensneurons.models.sites import neuron_site
from lensneurons.options import plain_options
from lensneurons.plots.labels import escape_label, headed, plain
from lensneurons.plots.style import TEMPLATES, frame, layer_ticks, ticks
from lensneurons.tokens.characters import token_labels
from lensneurons.tokens.prepared import corpus_of_texts, model_provenance
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance
from lensneurons.views.page import read_texts

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure
    from transformers import PreTrainedTokenizerBase

Site = Literal["residual", "mlp"]
GridMetric = Literal["probability", "logit difference"]
_SITES = {"residual": "residual stream after the layer", "mlp": "neurons of the layer's MLP"}
_ROWS = 64  # of a batch


@dataclass(frozen=True, eq=False, repr=False)
class PatchGrid(Value):
    """What a patch at each layer and position does to an answer. Made by `patch_grid`.

    Attributes:
        values: float64 [layer, position], the metric with a patch there.
        source: the metric of the source sentence, without a patch.
        target: the metric of the target sentence, without a patch.
        source_tokens: names of the tokens of the source at these positions.
        target_tokens: the same of the target.
        texts: source and target sentence.
        answer: the token that is asked about.
        against: the token that it is compared with; None for a probability.
        metric: ``"probability"`` or ``"logit difference"``.
        site: what was put in, ``"residual"`` or ``"mlp"``.
        provenance: of the model.
    """

    FILE_KIND: ClassVar = "patch grid"
    AXES: ClassVar = {"values": ("layer", "position")}
    COORDINATES: ClassVar = {"position": "positions"}

    values: Float64[np.ndarray, "layer position"]
    source: float
    target: float
    source_tokens: tuple[str, ...]
    target_tokens: tuple[str, ...]
    texts: tuple[str, str]
    answer: str
    against: str | None
    metric: GridMetric
    site: Site
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions, counted from the end: the last is -1."""
        return tuple(range(-len(self.target_tokens), 0))

    @property
    def restored(self) -> Float64[np.ndarray, "layer position"]:
        """float64 [layer, position]: (value - target) / (source - target); NaN if these agree."""
        whole = self.source - self.target
        nowhere = np.full(self.values.shape, np.nan)
        return (self.values - self.target) / whole if abs(whole) > 1e-9 else nowhere

    @property
    def measured(self) -> str:
        """The metric in words."""
        answer = plain(self.answer, 20)
        if self.against is None:
            return f"probability of “{answer}”"
        return f"logit of “{answer}” less that of “{plain(self.against, 20)}”"

    def to_pandas(self) -> pd.DataFrame:
        """One row a layer and position: layer, position, both tokens, value, restored."""
        import pandas as pd

        layers, n = self.values.shape
        return pd.DataFrame({
            "layer": np.repeat(np.arange(layers), n),
            "position": np.tile(self.positions, layers),
            "source_token": np.tile(np.array(self.source_tokens, object), layers),
            "target_token": np.tile(np.array(self.target_tokens, object), layers),
            "value": self.values.ravel(),
            "restored": self.restored.ravel(),
        })  # fmt: skip

    def figure(self) -> Figure:
        """Draw the grid as a heat map: layers upwards, positions from left to right."""
        import plotly.graph_objects as go

        pairs = list(zip(self.source_tokens, self.target_tokens, strict=True))
        below = [
            f"{escape_label(b, 12)}<br>{escape_label(a, 12) if a != b else ' '}" for a, b in pairs
        ]
        layers = len(self.values)
        texts = [[f"{escape_label(a, 40)} into {escape_label(b, 40)}" for a, b in pairs]] * layers
        form = ".1%" if self.against is None else "+.2f"
        colours: dict[str, Any] = {"zmin": 0.0}
        if self.against is not None:
            diverging = TEMPLATES["light"].layout.colorscale.diverging  # pyright: ignore
            colours = {"zmid": 0.0, "colorscale": diverging}
        figure = go.Figure(
            go.Heatmap(
                z=self.values, text=texts, customdata=self.restored,
                colorbar={"title": {"text": "p" if self.against is None else "logits"}},
                hovertemplate=f"layer %{{y}}, %{{text}}<br>%{{z:{form}}} (restored: "
                "%{customdata:.0%})<extra></extra>",
                **colours,
            )
        )  # fmt: skip
        head = "token of b; below it, that of a where it differs"
        figure.update_xaxes(**ticks(below), showgrid=False, title=head)
        figure.update_yaxes(**layer_ticks(layers), showgrid=False, title="layer")
        layer, place = np.unravel_index(np.argmax(np.abs(self.values - self.target)), (
            layers, len(pairs),
        ))  # fmt: skip
        title = (
            f"{self.measured[0].upper()}{self.measured[1:]}: most is moved at layer {layer}, "
            f"“{plain(pairs[place][1], 20)}”"
        )
        write = (lambda x: f"{x:.1%}") if self.against is None else (lambda x: f"{x:+.2f}")
        notes = [
            headed(self.provenance, f"put in from a: {_SITES[self.site]}, one position at a time"),
            f"a: {plain(self.texts[0], 90)} ({write(self.source)})",
            f"b: {plain(self.texts[1], 90)} ({write(self.target)})",
        ]
        return frame(figure, title, notes, plot_height=max(200, min(22 * layers, 560)), bottom=90)

    def _brief(self) -> str:
        layers, n = self.values.shape
        return (
            f"{self.measured}: {self.source:.3f} in a, {self.target:.3f} in b; {layers} layers x "
            f"{n} positions, {self.site}: {self.values.min():.3f} to {self.values.max():.3f}"
        )

    def _overview(self) -> Overview:
        head = ("layer", *map(plain, self.target_tokens))
        rows = [(layer, *(f"{x:.3f}" for x in row)) for layer, row in enumerate(self.values)]
        told = f"{self.measured}; a {self.source:.3f}, b {self.target:.3f}"
        return Overview(f"PatchGrid, {_SITES[self.site]}: {told}", head, rows[::-1])


@plain_options
@runs_model
def patch_grid(
    model: Any,
    a: str,
    b: str,
    *,
    answer: str | int | None = None,
    against: str | int | None = None,
    metric: GridMetric | None = None,
    site: Site = "residual",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> PatchGrid:
    """Put one activation of a sentence into another, at every layer and position.

    Args:
        model: a TransformerLens model; it stays as it is, and hooks that are on it act.
        a: the source sentence, right before its answer.
        b: the target sentence, in the same language or in another.
        answer: text (its first token counts) or id of the token that is asked about; None takes
            what the model says after `a`.
        against: what it is compared with, likewise; None takes what the model says after `b`.
        metric: ``"probability"`` of the answer, or ``"logit difference"`` of the two; None takes
            the difference where there are two tokens.
        site: ``"residual"`` puts in the residual stream after a layer, ``"mlp"`` the ``hook_post``
            of all neurons of a layer, from which its MLP's output follows.
        tokenizer: encodes the sentences; by default the model's own, as it was saved.

    Returns:
        The grid, with the numbers of both sentences without a patch.

    Raises:
        LensNeuronsError: a sentence or an answer is empty, an unknown metric or site, or a logit
            difference of a token and itself.
        CorpusError: a sentence is too long, or has no tokens.
        ModelError: not a TransformerLens model, or it lacks a hook.
    """
    choose(site, get_args(Site), "site")
    if metric is not None:
        choose(metric, get_args(GridMetric), "metric")
    neuron_site(model)  # refuses what is no model
    for name, text in {"a": a, "b": b}.items():
        if not isinstance(text, str) or not text.strip():
            raise LensNeuronsError(f"{name}={shown(text)}: give a sentence")
    own = tokenizer or original_tokenizer(model)
    _, read = read_texts(model, [a, b], None, own)
    source, target = (torch.tensor([one.ids]) for one in read)
    logits = [_last_logits(model, ids)[0] for ids in (source, target)]
    chosen = _token(own, a, "answer", answer, logits[0])
    other = _token(own, b, "against", against, logits[1])
    if metric == "probability" or (metric is None and against is None and other == chosen):
        other = None
    elif other == chosen:
        raise LensNeuronsError(
            f"{own.decode([chosen])!r} is what both are about, the answer and what it is held "
            "against: give against= another token, or metric='probability'"
        )

    def measure(last: torch.Tensor) -> np.ndarray:
        last = last.double()
        if other is None:
            return last.softmax(-1)[:, chosen].numpy()
        return (last[:, chosen] - last[:, other]).numpy()

    n = min(source.shape[1], target.shape[1])
    values = _patched(model, source, target, n, site, measure)
    names = [token_labels(one)[-n:] for one in read]
    fingerprint = corpus_of_texts([a, b]).fingerprint
    return PatchGrid(
        values=values,
        source=float(measure(logits[0][None])[0]),
        target=float(measure(logits[1][None])[0]),
        source_tokens=names[0],
        target_tokens=names[1],
        texts=(a, b),
        answer=str(own.decode([chosen])),
        against=None if other is None else str(own.decode([other])),
        metric="probability" if other is None else "logit difference",
        site=site,
        provenance=model_provenance(model, own, fingerprint),
    )


def _patched(
    model: Any, source: torch.Tensor, target: torch.Tensor, n: int, site: Site, measure: Any
) -> np.ndarray:
    """The metric with a patch at every layer and each of the last n positions, [layer, n]."""
    post = neuron_site(model).post
    names = [residual_name(i) if site == "residual" else one for i, one in enumerate(post)]
    places = list(range(-n, 0))
    read = read_source(model, source, names, places)
    values = np.zeros((len(names), n))
    for layer, name in enumerate(names):
        for rows in np.array_split(np.arange(n), -(-n // _ROWS)):
            here = read[name][0, rows][:, None]  # a row of the batch has one position
            positions = torch.tensor(places)[rows][:, None]
            put = Put(here, positions, 1, slice(None))  # also into a sentence of one token
            with hooking(model, [(name, put)]):
                last = _last_logits(model, target.expand(len(rows), -1))
            values[layer, rows] = measure(last)
    return values


@torch.inference_mode()
def _last_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits [batch, vocabulary] of the last position, on the CPU."""
    kept = {} if model_family(model) == "hooked" else {"logits_to_keep": 1}
    last = model(to_device(model, ids), return_type="logits", **kept)[:, -1].cpu()
    require_finite(last, "the logits")
    return last


def _token(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    name: str,
    given: str | int | None,
    logits: torch.Tensor,
) -> int:
    """The token that is meant: the likeliest one, an id, or the first one of a text that goes on.

    Raises:
        LensNeuronsError: it is none of these.
    """
    if given is None:
        return int(logits.argmax())
    if isinstance(given, int) and not isinstance(given, bool):
        if not 0 <= given < len(logits):
            raise LensNeuronsError(f"{name}={given} is no id below {len(logits)}")
        return given
    if not isinstance(given, str) or not given:
        raise LensNeuronsError(f"{name}={shown(given)}: give a text, or the id of a token")
    before, both = (tokenizer(one)["input_ids"] for one in (text, text + given))
    ids = both[len(before) :] if both[: len(before)] == before else []
    ids = ids or tokenizer(given, add_special_tokens=False)["input_ids"]
    if not ids:
        raise LensNeuronsError(f"{name}={given!r} has no tokens: give another text")
    return int(ids[0])
