"""Where numbers come from: what must be equal before two of them may be added or compared.

A count depends on the weights, the number format, the attention kernel, the tokenizer, the hook
and on which tokens were counted (bf16 against fp32 flips 0.28 % of the signs, ``hook_post`` of a
gated MLP is another statistic altogether). So all of that travels with every statistic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from importlib import metadata
from typing import Any

from lensneurons.errors import ProvenanceError

UNKNOWN = "unknown"
ROUTER = "router"  # the hook of statistics of experts
# Hook to what is counted there, where that is no neuron.
UNITS = {
    ROUTER: "expert",
    "attn.q.hook_out": "query unit",
    "attn.k.hook_out": "key unit",
    "attn.v.hook_out": "value unit",
    "attn.o.hook_out": "attention output",
    "mlp.out.hook_out": "MLP output",
}
ROUTED = ", sent to the expert"  # ends the scope of statistics among routed tokens


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where an `ActivationStatistics` comes from. Unknown entries say ``"unknown"``.

    Attributes:
        model: name or path of the model, as it was loaded.
        revision: commit of the hub that it was loaded from.
        config: hash of the model's configuration.
        weights: hash over every weight, so that a changed checkpoint under an old name is noticed.
        quantisation: types of the weights in the file that they were dequantised from, such as
            ``"GGUF Q8_0, F32"``, or ``"none"``; recorded, never compared: `weights` decides.
        dtype: number format of the forward pass.
        attention: attention implementation (``"sdpa"``, ``"eager"``).
        tokenizer: hash of the tokenizer.
        hook: the hook whose sign is counted, such as ``"hook_pre"``; ``"router"`` where the choices
            of experts are, ``"attn.q.hook_out"`` for the outputs of a projection.
        activation: the non-linearity after it.
        scope: which tokens were counted: ``"response"``, ``"prompt"`` or ``"all"``.
        template: hash of the chat template and system prompt that wrote the prompts, or ``"none"``.
        interventions: ``"hooks"`` where somebody's hooks were on the model (an ablation, say), else
            ``"none"``.
        corpora: fingerprints of the corpora that were counted, sorted.
        versions: versions of the libraries that did the work; recorded, never compared.
    """

    model: str = UNKNOWN
    revision: str = UNKNOWN
    config: str = UNKNOWN
    weights: str = UNKNOWN
    quantisation: str = UNKNOWN
    dtype: str = UNKNOWN
    attention: str = UNKNOWN
    tokenizer: str = UNKNOWN
    hook: str = UNKNOWN
    activation: str = UNKNOWN
    scope: str = UNKNOWN
    template: str = "none"
    interventions: str = UNKNOWN
    corpora: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What was counted in each layer: ``"neuron"``, ``"expert"`` or another of `UNITS`."""
        return UNITS.get(self.hook, "neuron")

    def to_dict(self) -> dict[str, Any]:
        """The entries as JSON values."""
        return asdict(self) | {"corpora": list(self.corpora), "versions": dict(self.versions)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Provenance:
        """The provenance that `to_dict` described; entries of later versions are left out.

        Raises:
            TypeError: an entry is of another type.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"provenance is {values!r}")
        types = {entry.name: str for entry in fields(cls)} | {"corpora": list, "versions": dict}
        kept = {name: value for name, value in values.items() if name in types}
        for name, value in kept.items():
            parts = value if name == "corpora" else ()
            if not isinstance(value, types[name]) or not all(isinstance(k, str) for k in parts):
                raise TypeError(f"{name} of the provenance is {value!r}")
        return cls(**{**kept, "corpora": tuple(kept.get("corpora", ()))})

    def merge(self, other: Provenance) -> Provenance:
        """The provenance of counts added up over two disjoint corpora.

        Raises:
            ProvenanceError: an entry differs, or the two share a corpus, whose tokens would be
                counted twice.
        """
        require_same(self, other, ignoring=("corpora",))
        if shared := sorted(set(self.corpora) & set(other.corpora)):
            raise ProvenanceError(
                f"both statistics counted the corpus {shared[0][:12]}: merging would count its "
                "tokens twice. Merge statistics of different parts of a corpus"
            )
        return replace(self, corpora=tuple(sorted((*self.corpora, *other.corpora))))


def require_same(ours: Provenance, theirs: Provenance, *, ignoring: tuple[str, ...] = ()) -> None:
    """Raise unless two provenances agree in every entry but those recorded only and those ignored.

    Where the weights are known to be the same, the names that they were loaded by may differ.

    Raises:
        ProvenanceError: names each entry that differs, with both values.
    """
    skipped = {"versions", "quantisation", *ignoring}
    if ours.weights == theirs.weights != UNKNOWN:
        skipped |= {"model", "revision"}
    names = [entry.name for entry in fields(Provenance) if entry.name not in skipped]
    different = [name for name in names if getattr(ours, name) != getattr(theirs, name)]
    if different:
        told = "; ".join(f"{n}: {getattr(ours, n)!r} and {getattr(theirs, n)!r}" for n in different)
        raise ProvenanceError(f"the two do not have the same provenance ({told})")


def library_versions() -> dict[str, str]:
    """Versions of lensneurons and of the libraries that a count depends on."""
    names = ("lensneurons", "transformer-lens", "transformers", "torch", "numpy")
    return {name: installed_version(name) for name in names}


@cache  # looking for a distribution takes 4 ms
def installed_version(name: str) -> str:
    """Version of a distribution, ``"unknown"`` where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return UNKNOWN
