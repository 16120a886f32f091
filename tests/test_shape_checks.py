"""The guard that runs under every test: arrays of another shape or dtype than annotated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import shape_checks
from beartype import beartype
from jaxtyping import Float32, Float64, TypeCheckError

from lensneurons.comparison.nulls import logit, raise_uniformly
from lensneurons.experiments.controls import Control
from lensneurons.neurons.sets import NeuronSet


@pytest.mark.parametrize("shift", [np.ones((3, 1)), np.ones(1, np.float32)])
def test_another_shape_or_dtype_is_an_error(shift: np.ndarray) -> None:
    before, layer = np.full((2, 3), 0.5), np.zeros(3, np.int64)
    assert raise_uniformly(before, layer, 0.4, np.ones(1)).shape == (2, 3)
    with pytest.raises(TypeCheckError, match="shift"):
        raise_uniformly(before, layer, 0.4, shift)


def test_dataclasses_and_plain_types_are_checked() -> None:
    with pytest.raises(TypeCheckError, match="flat"):
        Control(NeuronSet(np.arange(2), 1, 3), np.zeros((1, 2)))
    with pytest.raises(TypeCheckError):
        logit("a half")


def double(x: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    return 2 * x


def half(x: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    return x[: len(x) // 2]


def refused(function: Callable, calls: int) -> list[int]:
    """Which of so many calls are refused."""
    found = []
    for call in range(1, calls + 1):
        try:
            function(np.zeros(4, np.float32 if function.__name__ == "double" else np.float64))
        except TypeCheckError:
            found.append(call)
    return found


@pytest.mark.parametrize("wrong", [double, half])
def test_the_first_calls_in_a_test_and_one_in_25_are_checked(wrong: Callable) -> None:
    """Arguments and results."""
    function = shape_checks.checked(wrong, typechecker=beartype)
    assert refused(function, 100) == [1, 2, 25, 50, 75, 100]
    shape_checks.begin_test()
    assert refused(function, 1) == [1]


def test_a_function_made_again_goes_on_counting() -> None:
    def made() -> Callable:
        def inner(x: Float32[np.ndarray, " n"]) -> None: ...

        return shape_checks.checked(inner, typechecker=beartype)

    found = [bool(refused(made(), 1)) for _ in range(26)]
    assert found == [True] * 2 + [False] * 22 + [True, False]
