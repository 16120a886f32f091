"""What steering does and what it costs, by strength: the value that `steering_curve` gives.

For every strength alpha there are texts that the model wrote, and three kinds of texts that it was
only asked to predict:

    ``own``        prompts of the original language with their own responses: what is given up
    ``switched``   the same prompts with the responses of the language steered toward: what is
                   gained, measured without generating
    ``target``     prompts and responses of the language steered toward: what is broken there

A strength at which texts turn to the other language while ``own`` and ``target`` have become
unlikely alike is not steering but damage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from lensneurons.display import html_table
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.evaluation.answers import wilson_interval
from lensneurons.evaluation.item_intervals import item_bootstrap
from lensneurons.intervals import Interval
from lensneurons.provenance import Provenance
from lensneurons.shapes import RightAnswers, SteeredNLL, SteeredTokens
from lensneurons.storage import load_arrays, save_arrays

if TYPE_CHECKING:
    import pandas as pd

TextKind = Literal["own", "switched", "target"]
KINDS: tuple[str, ...] = get_args(TextKind)
KIND = "steering curve"


@dataclass(frozen=True, eq=False, repr=False)
class SteeringCurve:
    """Language, answers and predictions of a model that is steered more and more; immutable.

    Attributes:
        alphas: strengths, in means of the language steered toward.
        toward: the language steered toward.
        prompts_in: the language of the prompts.
        texts: what the model wrote, [alpha][item].
        guesses: language of each text, [alpha][item]; None where it is undetermined.
        right: bool [alpha, item], whether its last number is the item's answer.
        nll: float64 [alpha, kind, item], NLL of the response in nats; `KINDS` gives the kinds.
        tokens: int64 [kind, item], counted tokens.
        item_ids: the items.
        method: how it was steered.
        neurons: label of the neurons steered, and how many they are.
        ablated: label of the neurons that were ablated at the same time; None for none.
        provenance: model and corpus.
    """

    alphas: tuple[float, ...]
    toward: str
    prompts_in: str
    texts: tuple[tuple[str, ...], ...]
    guesses: tuple[tuple[str | None, ...], ...]
    right: RightAnswers
    nll: SteeredNLL
    tokens: SteeredTokens
    item_ids: tuple[str, ...]
    method: str
    neurons: str
    ablated: str | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def share_in(self, language: str | None, *, level: float = 0.95) -> Interval:
        """Share of texts in a language, [alpha], with Wilson's interval.

        Args:
            language: its tag; None for undetermined.
            level: coverage.

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        spoken = [[guess == language for guess in row] for row in self.guesses]
        return _wilson(np.array(spoken), level)

    def share_right(self, *, level: float = 0.95) -> Interval:
        """Share of right answers in whatever language, [alpha], with Wilson's interval.

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        return _wilson(self.right, level)

    def share_right_toward(self, *, level: float = 0.95) -> Interval:
        """Share of right answers in the language steered toward, [alpha], with Wilson's interval.

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        spoken = [[guess == self.toward for guess in row] for row in self.guesses]
        return _wilson(self.right & np.array(spoken), level)

    def mean_nll(
        self, kind: TextKind, *, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Mean NLL of one kind of texts, [alpha] in nats a token, with a bootstrap over items.

        Raises:
            LensNeuronsError: the kind is not known, or fewer than two items.
        """
        place = KINDS.index(choose(kind, KINDS, "kind"))
        return self._bootstrap(self.nll[:, place], place, draws, level, seed)

    def nll_change(
        self, kind: TextKind, *, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Change of the mean NLL since alpha 0, [alpha] in nats a token, paired by item.

        Raises:
            LensNeuronsError: the kind is not known, there is no alpha 0, or fewer than two items.
        """
        place = KINDS.index(choose(kind, KINDS, "kind"))
        if 0 not in self.alphas:
            raise LensNeuronsError(f"a change needs alpha 0; alphas are {list(self.alphas)}")
        before = self.nll[self.alphas.index(0), place]
        return self._bootstrap(self.nll[:, place] - before, place, draws, level, seed)

    def _bootstrap(
        self, values: np.ndarray, place: int, draws: int, level: float, seed: int
    ) -> Interval:
        one = np.zeros(len(self.item_ids), np.int64)
        found = item_bootstrap(
            self.item_ids, one, values, self.tokens[place], draws=draws, level=level, seed=seed
        )
        ends = (found.estimate[:, 0], found.low[:, 0], found.high[:, 0])
        return Interval(*ends, found.level, found.method)

    def to_pandas(self) -> pd.DataFrame:
        """One row a strength: shares (0 to 1) and mean NLL (nats a token), each with its ends.

        Columns: alpha, then toward, own language, undetermined, right, right_toward and nll_own,
        nll_switched, nll_target, each with ``_low`` and ``_high``.
        """
        import pandas as pd

        found: dict[str, Interval] = {
            "toward": self.share_in(self.toward),
            "stayed": self.share_in(self.prompts_in),
            "undetermined": self.share_in(None),
            "right": self.share_right(),
            "right_toward": self.share_right_toward(),
        }
        for place, kind in enumerate(KINDS):
            found[f"nll_{kind}"] = self._bootstrap(self.nll[:, place], place, 1000, 0.95, 0)
        columns: dict[str, object] = {"alpha": self.alphas}
        for name, interval in found.items():
            columns |= {
                name: interval.estimate,
                f"{name}_low": interval.low,
                f"{name}_high": interval.high,
            }
        return pd.DataFrame(columns)

    def texts_to_pandas(self) -> pd.DataFrame:
        """One row a strength and item: alpha, item, text, guess, right."""
        import pandas as pd

        rows = [
            (alpha, item, self.texts[a][i], self.guesses[a][i], bool(self.right[a, i]))
            for a, alpha in enumerate(self.alphas)
            for i, item in enumerate(self.item_ids)
        ]
        return pd.DataFrame(rows, columns=["alpha", "item", "text", "guess", "right"])

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        arrays = {name: getattr(self, name) for name in ("right", "nll", "tokens")}
        details = {name: getattr(self, name) for name in (*_LISTS, *_WORDS)}
        details["provenance"] = self.provenance.to_dict()
        return save_arrays(path, KIND, arrays, details)

    @classmethod
    def load(cls, path: str | Path) -> SteeringCurve:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        arrays, details = load_arrays(path, KIND)
        lists = {name: tuple(details.pop(name)) for name in _LISTS}
        for name in ("texts", "guesses"):
            lists[name] = tuple(map(tuple, lists[name]))
        provenance = Provenance.from_dict(details.pop("provenance"))
        return cls(**arrays, **lists, **details, provenance=provenance)

    def __repr__(self) -> str:
        shares = self.share_in(self.toward).estimate
        told = ", ".join(f"{a:g}: {s:.0%}" for a, s in zip(self.alphas, shares, strict=True))
        return f"SteeringCurve({self.prompts_in} to {self.toward}, {self.method}; {told})"

    def _repr_html_(self) -> str:
        table = self.to_pandas()
        names = [name for name in table if f"{name}_low" in table]
        rows = [
            [
                row["alpha"],
                *(f"{row[n]:.2f} ({row[n + '_low']:.2f}-{row[n + '_high']:.2f})" for n in names),
            ]
            for row in table.to_dict("records")
        ]
        without = f", without {self.ablated}" if self.ablated else ""
        title = f"{self.prompts_in} to {self.toward}: {self.method} {self.neurons}{without}"
        return html_table(title, ("alpha", *names), rows)


_LISTS = ("alphas", "texts", "guesses", "item_ids")
_WORDS = ("toward", "prompts_in", "method", "neurons", "ablated")


def _wilson(found: RightAnswers, level: float) -> Interval:
    """Shares of true entries [alpha] with Wilson's intervals."""
    if not 0 < level < 1:
        raise LensNeuronsError(f"level={level}: coverage is a number between 0 and 1")
    ends = [wilson_interval(int(row.sum()), len(row), level=level) for row in found]
    low, high = np.array(ends, float).T
    return Interval(found.mean(axis=1), low, high, level, "wilson")
