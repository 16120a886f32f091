"""The problems themselves, without any language: families, numbers, splits and worked steps.

Problems of `FAMILIES` take one or two steps; those of `LONG_FAMILIES`, which only a training can
ask for, take three or four.

A problem is a family, its numbers, and the keys of its people and things. Everything else (the id,
the split, which numbers are written in digits, the answer) follows from those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from lensneurons.errors import LensNeuronsError, choose

Split = Literal["train", "validation", "test"]
SPLITS: tuple[str, ...] = get_args(Split)

NAMES: tuple[str, ...] = tuple(f"{sex}{i:02d}" for sex in "fm" for i in range(20))
OBJECTS: tuple[str, ...] = tuple(
    "apple orange banana mango pear lemon egg potato tomato carrot onion coconut watermelon "
    "cookie candy cake book notebook pencil pen envelope newspaper stamp photo map ticket key "
    "button stone flower shell ball doll toy cup plate spoon bottle candle lamp chair hat shirt "
    "blanket towel".split()
)
ANIMALS: tuple[str, ...] = ("goat", "sheep", "hen", "duck", "rabbit", "cow")
THINGS: tuple[str, ...] = OBJECTS + ANIMALS
PLACES: tuple[str, ...] = tuple("village city market school station river sea forest".split())
UNITS: tuple[str, ...] = tuple("box year km hour minute page day money child time".split())
_POOLS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "any": THINGS,
    "object": OBJECTS,
    "boxed": tuple(key for key in OBJECTS if key not in ("watermelon", "lamp", "chair")),
    "place": PLACES,
}
_SIGNS = {"+": "+", "-": "-", "*": "×", "/": "÷"}

Draw = Callable[[Random], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of arithmetic: ``left sign right = result``."""

    left: int
    sign: str
    right: int
    result: int


@dataclass(frozen=True, slots=True)
class Family:
    """How problems of one family are drawn and solved.

    Attributes:
        people: how many people take part.
        pool: where the thing comes from; ``"none"`` for no thing.
        plan: the arithmetic, as steps separated by commas. An operand is the place of a number, or
            ``@`` for the result of the step before.
        draw: draws numbers for which every result is a positive integer.
    """

    people: int
    pool: str
    plan: str
    draw: Draw


@dataclass(frozen=True, slots=True)
class Problem:
    """One word problem, the same in all languages. `make_problem` makes it.

    Attributes:
        id: family and a digest of the content; equal content has an equal id.
        family: a key of `ALL_FAMILIES`.
        numbers: the numbers of the question, in the order of the family.
        people: keys of names, from `NAMES`.
        things: keys of things or places, from `THINGS` or `PLACES`.
        answer: the result, a positive integer.
        digits: places in `numbers` that the question writes in digits.
        split: the split that the content belongs to.
    """

    id: str
    family: str
    numbers: tuple[int, ...]
    people: tuple[str, ...]
    things: tuple[str, ...]
    answer: int
    digits: tuple[int, ...]
    split: str


def _between(*bounds: tuple[int, int]) -> Draw:
    """Draw independent numbers, one for each (low, high), both included."""
    return lambda rng: tuple(rng.randint(low, high) for low, high in bounds)


def _larger_first(rng: Random) -> tuple[int, ...]:
    first = rng.randint(3, 99)
    return first, rng.randint(2, first - 1)


def _larger_second(rng: Random) -> tuple[int, ...]:
    first = rng.randint(2, 99)
    return first, rng.randint(first + 1, 100)


def _dividend_and_divisor(rng: Random) -> tuple[int, ...]:
    divisor = rng.randint(2, 10)
    return divisor * rng.randint(2, 20), divisor


def _gain_and_loss(rng: Random) -> tuple[int, ...]:
    """Draw two numbers to add, and one to take away that is smaller than their sum."""
    first, second = rng.randint(2, 60), rng.randint(2, 60)
    return first, second, rng.randint(2, min(99, first + second - 1))


def _purse_and_prices(rng: Random) -> tuple[int, ...]:
    """Draw a purse of at most 100, and a count and a price that cost less."""
    count, price = rng.randint(2, 9), rng.randint(2, 10)
    return rng.randint(count * price + 1, 100), count, price


