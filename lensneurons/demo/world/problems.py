"""Language-independent word problems: families, sampling, identity and splits.

A problem is a family, its numbers and the keys of its people and things. Everything else (the
id, the split, which numbers are written as digits, the worked answer) follows from those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[str, ...] = get_args(Split)

NAMES: tuple[str, ...] = tuple(f"{sex}{i:02d}" for sex in "fm" for i in range(20))
_OBJECTS = (
    "apple orange banana mango pear lemon egg potato tomato carrot onion coconut watermelon "
    "cookie candy cake book notebook pencil pen envelope newspaper stamp photo map ticket key "
    "button stone flower shell ball doll toy cup plate spoon bottle candle lamp chair hat shirt "
    "blanket towel"
)
OBJECTS: tuple[str, ...] = tuple(_OBJECTS.split())
ANIMALS: tuple[str, ...] = ("goat", "sheep", "hen", "duck", "rabbit", "cow")
THINGS: tuple[str, ...] = OBJECTS + ANIMALS
PLACES: tuple[str, ...] = (
    "village", "city", "market", "school", "station", "river", "sea", "forest",
)  # fmt: skip
UNITS: tuple[str, ...] = (
    "box", "year", "km", "hour", "minute", "page", "day", "money", "child", "time",
)  # fmt: skip
_BULKY = ("watermelon", "lamp", "chair")
_POOLS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "any": THINGS,
    "object": OBJECTS,
    "boxed": tuple(key for key in OBJECTS if key not in _BULKY),
    "place": PLACES,
}

Draw = Callable[[Random], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of arithmetic: ``left sign right = result``."""

    left: int
    sign: str
    right: int
    result: int

    def format_text(self) -> str:
        """Write the step in digits.

        Returns:
            Text such as ``"12 + 30 = 42"``, the same in every language.
        """
        return f"{self.left} {self.sign} {self.right} = {self.result}"


@dataclass(frozen=True, slots=True)
class Family:
    """How one kind of problem is drawn and solved.

    Attributes:
        people: How many people take part.
        pool: Which pool the thing comes from (a key of the pools above, "none" for no thing).
        plan: The arithmetic: comma-separated steps whose operands are number positions, or ``@``
            for the result of the step before.
        draw: Draws the numbers, so that every result is a positive integer.
    """

    people: int
    pool: str
    plan: str
    draw: Draw


@dataclass(frozen=True, slots=True)
class Problem:
    """One word problem, the same in all languages. Build it with :func:`make_problem`.

    Attributes:
        id: Family and a digest of the content; equal content has an equal id.
        family: A key of :data:`FAMILIES`.
        numbers: The numbers of the question, in the family's order.
        people: Name keys, from :data:`NAMES`.
        things: Thing or place keys, from :data:`THINGS` or :data:`PLACES`.
        answer: The result, a positive integer.
        digits: Positions in ``numbers`` that the question writes as digits.
        split: The split that the content belongs to.
    """

    id: str
    family: str
    numbers: tuple[int, ...]
    people: tuple[str, ...]
    things: tuple[str, ...]
    answer: int
    digits: tuple[int, ...]
    split: str


def _draw_range(*bounds: tuple[int, int]) -> Draw:
    """Return a draw of independent numbers, one for each inclusive (low, high)."""
    return lambda rng: tuple(rng.randint(low, high) for low, high in bounds)


def _draw_larger_first(rng: Random) -> tuple[int, ...]:
    """Draw two numbers up to 99, the first the larger."""
    first = rng.randint(3, 99)
    return first, rng.randint(2, first - 1)


def _draw_larger_second(rng: Random) -> tuple[int, ...]:
    """Draw two numbers up to 100, the second the larger."""
    first = rng.randint(2, 99)
    return first, rng.randint(first + 1, 100)


