"""Statistics of real models that come with the package, and what was measured beside them.

    statistics    counts of 10 groups of parallel items, as `collect` counted them, to the bit
    neurons       what `identify` makes of them, with the options of `about`
    parts         what `divide_layers` makes of both
    effects       ablation matrices by metric                    where they were measured
    lens          the logit lens by layer and language           where it was measured
    cards         of some neurons, without the texts of their contexts
    steered       what the model wrote to a few prompts of ours, steered and not, where tried

So identification, overlap, bootstrap, the four parts, every figure and the report can be tried on a
real model that is not there:

>>> import lensneurons as ln
>>> sample = ln.load_sample("gemma-3-270m")
>>> ln.identify(sample.statistics).n_layers
18
>>> ln.plots.layer_profile(sample.neurons, sample.parts)                  # doctest: +SKIP

What is not there: the weights, so nothing can be run, ablated or steered; the corpus; and sums and
squares of activations, so `statistics.mean` and `statistics.standard_deviation` say that they need
the model. `about` names model, texts, licences and the command that made the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.card import NeuronCard
from lensneurons.errors import choose
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.lens import LensCurves
from lensneurons.experiments.without import Continuations
from lensneurons.neurons.identification import Score, identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts, divide_layers
from lensneurons.options import plain_options
from lensneurons.samples.packing import PackedStatistics
from lensneurons.values.base import Overview, Shown, Value, whole
from lensneurons.values.files import load_json, save_json

FOLDER = Path(__file__).parent
ABOUT, STATISTICS, LENS = "about.json", "statistics.safetensors", "lens.safetensors"
# A matrix of each metric; folders of cards and of continuations.
EFFECTS, CARDS, STEERED = "effects-", "cards", "steered"


@dataclass(frozen=True, repr=False)
class About(Value):
    """What a sample is of, and how it was made.

    Attributes:
        model: its name.
        weights: what was done to them.
        model_licence: under which they are.
        texts: what was read.
        texts_licence: under which it is; no text is in the sample.
        command: made the statistics.
        score: option of `identify` that gives the neurons of the effects and the cards.
        top_rate: the same.
        files: of the sample, beside this one.
    """

    FILE_KIND: ClassVar = "description of a sample"

    model: str
    weights: str
    model_licence: str
    texts: str
    texts_licence: str
    command: str
    score: Score
    top_rate: float
    files: tuple[str, ...] = ()

    def save(self, path: str | Path) -> Path:
        """Write one file of readable JSON, atomically, and return its path."""
        return save_json(path, self._pack()[1])

    @classmethod
    def load(cls, path: str | Path) -> About:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged or newer one.
        """
        details = load_json(path)
        return whole(Path(path), cls, lambda: cls._unpack({}, details))

    def _brief(self) -> str:
        return f"{self.model}, {self.weights}; {self.texts}; made by {self.command!r}"

    def _overview(self) -> Overview:
        rows = [
            ("model", f"{self.model} ({self.model_licence})"),
            ("weights", self.weights),
            ("texts", f"{self.texts} ({self.texts_licence}); not in the sample"),
            ("made by", self.command),
        ]
        return Overview("What was measured", ("", ""), rows)


@dataclass(frozen=True, eq=False, repr=False)
class Sample(Shown):
    """What was measured on a real model. Given by `load_sample`.

    Attributes:
        name: such as ``"gemma-3-270m"``.
        about: model, texts, licences, and how it was made.
        statistics: activation counts in groups of items; without sums and squares.
        effects: metric to ablation matrix, as ``effects["nll"]``; empty where none was measured.
        lens: curves of the logit lens; None where it was not read.
        cards: of some neurons; no context is in them, because no text of the corpus is.
        steered: what `try_without` made of prompts that were written for it, each one example.
    """

    name: str
    about: About
    statistics: ActivationStatistics
    effects: dict[str, AblationMatrix]
    lens: LensCurves | None
    cards: tuple[NeuronCard, ...]
    steered: tuple[Continuations, ...] = ()

    @cached_property
    def neurons(self) -> LanguageNeurons:
        """The neurons that effects and cards are of: `identify` with the options of `about`."""
        return identify(self.statistics, score=self.about.score, top_rate=self.about.top_rate)

    @cached_property
    def parts(self) -> LayerParts:
        """The four parts, with their bootstrap over groups of items."""
        return divide_layers(self.neurons, self.statistics)

    def _brief(self) -> str:
        shape = f"{self.statistics.n_layers} layers x {self.statistics.d_mlp} neurons"
        return f"{self.name!r}, {shape}, {self.about.weights}; {self.about.texts}"

    def _overview(self) -> Overview:
        matrices = self.effects.values()
        rows = [
            *self.about._overview().rows,
            (".statistics", self.statistics),
            (".neurons", f"identify(score={self.about.score!r}, top_rate={self.about.top_rate:g})"),
            (".parts", "divide_layers(neurons, statistics)"),
            (".effects", "; ".join(map(repr, matrices)) or "not measured"),
            (".lens", self.lens or "not measured"),
            (".cards", f"{len(self.cards)} neurons" if self.cards else "none"),
            (".steered", f"{len(self.steered)} prompts" if self.steered else "not tried"),
        ]
        return Overview(f"Sample of {self.about.model}", ("", ""), rows)


def sample_names() -> tuple[str, ...]:
    """The names that `load_sample` knows."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob(f"*/{ABOUT}")))


@plain_options
def load_sample(name: str) -> Sample:
    """Load the statistics of a real model that come with the package.

    Args:
        name: ``"gemma-3-270m"``: Gemma 3 270M (18 layers x 2048 neurons) on sentences of FLORES;
            ``"qwen2.5-coder-0.5b"``: Qwen2.5-Coder 0.5B Instruct (24 x 4864) on its own responses
            to MGSM. `sample_names` lists all.

    Raises:
        LensNeuronsError: no such sample; the message lists those that are there.
        StorageError: a file of it is missing or damaged.
    """
    return read_sample(FOLDER / choose(name, sample_names(), "name"))


def read_sample(folder: Path) -> Sample:
    """Load a sample from its folder; errors are those of `load_sample`."""
    about = About.load(folder / ABOUT)
    files = [folder / name for name in about.files]
    matrices = [AblationMatrix.load(path) for path in files if path.name.startswith(EFFECTS)]
    packed = PackedStatistics.load(folder / STATISTICS)
    return Sample(
        name=folder.name,
        about=about,
        statistics=packed.unpack(),
        effects={matrix.metric: matrix for matrix in matrices},
        lens=LensCurves.load(folder / LENS) if folder / LENS in files else None,
        cards=tuple(NeuronCard.load(path) for path in files if path.parent.name == CARDS),
        steered=tuple(Continuations.load(path) for path in files if path.parent.name == STEERED),
    )
