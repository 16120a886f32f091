"""What all values share: nobody can change one, and each comes back from its file as it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.values.base import Overview, Table, Value, frozen, read_only
from lensneurons.values.files import save_arrays, save_rows
from lensneurons.values.provenance import Provenance


@dataclass(frozen=True)
class Knob:
    name: str
    turns: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Value):
    FILE_KIND: ClassVar = "curve"
    FILE_NAMES: ClassVar = {"height": "heights"}
    RUN_FILE: ClassVar = "curve.safetensors"
    AXES: ClassVar = {"height": ("place",), "spread": ("place",)}
    COORDINATES: ClassVar = {"place": "places"}

    places: tuple[str, ...]
    height: np.ndarray
    knob: Knob
    nested: tuple[tuple[int, ...], ...]
    pair: tuple[Provenance, Provenance]
    by_name: dict[str, tuple[float, float]]
    spread: np.ndarray | None = None
    limit: float | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def _brief(self) -> str:
        return f"{len(self.places)} <places>"

    def _overview(self) -> Overview:
        return Overview("<b>", ("<i>",), [("<script>",)])


@dataclass(frozen=True, eq=False, repr=False)
class Knobs(Table[Knob]):
    FILE_KIND: ClassVar = "knobs"

    room: str
    provenance: Provenance = field(default_factory=Provenance)


def curve(**options) -> Curve:
    given = {
        "places": ("a", "b", "c"),
        "height": np.arange(3.0),
        "knob": Knob("left", (1, 2)),
        "nested": ((1,), (), (2, 3)),
        "pair": (Provenance(model="one", corpora=("x", "y")), Provenance(model="two")),
        "by_name": {"en": (0.25, np.float64(0.1) + 0.2)},
    }
    return Curve(**given | options)


@pytest.mark.parametrize("options", [{}, {"spread": np.ones(3, np.float32), "limit": 0.5}])
def test_a_value_comes_back_as_it_was(options, tmp_path):
    value = curve(**options)
    again = Curve.load(value.save(tmp_path / "curve.safetensors"))
    for name in ("places", "knob", "nested", "pair", "by_name", "limit", "provenance"):
        assert getattr(again, name) == getattr(value, name)
        assert type(getattr(again, name)) is type(getattr(value, name))
    for name in ("height", "spread"):
        ours, theirs = getattr(value, name), getattr(again, name)
        assert (ours is None and theirs is None) or (
            ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
        )
    assert Curve.load(tmp_path).places == value.places  # a run folder


def test_rows_come_back_as_they_were(tmp_path):
    value = Knobs((Knob("links\n", (1,)), Knob("ขวา", ())), "kitchen", Provenance(model="m"))
    again = Knobs.load(value.save(tmp_path / "knobs.jsonl"))
    assert (again.rows, again.room, again.provenance) == (value.rows, "kitchen", value.provenance)
    assert (len(again), list(again)) == (2, list(value.rows))
    assert again.to_pandas()["name"].tolist() == ["links\n", "ขวา"]


def test_nobody_can_change_a_value(tmp_path):
    mine = np.arange(3.0)
    value = curve(height=mine)
    mine[0] = 7  # the caller's array stays theirs
    assert value.height.tolist() == [0, 1, 2]
    for one in (value, Curve.load(value.save(tmp_path / "c.safetensors"))):
        with pytest.raises(ValueError, match="read-only"):
            one.height[0] = 1
        with pytest.raises(AttributeError):
            one.height = mine


def test_only_what_somebody_can_write_is_copied():
    mine = np.arange(4.0)
    view = mine[:2]
    view.flags.writeable = False
    kept = frozen(view)
    mine[0] = 9
    assert kept.tolist() == [0, 1]
    fresh = read_only(np.arange(4.0))
    assert frozen(fresh) is fresh
    assert np.shares_memory(frozen(fresh[None]), fresh)


def test_strings_are_escaped_in_a_notebook():
    value = curve()
    assert repr(value) == "Curve(3 <places>)"
    assert "&lt;script&gt;" in value._repr_html_()
    assert "<script>" not in value._repr_html_()


def test_axes_have_names():
    data = curve().to_xarray()
    assert data["height"].dims == ("place",)
    assert data["place"].values.tolist() == ["a", "b", "c"]
    assert "spread" not in data
    with pytest.raises(LensNeuronsError, match="Knobs has no named axes: use to_pandas"):
        Knobs((), "kitchen").to_xarray()


def test_a_file_of_another_kind_or_with_gaps_is_refused(tmp_path):
    path = save_arrays(tmp_path / "c.safetensors", "curve", {"heights": np.ones(2)}, {})
    with pytest.raises(StorageError, match="does not hold one whole curve .*write it anew"):
        Curve.load(path)
    path = save_rows(tmp_path / "k.jsonl", "knobs", [{"name": "a"}], {"room": "x"})
    with pytest.raises(StorageError, match="does not hold one whole knobs"):
        Knobs.load(path)
    with pytest.raises(StorageError, match="holds knobs, but curve is wanted|is damaged"):
        Curve.load(path)
    with pytest.raises(StorageError, match="does not exist"):
        Curve.load(tmp_path / "none")
