"""Numbers and texts of any make are plain Python's inside, and what is none is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch

from lensneurons.errors import LensNeuronsError
from lensneurons.options import plain_options


@plain_options
def verb(
    model: str,
    *,
    groups: int = 10,
    limit: int | None = None,
    rate: float = 0.5,
    weight: float | Literal["auto"] = "auto",
    shown: bool = True,
    prompts: Sequence[str] = (),
) -> tuple[Any, ...]:
    """All kinds of options."""
    return model, groups, limit, rate, weight, shown, prompts


def test_scalars_of_numpy_and_torch_become_pythons():
    found = verb(
        "m", groups=np.int64(5), limit=torch.tensor(3), rate=np.float32(0.25),
        weight=torch.tensor(0.5), shown=np.bool_(False),
    )  # fmt: skip
    assert found == ("m", 5, 3, 0.25, 0.5, False, ())
    assert [type(one) for one in found[1:6]] == [int, int, float, float, bool]


def test_what_is_plain_stays_as_it_is():
    given = ["a", "b"]
    assert verb("m", prompts=given)[-1] is given
    assert type(verb("m", rate=1)[3]) is float
    assert verb("m")[2:5] == (None, 0.5, "auto")
    assert list(signature(verb).parameters)[:2] == ["model", "groups"]


@pytest.mark.parametrize(
    "prompts",
    [
        ("a", "b"),
        pd.Series(["a", "b"], index=[7, 3]),
        np.array(["a", "b"]),
        (letter for letter in "ab"),
    ],
)
def test_lists_of_texts_of_any_kind(prompts):
    found = verb("m", prompts=prompts)[-1]
    assert list(found) == ["a", "b"]
    assert {type(one) for one in found} == {str}
    assert isinstance(found, Sequence)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"groups": True}, "groups=True is not a whole number; give one such as 10"),
        ({"groups": "5"}, "groups='5' is not a whole number"),
        ({"groups": 5.0}, "groups=5.0 is not a whole number"),
        ({"groups": np.array([5])}, "groups=array([5]) is not a whole number"),
        ({"groups": None}, "groups=None is not a whole number"),
        ({"rate": "0.5"}, "rate='0.5' is not a number; give one such as 0.5"),
        ({"rate": np.bool_(True)}, "rate=True is not a number"),
        ({"rate": np.float32("nan")}, "rate=nan is not a finite number; give one that is"),
        ({"rate": -np.inf}, "rate=-inf is not a finite number"),
        ({"rate": 10**400}, "is not a finite number"),
        ({"weight": torch.tensor(torch.inf)}, "weight=inf is not a finite number"),
        ({"shown": 1}, "shown=1 is neither True nor False"),
        ({"prompts": ["a", 7]}, "prompts[1]=7 is not text; give texts alone"),
        ({"prompts": 7}, "prompts=7 is no list of texts; give a list"),
        ({"prompts": {"a": 1}}, "prompts={'a': 1} is no list of texts; give a list"),
    ],
)
def test_what_is_no_such_thing_is_refused_by_name(options, told):
    with pytest.raises(LensNeuronsError) as caught:
        verb("m", **options)
    assert told in str(caught.value)


def test_what_python_refuses_python_says():
    wrong: Any = verb
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'model'"):
        wrong()
    with pytest.raises(TypeError, match="unexpected keyword argument 'group'"):
        wrong("m", group=5)