def _draw_quotient(rng: Random) -> tuple[int, ...]:
    """Draw a dividend and a divisor that divides it, with a quotient of at least two."""
    divisor = rng.randint(2, 10)
    return divisor * rng.randint(2, 20), divisor


def _draw_gain_loss(rng: Random) -> tuple[int, ...]:
    """Draw two numbers to add and one, smaller than their sum, to take away."""
    first, second = rng.randint(2, 60), rng.randint(2, 60)
    return first, second, rng.randint(2, min(99, first + second - 1))


def _draw_spend(rng: Random) -> tuple[int, ...]:
    """Draw a purse of at most 100 and a count and price that cost less than it."""
    count, price = rng.randint(2, 9), rng.randint(2, 10)
    return rng.randint(count * price + 1, 100), count, price


_PAIR = _draw_range((2, 99), (2, 99))
_AGES = _draw_range((3, 60), (2, 30))
_PRODUCT = _draw_range((2, 30), (2, 9))

FAMILIES: Mapping[str, Family] = {
    "gain": Family(2, "any", "0+1", _PAIR),
    "loss": Family(2, "any", "0-1", _draw_larger_first),
    "more_than": Family(2, "any", "0+1", _PAIR),
    "difference": Family(2, "any", "0-1", _draw_larger_first),
    "times": Family(2, "any", "0*1", _PRODUCT),
    "groups": Family(1, "boxed", "0*1", _draw_range((2, 12), (2, 30))),
    "sharing": Family(1, "object", "0/1", _draw_quotient),
    "packing": Family(1, "boxed", "0/1", _draw_quotient),
    "price": Family(1, "object", "0*1", _draw_range((2, 12), (2, 30))),
    "change": Family(1, "object", "1-0", _draw_larger_second),
    "age_older": Family(2, "none", "0+1", _AGES),
    "age_future": Family(1, "none", "0+1", _AGES),
    "speed": Family(1, "none", "0*1", _PRODUCT),
    "distance_left": Family(1, "place", "0-1", _draw_larger_first),
    "time_total": Family(1, "none", "0+1", _draw_range((2, 99), (2, 99))),
    "pages": Family(1, "none", "0/1", _draw_quotient),
    "two_step_buy": Family(1, "boxed", "1*2,0+@", _draw_range((2, 60), (2, 9), (2, 12))),
    "gain_loss": Family(2, "any", "0+1,@-2", _draw_gain_loss),
    "spend": Family(1, "object", "1*2,0-@", _draw_spend),
    "total_three": Family(3, "any", "0+1,@+2", _draw_range((2, 60), (2, 60), (2, 60))),
}
_SIGNS = {"+": "+", "-": "-", "*": "×", "/": "÷"}


def work_out(family: str, numbers: tuple[int, ...]) -> tuple[Step, ...]:
    """Solve a family's arithmetic for some numbers.

    Args:
        family: A key of :data:`FAMILIES`.
        numbers: The numbers, in the family's order.

    Returns:
        The steps of the worked answer; the last one's result is the answer.
    """
    steps: list[Step] = []
    for left, sign, right in map(tuple, FAMILIES[family].plan.split(",")):
        a, b = (steps[-1].result if key == "@" else numbers[int(key)] for key in (left, right))
        result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]
        steps.append(Step(a, _SIGNS[sign], b, result))
    return tuple(steps)


def _assign_split(digest: bytes) -> str:
    """Put a content digest into train (90 %), validation (5 %) or test (5 %)."""
    place = int.from_bytes(digest[-4:], "big") % 100
    return "train" if place < 90 else "validation" if place < 95 else "test"


