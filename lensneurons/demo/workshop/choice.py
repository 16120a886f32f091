"""Which neurons carry the choice of how to answer: worked out, or direct.

A worked answer begins with an equation in words ("Anna has now 12 + 30 = 42 apples."), a direct one
with the last sentence ("The answer is ..."). Up to a token both texts are alike, then the model
chooses. With p of the two next tokens after what they share,

    direct = p(direct) / (p(direct) + p(worked))

which is the share of direct answers among the two; `covered` is their sum, and where it is small
the share is about little. Two questions, for all neurons of a layer and for each class:

    patched   the aligned model reads the text with these neurons' ``hook_post`` as the base has it,
              at every position: how much of the change of `direct` goes back?
    ablated   the base without these neurons: do they hold its choice?

Neurons that carry the change take it back where they are patched. An adapter of the attention
reaches the choice without neurons too: "all neurons" says how much goes through neurons at all, and
the attention of a layer, what it adds to the stream patched in the same way, where the rest is. All
attention takes everything back, if the adapter is of the attention alone. The controls are random
neurons of the same layers, matched by their activity p in the language of the text; p of both
stands in the table, since few others are as active as agnostic neurons.

    python -m lensneurons.demo.workshop.choice BASE zh-de=ADAPTER

prints a table for the trained and one for the untouched languages. Classes are those of the base,
found on validation problems; the choice is measured on test problems.

>>> found = measure_choice(base, aligned, problems, neurons)                    # doctest: +SKIP
>>> found.table(["es", "ru"])                                                   # doctest: +SKIP

What it does not show: what comes after the choice; effects of neurons on it do not add up.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64

from lensneurons.activations.collection import collect
from lensneurons.corpora.corpus import load_corpus
from lensneurons.demo.run import SCORE, TOP_RATE
from lensneurons.demo.workshop.align import groups_of
from lensneurons.demo.workshop.markdown import markdown_table, points
from lensneurons.demo.world import generate
from lensneurons.demo.world.language import find_language
from lensneurons.demo.world.problems import Problem
from lensneurons.demo.world.template import pick_variant, write_answer, write_question
from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.controls import draw_control
from lensneurons.interventions.editing import ablate, hooking
from lensneurons.interventions.patching import Put, read_source
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import load_model
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.sets import NeuronSet
from lensneurons.uncertainty.items import item_bootstrap

if TYPE_CHECKING:
    import pandas as pd

CLASSES = ("specific", "related", "agnostic")
ALL = "all neurons"
ATTENTION = "all attention"
FORMS = {"neurons": ".0f", "p": ".2f"}
_EQUATION = re.compile(r"\d+ [-+×÷] \d+ = \d")


def is_worked(answer: str) -> bool:
    """Say whether an answer works the problem out: it has an equation in digits."""
    return bool(_EQUATION.search(answer))


class Fork(NamedTuple):
    """A text up to the choice, and the tokens that are chosen from."""

    ids: list[int]
    direct: int
    worked: int


@dataclass(frozen=True, eq=False)
class ChoiceEffects:
    """How the share of direct answers changes with neurons patched and ablated.

    Attributes:
        languages: those of the texts.
        items: their problems.
        conditions: names of the sets of neurons, then of the attention.
        base: float64 [language, item], the share in the base, 0 to 1.
        aligned: float64 [language, item], in the aligned model.
        covered: float64 [2, language, item], probability of both tokens together in base and
            aligned model.
        patched: float64 [condition, language, item], in the aligned model with the base's neurons.
        ablated: float64 [condition, language, item], in the base without the neurons; NaN for
            attention.
        sizes: float64 [condition, language], how many neurons; NaN for attention.
        activity: float64 [condition, language], their mean activation probability in the language,
            0 to 1; NaN for attention, and without neurons.
    """

    languages: tuple[str, ...]
    items: tuple[str, ...]
    conditions: tuple[str, ...]
    base: Float64[np.ndarray, "language item"]
    aligned: Float64[np.ndarray, "language item"]
    covered: Float64[np.ndarray, "2 language item"]
    patched: Float64[np.ndarray, "condition language item"]
    ablated: Float64[np.ndarray, "condition language item"]
    sizes: Float64[np.ndarray, "condition language"]
    activity: Float64[np.ndarray, "condition language"]

    def table(self, languages: Sequence[str]) -> pd.DataFrame:
        """Mean effects over some languages, with 95 % intervals over items.

        Returns:
            One row a condition, after one for the change itself. Columns: neurons (mean number), p
            (their mean activation probability), taken_back (patched less aligned), removed (ablated
            less base), shares from -1 to 1, and the ends of both.

        Raises:
            LensNeuronsError: a language that was not measured.
        """
        import pandas as pd

        if missing := set(languages) - set(self.languages):
            raise LensNeuronsError(f"{sorted(missing)} not measured; there are {self.languages}")
        rows = [self.languages.index(code) for code in languages]
        changes = [("change", np.nan, np.nan, self.aligned - self.base, np.zeros_like(self.base))]
        for place, name in enumerate(self.conditions):
            both = self.patched[place] - self.aligned, self.ablated[place] - self.base
            size, activity = self.sizes[place, rows], self.activity[place, rows]
            there = ~np.isnan(activity)
            p = activity[there].mean() if there.any() else np.nan
            changes.append((name, size.mean(), p, *both))
        found = []
        for name, number, p, *both in changes:
            told: dict[str, Any] = {"condition": name, "neurons": number, "p": p}
            for column, values in zip(("taken_back", "removed"), both, strict=True):
                told |= _mean(column, values[rows], self.items)
            found.append(told)
        return pd.DataFrame(found).set_index("condition")


def _mean(column: str, values: np.ndarray, items: tuple[str, ...]) -> dict[str, float]:
    """A mean over languages and items, with its interval over items; NaN where a value is."""
    mean = values.mean(axis=0)
    if np.isnan(mean).any():
        return dict.fromkeys((column, f"{column}_low", f"{column}_high"), float("nan"))
    drawn = item_bootstrap(items, np.zeros(len(items), np.int64), mean, np.ones(len(items)))
    low, high = float(drawn.low[0]), float(drawn.high[0])
    return {column: float(mean.mean()), f"{column}_low": low, f"{column}_high": high}


def measure_choice(
    base: Any,
    aligned: Any,
    problems: Sequence[Problem],
    neurons: LanguageNeurons,
    *,
    draws: int = 5,
    seed: int = 0,
) -> ChoiceEffects:
    """Patch and ablate neurons, and measure the choice between a worked and a direct answer.

    Args:
        base: a TransformerLens model of the demo world.
        aligned: the same with an adapter; its neurons are those of `base`.
        problems: the same in every language of `neurons`.
        neurons: the classes; from the base, on other problems.
        draws: random sets of each control.
        seed: of the random sets.
    """
    tokenizer, n = original_tokenizer(base), len(problems)
    names = [name for name, _ in sets_in(neurons, neurons.languages[0], draws, seed)]
    sites = [f"blocks.{layer}.hook_attn_out" for layer in range(neurons.n_layers)]
    attention = {ATTENTION: sites}
    attention |= {f"attention of layer {layer}": [site] for layer, site in enumerate(sites)}
    names += attention
    shape = len(names), len(neurons.languages), n
    patched, ablated = np.full((2, *shape), np.nan)
    sizes, activity = np.full((2, *shape[:2]), np.nan)
    plain, covered = np.empty((2, *shape[1:])), np.empty((2, *shape[1:]))
    post = neuron_site(base).post
    for row, code in enumerate(neurons.languages):
        forks = [find_fork(problem, code, tokenizer) for problem in problems]
        ids = _pad(forks)
        length = ids.shape[1]
        places = list(range(length))
        for which, model in enumerate((base, aligned)):
            plain[which, row], covered[which, row] = _shares(model, ids, forks)
        values = read_source(base, ids, [*post, *sites], places)
        for place, (_, sets) in enumerate(sets_in(neurons, code, draws, seed)):
            each: list[Any] = [] if sets else [(np.full(n, np.nan),) * 2]
            sizes[place, row] = np.mean([len(one) for one in sets]) if sets else np.nan
            if some := [neurons.probability[..., row][one.mask()] for one in sets if len(one)]:
                activity[place, row] = np.mean([p.mean() for p in some])
            for one in sets:
                own = one.by_layer().items()
                puts = [(post[k], Put(values[post[k]], places, length, few)) for k, few in own]
                with hooking(aligned, puts):
                    back = _shares(aligned, ids, forks)[0]
                with ablate(base, one) if len(one) else nullcontext():
                    each.append((back, _shares(base, ids, forks)[0]))
            patched[place, row], ablated[place, row] = np.mean(each, axis=0)
        for name, some in attention.items():
            puts = [(site, Put(values[site], places, length, slice(None))) for site in some]
            with hooking(aligned, puts):
                patched[names.index(name), row] = _shares(aligned, ids, forks)[0]
    items = tuple(problem.id for problem in problems)
    return ChoiceEffects(
        neurons.languages,
        items,
        tuple(names),
        plain[0],
        plain[1],
        covered,
        patched,
        ablated,
        sizes,
        activity,
    )


def find_fork(problem: Problem, code: str, tokenizer: Any) -> Fork:
    """Write the question of a problem and what its worked and its direct answer share."""
    language = find_language(code)
    question = write_question(problem, language, pick_variant(problem, language))
    worked, direct = (
        tokenizer(write_answer(problem, language, worked=way), add_special_tokens=False)[
            "input_ids"
        ]
        for way in (True, False)
    )
    same = next(k for k, (a, b) in enumerate(zip(worked, direct, strict=False)) if a != b)
    ids = tokenizer(question + "\n")["input_ids"] + direct[:same]
    return Fork(ids, direct[same], worked[same])


def sets_in(
    neurons: LanguageNeurons, code: str, draws: int, seed: int
) -> Iterator[tuple[str, list[NeuronSet]]]:
    """The sets of neurons whose part in the choice is asked, by name.

    A control has several sets, or none where a layer has too few other neurons.
    """
    every = NeuronSet.from_mask(np.ones(neurons.probability.shape[:2], bool), ALL)
    yield ALL, [every]
    layers = [
        NeuronSet.from_mask(np.arange(neurons.n_layers)[:, None].repeat(neurons.d_mlp, 1) == layer)
        for layer in range(neurons.n_layers)
    ]
    for layer, one in enumerate(layers):
        yield f"layer {layer}", [one]
    own = {"specific": neurons.specific[code], "related": neurons.related[code]}
    own["agnostic"] = neurons.agnostic
    for name in CLASSES:
        yield name, [own[name]]
        controls: list[NeuronSet] = []
        if 2 * own[name].per_layer().max() <= neurons.d_mlp:  # as many others are there
            drawn = draw_control(neurons, code, own[name], "own", "all", draws=draws, seed=seed)
            controls = [drawn[draw] for draw in range(len(drawn))]
        yield f"control of {name}", controls
    for name in CLASSES:
        for layer, one in enumerate(layers):
            yield f"{name} of layer {layer}", [own[name] & one]


def _pad(forks: Sequence[Fork]) -> torch.Tensor:
    """Texts as one rectangle, filled up on the right, where a causal model never looks."""
    longest = max(len(fork.ids) for fork in forks)
    return torch.tensor([[*fork.ids, *[0] * (longest - len(fork.ids))] for fork in forks])


@torch.inference_mode()
def _shares(model: Any, ids: torch.Tensor, forks: Sequence[Fork]) -> tuple[np.ndarray, np.ndarray]:
    """float64 [text] each: the share of the direct token, and the probability of both tokens."""
    logits = model(ids, attention_mask=None, return_type="logits")
    ends = torch.tensor([len(fork.ids) - 1 for fork in forks])
    chosen = logits[torch.arange(len(forks)), ends].double().softmax(-1)
    two = chosen.gather(-1, torch.tensor([[fork.direct, fork.worked] for fork in forks])).numpy()
    return two[:, 0] / two.sum(-1), two.sum(-1)


def write_table(table: pd.DataFrame) -> list[str]:
    """Write a table of effects in Markdown, in points of percent."""
    head = ["neurons of", "how many", "p", "patched", "ablated"]
    rows = [
        [row["condition"], *(_number(row[key], form) for key, form in FORMS.items())]
        + [_points(row, column) for column in ("taken_back", "removed")]
        for row in table.reset_index().to_dict("records")
    ]
    return markdown_table(head, rows)


def _number(value: float, form: str) -> str:
    return "" if np.isnan(value) else format(value, form)


def _points(row: Mapping[Any, Any], column: str) -> str:
    middle, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    return "" if np.isnan(middle) else points(middle, low, high)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print which neurons carry what an alignment changed; return 2 if a model cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m lensneurons.demo.workshop.choice",
        description="Patch and ablate the neurons of a demo model where it chooses how to answer.",
    )
    parser.add_argument("base", help="folder of the model, or demo")
    parser.add_argument("run", metavar="NAME=ADAPTER", help="as for the outcomes")
    parser.add_argument("--problems", type=int, default=40, help="test problems a language")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    name, _, adapter = options.run.partition("=")
    try:
        groups = groups_of(name)
        base = load_model(options.base, device="cpu")
        aligned = load_model(options.base, adapter=adapter, device="cpu")
        statistics = collect(base, load_corpus("demo", split="validation", limit=100))
        neurons = identify(statistics, score=SCORE, top_rate=TOP_RATE)
        found = measure_choice(base, aligned, generate("test", options.problems), neurons)
    except LensNeuronsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for word, languages in groups.items():
        if languages:
            lines = write_table(found.table(languages))
            sys.stdout.write("\n".join((f"\n{name}, {word} languages:\n", *lines, "")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
