"""How the samples were made: what was measured goes in, a folder without any text comes out.

    python -m lensneurons.samples.workshop NAME --statistics RUN [--effects RUN ...] [--lens FILE]
        [--cards FOLDER] [--steered FOLDER]

RUN is a run folder of `collect` or `ablation_matrix` or a file that was saved. The folder of the
sample, beside this file, is written anew; it is part of the wheel, and this module is not.

What is left out on purpose: sums and squares of activations (see `packing`), and the contexts of
cards, which quote the corpus.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.card import NeuronCard, neuron_facts
from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.ablation import ablation_sets
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.lens import LensCurves
from lensneurons.experiments.without import Continuations
from lensneurons.samples.packing import PackedStatistics
from lensneurons.samples.sample import (
    ABOUT,
    CARDS,
    EFFECTS,
    FOLDER,
    LENS,
    STATISTICS,
    STEERED,
    About,
    Sample,
    read_sample,
)
from lensneurons.values.base import Value

QUANTISED = "4-bit weights dequantised to float32"
LEFT_OUT = "the texts of its contexts are left out of this sample"
ABOUTS = {
    "gemma-3-270m": About(
        model="Gemma 3 270M",
        weights=QUANTISED,
        model_licence="Gemma Terms of Use",
        texts="the first 300 sentences of FLORES-200 (split train of SIB-200) in ten languages",
        texts_licence="CC BY-SA 4.0",
        command=(
            "ln.collect(ln.load_model('gemma-3-270m'), "
            "ln.load_corpus('flores_sib200', split='train', limit=300), scope='all')"
        ),
        score="lape",
        top_rate=0.01,
    ),
    "qwen2.5-coder-0.5b": About(
        model="Qwen2.5-Coder 0.5B Instruct",
        weights=QUANTISED,
        model_licence="Apache 2.0",
        texts=(
            "its own responses, of at most 160 tokens, to the first 20 questions of MGSM in six "
            "languages, through its chat template"
        ),
        texts_licence="questions: CC BY 4.0",
        command=(
            "lensneurons study qwen2.5-coder-0.5b --corpus mgsm --chat --limit 25 --items 20 "
            "--effect-items 5 --languages en,de,zh,ja,th,sw --max-new-tokens 160 ..., whole in "
            "assets/studies/qwen2.5-coder-0.5b"
        ),
        score="lape",
        top_rate=0.01,
    ),
}


def pack_sample(
    out: Path,
    about: About,
    *,
    statistics: ActivationStatistics,
    effects: Sequence[AblationMatrix] = (),
    lens: LensCurves | None = None,
    cards: Sequence[NeuronCard] = (),
    steered: Sequence[Continuations] = (),
) -> Sample:
    """Write the folder of a sample anew, and return what a reader gets from it.

    Args:
        out: the folder; what is there is replaced.
        about: what was measured; its `files` are filled in here.
        statistics: counts in groups of items.
        effects: a matrix of each metric, of ``identify`` with the options of `about`.
        lens: curves of the logit lens.
        cards: of some neurons; their contexts are left out.
        steered: continuations of prompts that are nobody else's.

    Raises:
        LensNeuronsError: values of several models, a model that is called by its path, two matrices
            of one metric, or a matrix of other neurons than those of `about`.
    """
    files: dict[str, Value] = {STATISTICS: PackedStatistics.pack(statistics)}
    files |= {f"{EFFECTS}{matrix.metric}.safetensors": matrix for matrix in effects}
    files |= {LENS: lens} if lens is not None else {}
    files |= {f"{CARDS}/{card.facts.name}.jsonl": without_texts(card) for card in cards}
    files |= {f"{STEERED}/{number:02}.jsonl": one for number, one in enumerate(steered, start=1)}
    if len(files) < 1 + len(effects) + (lens is not None) + len(cards) + len(steered):
        raise LensNeuronsError("two matrices of one metric, or two cards of one neuron")
    if Path(statistics.provenance.model).is_absolute():
        raise LensNeuronsError(
            f"the model is called {statistics.provenance.model!r}: load it by its bare name"
        )
    if out.exists():
        shutil.rmtree(out)
    for name, value in files.items():
        value.save(out / name)
    replace(about, files=tuple(files)).save(out / ABOUT)
    sample = read_sample(out)
    _require_one_origin(sample)
    return sample


def without_texts(card: NeuronCard) -> NeuronCard:
    """The card without its contexts; its source says so."""
    return replace(card, contexts=(), source=f"{card.source}; {LEFT_OUT}")


def _require_one_origin(sample: Sample) -> None:
    """Raise unless all else is of the model, effects and cards of the neurons of the sample."""
    neurons, lens = sample.neurons, [sample.lens] if sample.lens is not None else []
    for value in (*sample.effects.values(), *lens, *sample.steered):
        if value.provenance.weights != neurons.provenance.weights:
            raise LensNeuronsError(f"{value!r} is of another model than the statistics")
    for matrix in sample.effects.values():
        sets = ablation_sets(neurons, matrix.classes, matrix.rows)
        removed = [
            [np.bincount(one.flat // one.d_mlp, minlength=one.n_layers) for one in rows.values()]
            for rows in sets.values()
        ]
        if not np.array_equal(removed, matrix.neurons_by_layer):
            raise LensNeuronsError(f"{matrix!r} removed other neurons than {neurons!r}")
    for card in sample.cards:
        facts = neuron_facts(neurons, card.facts.name)
        if (facts.probability, facts.score) != (card.facts.probability, card.facts.score):
            raise LensNeuronsError(f"{card!r} is not of {neurons!r}")


def main() -> None:
    """Read the arguments, and write the sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=ABOUTS)
    parser.add_argument("--statistics", type=Path, required=True)
    parser.add_argument("--effects", type=Path, nargs="*", default=[])
    parser.add_argument("--lens", type=Path)
    parser.add_argument("--cards", type=Path, help="folder of saved cards")
    parser.add_argument("--steered", type=Path, help="folder of saved continuations")
    parser.add_argument("--out", type=Path, default=FOLDER)
    given = parser.parse_args()
    cards = sorted(given.cards.glob("*.jsonl")) if given.cards is not None else []
    steered = sorted(given.steered.glob("*.jsonl")) if given.steered is not None else []
    pack_sample(
        given.out / given.name,
        ABOUTS[given.name],
        statistics=ActivationStatistics.load(given.statistics),
        effects=[AblationMatrix.load(path) for path in given.effects],
        lens=None if given.lens is None else LensCurves.load(given.lens),
        cards=[NeuronCard.load(path) for path in cards],
        steered=[Continuations.load(path) for path in steered],
    )


if __name__ == "__main__":
    main()