def make_problem(
    family: str, numbers: tuple[int, ...], people: tuple[str, ...], things: tuple[str, ...]
) -> Problem:
    """Build the problem that some content determines.

    Args:
        family: A key of :data:`FAMILIES`.
        numbers: The numbers, in the family's order.
        people: Distinct name keys, as many as the family has people.
        things: One key from the family's pool, or nothing if it has none.

    Returns:
        The problem, with its id, split, digit positions and answer.

    Raises:
        ValueError: If the family, a name or a thing is not one of the known ones, or the numbers
            do not suit the family.
    """
    _check_content(family, people, things)
    _check_numbers(family, numbers)
    content = "|".join((family, *map(str, numbers), *people, *things))
    digest = hashlib.blake2b(content.encode(), digest_size=16).digest()
    digits = tuple(i for i in range(len(numbers)) if digest[i] % 4 == 0)
    answer = work_out(family, numbers)[-1].result
    name = f"{family}-{digest.hex()}"
    return Problem(name, family, numbers, people, things, answer, digits, _assign_split(digest))


def _check_content(family: str, people: tuple[str, ...], things: tuple[str, ...]) -> None:
    """Refuse content that no template can render."""
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; choose one of {', '.join(FAMILIES)}")
    wanted = FAMILIES[family]
    if len(set(people)) != wanted.people or not set(people) <= set(NAMES):
        raise ValueError(f"{family} needs {wanted.people} distinct names of {', '.join(NAMES)}")
    pool = _POOLS[wanted.pool]
    if len(things) != bool(pool) or not set(things) <= set(pool):
        raise ValueError(f"{family} needs {int(bool(pool))} thing of: {', '.join(pool) or 'none'}")


def _check_numbers(family: str, numbers: tuple[int, ...]) -> None:
    """Refuse numbers whose arithmetic leaves the positive integers below 1000."""
    plan = FAMILIES[family].plan
    wanted = 1 + max(int(key) for key in plan if key.isdigit())
    if len(numbers) != wanted or not all(2 <= number <= 999 for number in numbers):
        raise ValueError(f"{family} needs {wanted} numbers from 2 to 999, not {numbers}")
    if "/" in plan and numbers[0] % numbers[1]:
        raise ValueError(f"{family} needs a second number that divides the first, not {numbers}")
    if not all(1 <= step.result <= 999 for step in work_out(family, numbers)):
        raise ValueError(f"{family} needs numbers with positive results below 1000, not {numbers}")


def sample_problem(rng: Random) -> Problem:
    """Draw one problem of any split.

    Args:
        rng: The source of randomness; it alone decides the problem.

    Returns:
        A problem of a family drawn uniformly.
    """
    family = rng.choice(tuple(FAMILIES))
    kind = FAMILIES[family]
    pool = _POOLS[kind.pool]
    things = (rng.choice(pool),) if pool else ()
    return make_problem(family, kind.draw(rng), tuple(rng.sample(NAMES, kind.people)), things)


def stream(split: Split, seed: int = 0) -> Iterator[Problem]:
    """Draw distinct problems of one split, lazily and without end.

    Args:
        split: "train", "validation" or "test".
        seed: Equal seeds give equal streams.

    Returns:
        An iterator of problems, no two with the same id.

    Raises:
        ValueError: If the split is not one of the three.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    return _draw_distinct(split, Random(f"{split}:{seed}"))


def _draw_distinct(split: str, rng: Random) -> Iterator[Problem]:
    """Yield the problems of one split as they are drawn, each once."""
    seen: set[str] = set()
    while True:
        problem = sample_problem(rng)
        if problem.split == split and problem.id not in seen:
            seen.add(problem.id)
            yield problem


def generate(split: Split, n: int, *, seed: int = 0) -> list[Problem]:
    """Draw distinct problems of one split.

    Args:
        split: "train", "validation" or "test".
        n: How many, zero or more.
        seed: Equal arguments give equal lists; a longer list begins with the shorter one.

    Returns:
        The problems, no two with the same id.

    Raises:
        ValueError: If the split is not one of the three or ``n`` is negative.
    """
    if n < 0:
        raise ValueError(f"n must be zero or more, not {n}")
    problems = stream(split, seed)
    return [next(problems) for _ in range(n)]
