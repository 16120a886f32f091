"""The base of all values: nobody can change one, and all are saved, loaded and shown alike.

A value is a frozen dataclass whose fields say all about it. `Value` freezes its arrays and writes
it to one safetensors file: the arrays as they are, everything else as JSON in the header (see
`lensneurons.values.files`). `Table` is a value of rows of text: a file of JSON lines.

    class Curve(Value):
        FILE_KIND = "curve"                                   # checked on loading
        AXES = {"height": ("place",)}                         # for to_xarray
        COORDINATES = {"place": "places"}                     # the field that names the places
        places: tuple[str, ...]
        height: Float64[ndarray, "place"]
        provenance: Provenance

A subclass adds `_brief`, the text of its ``repr``, and `_overview`, its table in a notebook.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache, wraps
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
)
from typing import get_type_hints as type_hints

import numpy as np
from jaxtyping import jaxtyped

from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.values.files import load_arrays, load_rows, save_arrays, save_rows, system_path
from lensneurons.values.provenance import Provenance
from lensneurons.values.tables import html_table, text_table

if TYPE_CHECKING:
    from typing import Self

    import pandas as pd
    import xarray
else:
    Self = Any  # the tests check types at run time with beartype, which cannot check Self

Row = TypeVar("Row")
V = TypeVar("V", bound="Value")


class Overview(NamedTuple):
    """What a value shows of itself in a notebook: a title, column heads, and rows of cells."""

    title: str
    head: Sequence[object]
    rows: Iterable[Sequence[object]]


class Shown:
    """What shows itself: in a console by `_brief`, in a notebook by the table of `_overview`."""

    def __repr__(self) -> str:
        told = f"{type(self).__name__}({self._brief()})"
        return told.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot print

    def _repr_html_(self) -> str:
        return html_table(*self._overview())

    def to_text(self) -> str:
        """The table that a notebook shows, as aligned text for a console."""
        return text_table(*self._overview())

    def _brief(self) -> str:
        """What ``repr`` says between the parentheses."""
        raise NotImplementedError

    def _overview(self) -> Overview:
        """What a notebook shows."""
        return Overview(repr(self), (), ())


def _of_any_text(to_pandas: Callable[..., pd.DataFrame]) -> Callable[..., pd.DataFrame]:
    """A `to_pandas` that also takes lone surrogates, which the Arrow strings of pandas refuse."""

    @wraps(to_pandas)
    def table(*args: Any, **options: Any) -> pd.DataFrame:
        try:
            return to_pandas(*args, **options)
        except UnicodeEncodeError:
            import pandas as pd

            with pd.option_context("mode.string_storage", "python"):
                return to_pandas(*args, **options)

    return table


@dataclass(frozen=True, eq=False, repr=False)
class Value(Shown):
    """A frozen dataclass that can be saved, loaded and shown. See the module's docstring.

    Attributes:
        FILE_KIND: what a file of it holds, such as ``"activation statistics"``.
        FILE_NAMES: field to its name in the file, where the two differ.
        RUN_FILE: name of its file in a run folder, which `load` then accepts as well.
        AXES: array field to the names of its axes.
        COORDINATES: axis to the field (or property) that names the places along it.
    """

    FILE_KIND: ClassVar[str]
    FILE_NAMES: ClassVar[Mapping[str, str]] = {}
    RUN_FILE: ClassVar[str] = ""
    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    COORDINATES: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "to_pandas" in vars(cls):
            setattr(cls, "to_pandas", _of_any_text(vars(cls)["to_pandas"]))  # noqa: B010

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, entry.name, frozen(value))

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        arrays, details = self._pack()
        return save_arrays(path, self.FILE_KIND, arrays, details)

    @classmethod
    def load(cls: type[V], path: str | Path) -> V:
        """Read what `save` wrote; a run folder is accepted where one holds such a file.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        return cls._read(path)

    @classmethod
    def _read(cls: type[V], path: str | Path, *, memory_map: bool = False) -> V:
        """What `load` gives; `memory_map` leaves the arrays in the file."""
        file = _in_folder(path, cls.RUN_FILE)
        arrays, details = load_arrays(file, cls.FILE_KIND, memory_map=memory_map)
        fresh = {name: read_only(array) for name, array in arrays.items()}
        return whole(file, cls, lambda: cls._unpack(fresh, details))

    def _pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays and the JSON details of the file."""
        return self._packed({entry.name: getattr(self, entry.name) for entry in fields(self)})

    @classmethod
    def _packed(cls, given: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What `_pack` gives of these fields of a value."""
        arrays, details = {}, {}
        for entry in (one for one in fields(cls) if one.name in given):
            name, value = cls._file_name(entry.name), given[entry.name]
            if isinstance(value, np.ndarray):
                arrays[name] = value
            elif value is not None or entry.default is not None:
                details[name] = to_json(value)
        return arrays, details

    @classmethod
    def _unpack(cls: type[V], arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]) -> V:
        """The value that `_pack` described."""
        given: dict[str, Any] = {}
        names = {cls._file_name(entry.name): entry.name for entry in fields(cls)}
        given_names = {*arrays, *(name for name, value in details.items() if value is not None)}
        if foreign := sorted(given_names - names.keys()):
            raise KeyError(f"no entry is called {foreign[0]!r}")
        with jaxtyped("context"):  # an axis is as long in every array
            for name, field in names.items():
                hint = _hints(cls)[field]
                if name in arrays:
                    given[field] = _fitting(name, hint, arrays[name])
                elif name in details:
                    given[field] = from_json(hint, details[name])
        return cls(**given)

    @classmethod
    def _file_name(cls, field: str) -> str:
        return cls.FILE_NAMES.get(field, field)

    def to_xarray(self) -> xarray.Dataset:
        """The arrays with named axes as one data set; needs the extra ``xarray``.

        Raises:
            LensNeuronsError: the value has no array with named axes, or xarray is not installed.
        """
        if not self.AXES:
            raise LensNeuronsError(f"{type(self).__name__} has no named axes: use to_pandas()")
        try:
            import xarray
        except ImportError:
            raise LensNeuronsError(
                "to_xarray() needs xarray: pip install 'lensneurons[xarray]'"
            ) from None
        arrays = {name: (axes, getattr(self, name)) for name, axes in self.AXES.items()}
        names = {axis: list(getattr(self, field)) for axis, field in self.COORDINATES.items()}
        present = {name: pair for name, pair in arrays.items() if pair[1] is not None}
        return xarray.Dataset(present, coords=names)

    def _brief(self) -> str:
        return ", ".join(entry.name for entry in fields(self))