_PAIR = _between((2, 99), (2, 99))
_AGES = _between((3, 60), (2, 30))
_PRODUCT = _between((2, 30), (2, 9))

FAMILIES: Mapping[str, Family] = {
    "gain": Family(2, "any", "0+1", _PAIR),
    "loss": Family(2, "any", "0-1", _larger_first),
    "more_than": Family(2, "any", "0+1", _PAIR),
    "difference": Family(2, "any", "0-1", _larger_first),
    "times": Family(2, "any", "0*1", _PRODUCT),
    "groups": Family(1, "boxed", "0*1", _between((2, 12), (2, 30))),
    "sharing": Family(1, "object", "0/1", _dividend_and_divisor),
    "packing": Family(1, "boxed", "0/1", _dividend_and_divisor),
    "price": Family(1, "object", "0*1", _between((2, 12), (2, 30))),
    "change": Family(1, "object", "1-0", _larger_second),
    "age_older": Family(2, "none", "0+1", _AGES),
    "age_future": Family(1, "none", "0+1", _AGES),
    "speed": Family(1, "none", "0*1", _PRODUCT),
    "distance_left": Family(1, "place", "0-1", _larger_first),
    "time_total": Family(1, "none", "0+1", _PAIR),
    "pages": Family(1, "none", "0/1", _dividend_and_divisor),
    "two_step_buy": Family(1, "boxed", "1*2,0+@", _between((2, 60), (2, 9), (2, 12))),
    "gain_loss": Family(2, "any", "0+1,@-2", _gain_and_loss),
    "spend": Family(1, "object", "1*2,0-@", _purse_and_prices),
    "total_three": Family(3, "any", "0+1,@+2", _between((2, 60), (2, 60), (2, 60))),
}


def _boxes_and_loss(rng: Random) -> tuple[int, ...]:
    """Draw boxes, a content, a gain, and a loss that leaves something."""
    boxes, each, gain = rng.randint(2, 9), rng.randint(2, 12), rng.randint(2, 60)
    return boxes, each, gain, rng.randint(2, min(99, boxes * each + gain - 1))


def _boxes_to_share(rng: Random) -> tuple[int, ...]:
    """Draw a stock, boxes and their content that children can share without a remainder."""
    boxes, each, children = rng.randint(2, 9), rng.randint(2, 12), rng.randint(2, 10)
    stock = -boxes * each % children
    return stock + children * rng.randint(1 + (stock < 2), 8), boxes, each, children


def _four_changes(rng: Random) -> tuple[int, ...]:
    """Draw a stock that grows, falls, grows and falls, and is never empty."""
    first, second = rng.randint(2, 60), rng.randint(2, 60)
    loss, gain = rng.randint(2, min(99, first + second - 1)), rng.randint(2, 60)
    left = first + second - loss + gain
    return first, second, loss, gain, rng.randint(2, min(99, left - 1))


def _times_boxes(rng: Random) -> tuple[int, ...]:
    """Draw boxes with loose things, how many times as much, and a loss that leaves something."""
    boxes, each, loose = rng.randint(2, 6), rng.randint(2, 12), rng.randint(2, 30)
    times = rng.randint(2, 5)
    return boxes, each, loose, times, rng.randint(2, min(99, times * (boxes * each + loose) - 1))


LONG_FAMILIES: Mapping[str, Family] = {
    "boxes_gain_loss": Family(2, "boxed", "0*1,@+2,@-3", _boxes_and_loss),
    "boxes_share": Family(1, "boxed", "1*2,0+@,@/3", _boxes_to_share),
    "four_changes": Family(3, "object", "0+1,@-2,@+3,@-4", _four_changes),
    "times_boxes": Family(3, "boxed", "0*1,@+2,@*3,@-4", _times_boxes),
}
ALL_FAMILIES: Mapping[str, Family] = {**FAMILIES, **LONG_FAMILIES}


def work_out(family: str, numbers: tuple[int, ...]) -> tuple[Step, ...]:
    """Solve the arithmetic of a family for its numbers, in the order of the family.

    Return the steps of the worked answer; the result of the last one is the answer.
    """
    steps: list[Step] = []
    for left, sign, right in ALL_FAMILIES[family].plan.split(","):
        a, b = (steps[-1].result if key == "@" else numbers[int(key)] for key in (left, right))
        result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]
        steps.append(Step(a, _SIGNS[sign], b, result))
    return tuple(steps)


