"""An alignment that was trained: its folder, its checkpoints and its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensneurons.alignment.settings import DPOSettings
from lensneurons.display import html_table
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.provenance import Provenance
from lensneurons.storage import load_json, save_json

if TYPE_CHECKING:
    import pandas as pd

FILE = "alignment.json"
COLUMNS = (
    "step", "pairs", "loss", "margin", "accuracy", "reward_chosen", "reward_rejected", "gradient",
    "learning_rate",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Alignment:
    """A trained adapter. Made by `align`.

    Attributes:
        folder: the adapter after the last step; `load_model` takes it as ``adapter=``.
        settings: how it was trained; `modules` is the expression that the module names match.
        n_pairs: pairs that it was trained on.
        log: rows of `to_pandas`.
        provenance: of the base model and the pairs.
    """

    folder: Path
    settings: DPOSettings
    n_pairs: int
    log: tuple[Mapping[str, Any], ...]
    provenance: Provenance

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Step to the folder of its adapter, in the order of the steps."""
        found = {int(path.name.split("-")[1]): path for path in self.folder.glob("checkpoint-*")}
        return dict(sorted(found.items()))

    def to_pandas(self) -> pd.DataFrame:
        """The log. Columns: step; pairs ("trained": the mean since the row before; "held out": all
        of them, at this step); loss in nats; margin, of the implicit rewards in units of beta times
        nats; accuracy, the share of pairs whose better answer has the higher reward;
        reward_chosen, reward_rejected; gradient, its norm; learning_rate.
        """
        import pandas as pd

        return pd.DataFrame(list(self.log), columns=list(COLUMNS))

    def save(self) -> Path:
        """Write ``alignment.json`` into the folder, atomically, and return its path."""
        value = {
            "settings": asdict(self.settings),
            "n_pairs": self.n_pairs,
            "log": [dict(row) for row in self.log],
            "provenance": self.provenance.to_dict(),
        }
        return save_json(self.folder / FILE, value)

    @classmethod
    def load(cls, folder: str | Path) -> Alignment:
        """Read a folder that `align` has finished.

        Raises:
            StorageError: there is none, or it was interrupted.
        """
        if not (Path(folder) / FILE).is_file():
            raise StorageError(f"{folder} has no {FILE}: align() did not finish there")
        value = load_json(Path(folder) / FILE)
        return cls(
            Path(folder),
            DPOSettings(**value["settings"]),
            value["n_pairs"],
            tuple(value["log"]),
            Provenance.from_dict(value["provenance"]),
        )

    def __repr__(self) -> str:
        return (
            f"Alignment({self.provenance.model}: {self.settings.steps} steps of "
            f"{self.settings.batch} pairs out of {self.n_pairs}, rank {self.settings.rank}, "
            f"checkpoints {list(self.checkpoints)})"
        )

    def _repr_html_(self) -> str:
        columns = ("step", "pairs", "loss", "margin", "accuracy")
        rows = [tuple(_shown(row[name]) for name in columns) for row in self.log]
        return html_table(repr(self), columns, rows)


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def require_extra() -> None:
    """Raise unless what trains and loads adapters is installed.

    Raises:
        LensNeuronsError: says how to install it.
    """
    for name in ("peft", "trl"):
        if find_spec(name) is None:
            raise LensNeuronsError(
                f"alignment needs {name}, which is not installed: pip install 'lensneurons[align]'"
            )
