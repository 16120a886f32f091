"""What a study found: its values, read from the folder that `study` left.

>>> found = ln.studies.Study.load("runs/study")                          # doctest: +SKIP
>>> found.effects["nll"].summary(), found.page                           # doctest: +SKIP

What this does not do: go on. A folder whose study was stopped has no ``study.json``: it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.card import NeuronCard
from lensneurons.cards.method_agreement import MethodAgreement
from lensneurons.comparison.before_after import Comparison
from lensneurons.comparison.coupled_layers import LayerCoupling
from lensneurons.comparison.coupled_neurons import Coupling
from lensneurons.comparison.overlap import Stability
from lensneurons.comparison.paper_claims import Claims
from lensneurons.evaluation.answers import Accuracy
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.lens import LensCurves
from lensneurons.experiments.method_comparison import MethodComparison
from lensneurons.experiments.metrics import METRICS
from lensneurons.neurons.identification import Score
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.studies.plan import Plan
from lensneurons.values.base import Overview, Shown
from lensneurons.values.files import load_json, system_path

SCORES: tuple[Score, ...] = get_args(Score)
# What the step "methods" leaves; attribute of `Study`, and name of the file, to the value.
BY_METHODS: dict[str, Any] = {
    "methods": MethodComparison,
    "coupling": Coupling,
    "layer_coupling": LayerCoupling,
    "agreement": MethodAgreement,
}


@dataclass(eq=False, repr=False)
class Study(Shown):
    """What a study found. Made by `study`; ``Study.load`` reads a finished folder.

    Attributes:
        folder: where everything is.
        plan: what it was to cost.
        statistics: activation counts of the model.
        neurons: identified neurons by score, ``"paper"`` and ``"lape"``.
        score: the score whose neurons the effects and the page are about.
        parts: the layers divided; None for fewer than five.
        stability: by what the neurons were identified again (``"halves"``, ``"other corpus"``).
        accuracy: the model's answers; None where it wrote none.
        lens: curves of the logit lens, or None.
        effects: matrices by metric.
        cards: of the strongest neurons.
        methods: sets of several methods and what removing them does, or None.
        coupling: of neurons between the languages, or None; of whole layers: `layer_coupling`.
        layer_coupling: the same of whole layers, or None.
        agreement: single neurons removed, and what measures say of them, or None.
        aligned: statistics of the second model, or None.
        aligned_accuracy: its answers, or None.
        comparison: what changed, or None.
        claims: verdicts on the paper's statements, of the model or of the change.
        page: path of the report.
    """

    folder: Path
    plan: Plan
    statistics: ActivationStatistics
    neurons: Mapping[str, LanguageNeurons]
    score: Score
    parts: LayerParts | None = None
    stability: dict[str, Stability] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    lens: LensCurves | None = None
    effects: dict[str, AblationMatrix] = field(default_factory=dict)
    cards: tuple[NeuronCard, ...] = ()
    methods: MethodComparison | None = None
    coupling: Coupling | None = None
    layer_coupling: LayerCoupling | None = None
    agreement: MethodAgreement | None = None
    aligned: ActivationStatistics | None = None
    aligned_accuracy: Accuracy | None = None
    comparison: Comparison | None = None
    claims: dict[str, Claims] = field(default_factory=dict)

    @property
    def chosen(self) -> LanguageNeurons:
        """The neurons that effects and page are about."""
        return self.neurons[self.score]

    @property
    def page(self) -> Path:
        """The report."""
        return self.folder / "page.html"

    @property
    def numbers(self) -> dict[str, Any]:
        """What ``study.json`` holds."""
        return load_json(self.folder / "study.json")

    @classmethod
    def load(cls, folder: str | Path) -> Study:
        """Read a finished study.

        Raises:
            StorageError: the folder holds no finished study, or a file of it is damaged.
        """
        path = system_path(folder)
        about = load_json(path / "study.json")

        def read(kind: Any, file: str) -> Any:
            return kind.load(path / file) if (path / file).exists() else None

        scores = {one: LanguageNeurons.load(path / f"values/{one}.safetensors") for one in SCORES}
        metrics = {one: read(AblationMatrix, f"effects-{one}") for one in METRICS}
        again = {"halves": "halves", "other corpus": "other"}
        stabilities = {
            one: read(Stability, f"values/stability-{file}.safetensors")
            for one, file in again.items()
        }
        judged = {one: read(Claims, f"values/claims-{one}.json") for one in ("model", "change")}
        return cls(
            folder=path,
            plan=Plan.load(path / "plan.jsonl"),
            statistics=ActivationStatistics.load(path / "counts"),
            neurons=scores,
            score=about["score"],
            parts=read(LayerParts, "values/parts.safetensors"),
            stability={name: one for name, one in stabilities.items() if one is not None},
            accuracy=read(Accuracy, "answers"),
            lens=read(LensCurves, "values/lens.safetensors"),
            effects={name: one for name, one in metrics.items() if one is not None},
            cards=tuple(NeuronCard.load(file) for file in sorted(path.glob("cards/*.jsonl"))),
            **{name: read(kind, f"values/{name}.safetensors") for name, kind in BY_METHODS.items()},
            aligned=read(ActivationStatistics, "aligned-counts"),
            aligned_accuracy=read(Accuracy, "aligned-answers"),
            comparison=read(Comparison, "values/comparison.safetensors"),
            claims={name: one for name, one in judged.items() if one is not None},
        )

    def _brief(self) -> str:
        found = [f"{self.statistics.provenance.model}: {self.chosen.description}"]
        found += [f"effects on {one.metric}, {one.n_items} items" for one in self.effects.values()]
        found += [] if self.methods is None else [f"{len(self.methods.sets)} methods compared"]
        return "; ".join([*found, f"page: {self.page}"])

    def _overview(self) -> Overview:
        judged = [row for one in self.claims.values() for row in one]
        rows = [(row.claim, f"{row.measured:.4g}", row.verdict) for row in judged]
        return Overview(repr(self), ("claim", "measured", "verdict"), rows)