def make_problem(
    family: str, numbers: tuple[int, ...], people: tuple[str, ...], things: tuple[str, ...]
) -> Problem:
    """Make the problem that some content determines.

    Args:
        family: a key of `ALL_FAMILIES`.
        numbers: in the order of the family.
        people: different keys of names, as many as the family has people.
        things: one key from the pool of the family, or nothing if it has none.

    Returns:
        The problem. Training gets 90 % of all content, validation 5 %, test 5 %.

    Raises:
        LensNeuronsError: a family, name or thing that is not known, or numbers that do not suit the
            family.
    """
    _check(family, numbers, people, things)
    content = "|".join((family, *map(str, numbers), *people, *things))
    digest = hashlib.blake2b(content.encode(), digest_size=16).digest()
    digits = tuple(i for i in range(len(numbers)) if digest[i] % 4 == 0)
    place = int.from_bytes(digest[-4:], "big") % 100
    split = "train" if place < 90 else "validation" if place < 95 else "test"
    answer = work_out(family, numbers)[-1].result
    name = f"{family}-{digest.hex()}"
    return Problem(name, family, numbers, people, things, answer, digits, split)


def _check(
    family: str, numbers: tuple[int, ...], people: tuple[str, ...], things: tuple[str, ...]
) -> None:
    """Refuse content that no template can show, or whose results leave 1 to 999."""
    kind = ALL_FAMILIES[choose(family, ALL_FAMILIES, "family")]
    if len(set(people)) != kind.people or not set(people) <= set(NAMES):
        raise LensNeuronsError(
            f"people={people}: {family} needs {kind.people} distinct names of {', '.join(NAMES)}"
        )
    pool = _POOLS[kind.pool]
    if len(things) != bool(pool) or not set(things) <= set(pool):
        raise LensNeuronsError(
            f"things={things}: {family} needs {int(bool(pool))} thing of "
            f"{', '.join(pool) or 'none'}"
        )
    wanted = 1 + max(int(key) for key in kind.plan if key.isdigit())
    if len(numbers) != wanted or not all(2 <= number <= 999 for number in numbers):
        needed = f"{wanted} numbers from 2 to 999"
    elif any(s.sign == "÷" and s.left % s.right for s in work_out(family, numbers)):
        needed = "numbers that divide without a remainder"
    elif not all(1 <= step.result <= 999 for step in work_out(family, numbers)):
        needed = "numbers with positive results below 1000"
    else:
        return
    raise LensNeuronsError(f"numbers={numbers}: {family} needs {needed}")


def sample_problem(rng: Random, families: Mapping[str, Family] = FAMILIES) -> Problem:
    """Draw one problem of any split, of a family drawn uniformly; `rng` decides everything."""
    family = rng.choice(tuple(families))
    kind = families[family]
    pool = _POOLS[kind.pool]
    things = (rng.choice(pool),) if pool else ()
    return make_problem(family, kind.draw(rng), tuple(rng.sample(NAMES, kind.people)), things)


def stream(split: Split, seed: int = 0) -> Iterator[Problem]:
    """Draw problems of one split without end, no two with the same id.

    Equal seeds give equal streams.

    Raises:
        LensNeuronsError: no such split.
    """
    choose(split, SPLITS, "split")  # at the call, not at the first problem
    return _draw_distinct(split, Random(f"{split}:{seed}"))


def _draw_distinct(split: str, rng: Random) -> Iterator[Problem]:
    seen: set[str] = set()
    while True:
        problem = sample_problem(rng)
        if problem.split == split and problem.id not in seen:
            seen.add(problem.id)
            yield problem


def generate(split: Split, n: int, *, seed: int = 0) -> list[Problem]:
    """Draw `n` problems of one split, no two with the same id.

    Equal arguments give equal lists; a longer list begins with the shorter one.

    Raises:
        LensNeuronsError: no such split, or a negative `n`.
    """
    if n < 0:
        raise LensNeuronsError(f"n={n}: give zero or more")
    problems = stream(split, seed)
    return [next(problems) for _ in range(n)]