@dataclass(frozen=True, eq=False, repr=False)
class Table(Value, Generic[Row]):
    """A value of rows, each a small frozen dataclass: a file of JSON lines, a row a line."""

    rows: tuple[Row, ...]

    def save(self, path: str | Path) -> Path:
        """Write one file of JSON lines, atomically, and return its path."""
        _, details = self._pack()
        rows = details.pop("rows")
        return save_rows(path, self.FILE_KIND, rows, details)

    @classmethod
    def load(cls: type[V], path: str | Path) -> V:
        """Read what `save` wrote; a run folder is accepted where one holds such a file.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        file = _in_folder(path, cls.RUN_FILE)
        rows, details = load_rows(file, cls.FILE_KIND)
        return whole(file, cls, lambda: cls._unpack({}, {**details, "rows": rows}))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def to_pandas(self) -> pd.DataFrame:
        """One row a row, with a column for each of its fields."""
        import pandas as pd

        return pd.DataFrame([to_json(row) for row in self.rows])


def read_only(array: np.ndarray) -> np.ndarray:
    """Mark a fresh array that nobody else holds as read-only, so that `frozen` need not copy it."""
    array.flags.writeable = False
    return array


def frozen(array: np.ndarray) -> np.ndarray:
    """The array, read-only: itself where nobody can write to it, else a copy.

    The caller's own array stays writeable, and what the caller then writes changes no value.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            copy = array.copy()
            copy.flags.writeable = False
            return copy
        owner = owner.base
    return array


def to_json(value: Any) -> Any:
    """A field as JSON values: dataclasses become objects, tuples become lists."""
    if isinstance(value, Provenance):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {name: to_json(one) for name, one in asdict(value).items()}
    if isinstance(value, Mapping):
        return {name: to_json(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(one) for one in value]
    return value


def from_json(hint: Any, value: Any) -> Any:
    """The field of type `hint` that `to_json` wrote: lists become tuples and dataclasses again."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _of_one(arguments, value)
    if hint in _PLAIN:
        if not isinstance(value, _PLAIN[hint]) or (hint is not bool and isinstance(value, bool)):
            raise TypeError(f"{value!r} is no {hint.__name__}")
        return value
    if hint is type(None) or origin is Literal:
        if value not in (arguments or (None,)):
            raise TypeError(f"{value!r} is none of {list(arguments) or [None]}")
        return value
    if hint is Provenance:
        return Provenance.from_dict(value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{value!r} is no list")
        each = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(from_json(one, part) for one, part in zip(each, value, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {name: from_json(arguments[1], one) for name, one in value.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        hints = _hints(hint)
        return hint(**{name: from_json(hints[name], one) for name, one in value.items()})
    if value is None and hint is not Any:
        raise TypeError("null stands where a value belongs")
    return value


# Types of JSON values to what JSON reads as such: 1 may stand for 1.0, never 1.5 for an integer.
_PLAIN: dict[Any, Any] = {str: str, int: int, float: (int, float), bool: bool}


def _of_one(hints: Sequence[Any], value: Any) -> Any:
    """The field of the first type that the value fits."""
    for hint in hints:
        with suppress(TypeError, KeyError, AttributeError, ValueError):
            return from_json(hint, value)
    raise TypeError(f"{value!r} does not fit")


def _fitting(name: str, hint: Any, array: np.ndarray) -> np.ndarray:
    """The array, once its numbers and axes are those of the field."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not any(isinstance(array, kind) for kind in kinds if isinstance(kind, type)):
        raise TypeError(f"{name} is {array.dtype} {list(array.shape)}")
    return array


@cache
def _hints(owner: Any) -> dict[str, Any]:
    """The types of the fields of a dataclass; those of a `Table` name its rows."""
    hints = type_hints(owner)
    for base in getattr(owner, "__orig_bases__", ()):
        origin = get_origin(base)
        if isinstance(origin, type) and issubclass(origin, Table):
            hints["rows"] = tuple[get_args(base)[0], ...]
    return hints


def _in_folder(path: str | Path, name: str) -> Path:
    file = system_path(path)
    return file / name if name and os.path.isdir(file) else file


def whole(path: Path, kind: type[Value], build: Any) -> Any:
    """What `build` gives, or an error that names the file where entries are missing."""
    try:
        return build()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise StorageError(
            f"{path} does not hold one whole {kind.FILE_KIND} ({error}): write it anew"
        ) from None
