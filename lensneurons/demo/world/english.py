"""English: number words by num2words, singular and plural nouns, he and she."""

from __future__ import annotations

from functools import cache

from num2words import num2words

from .template import Language, keep_name, read_names, read_table, read_templates

NAMES = read_names(
    "Alice Emma Olivia Grace Lucy Charlotte Hannah Sophie Ruby Amelia Emily Jessica Chloe Megan "
    "Abigail Lily Rachel Zoe Victoria Molly",
    "Jack Oliver Harry George Thomas James William Henry Samuel Joseph Daniel Edward Arthur "
    "Benjamin Luke Matthew Peter Charles Ryan Toby",
)

NOUNS = read_table("""
apple apple apples; orange orange oranges; banana banana bananas; mango mango mangoes;
pear pear pears; lemon lemon lemons; egg egg eggs; potato potato potatoes; tomato tomato tomatoes;
carrot carrot carrots; onion onion onions; coconut coconut coconuts;
watermelon watermelon watermelons; cookie cookie cookies; candy candy candies; cake cake cakes;
book book books; notebook notebook notebooks; pencil pencil pencils; pen pen pens;
envelope envelope envelopes; newspaper newspaper newspapers; stamp stamp stamps;
photo photo photos; map map maps; ticket ticket tickets; key key keys; button button buttons;
stone stone stones; flower flower flowers; shell shell shells; ball ball balls; doll doll dolls;
toy toy toys; cup cup cups; plate plate plates; spoon spoon spoons; bottle bottle bottles;
candle candle candles; lamp lamp lamps; chair chair chairs; hat hat hats; shirt shirt shirts;
blanket blanket blankets; towel towel towels; goat goat goats; sheep sheep sheep; hen hen hens;
duck duck ducks; rabbit rabbit rabbits; cow cow cows;
box box boxes; year year years; km kilometre kilometres; hour hour hours; minute minute minutes;
page page pages; day day days; money dollar dollars; child child children; time time times;
village the_village; city the_city; market the_market; school the_school;
station the_railway_station; river the_river; sea the_seaside; forest the_forest
""")


@cache
def spell_number(value: int) -> str:
    """Write a number in words.

    Args:
        value: The number.

    Returns:
        Its name, such as "one hundred and five".
    """
    return str(num2words(value, lang="en"))


def _write_noun(key: str, form: str) -> str:
    """Write a noun: "pl" the plural, "a" with its indefinite article, else the singular."""
    if form == "pl":
        return NOUNS[key][1]
    word = NOUNS[key][0]
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}" if form == "a" else word


def _write_count(value: int, key: str, form: str, as_digits: bool) -> str:
    """Write a number and its noun; the form "more" puts that word between them."""
    number = str(value) if as_digits else spell_number(value)
    more = " more" if form == "more" else ""
    return f"{number}{more} {_write_noun(key, '' if value == 1 else 'pl')}"


QUESTIONS = read_templates("""
gain
- {A} has {0.x}. {B} gives {A?him|her} {1.x.more}. How many {x.pl} does {A} have now?
- At first {A} had {0.x}. Then {A?he|she} got {1.x.more} from {B}. How many {x.pl} does {A?he|she}
  have in all?
loss
- {A} has {0.x} and gives {1.x} to {B}. How many {x.pl} does {A} have left?
- {A} had {0.x}. {B} took {1} of them. How many {x.pl} remain?
more_than
- {A} has {0.x}. {B} has {1.x.more} than {A}. How many {x.pl} does {B} have?
- There are {0.x} at {A.s} house, and at {B.s} house there are {1} more than that. How many {x.pl}
  are there at {B.s} house?
difference
- {A} has {0.x} and {B} has {1.x}. How many more {x.pl} does {A} have than {B}?
- {A} counted {0.x}, but {B} counted only {1}. How many more {x.pl} did {A} count than {B}?
times
- {A} has {0.x}. {B} has {1.time} as many {x.pl}. How many {x.pl} does {B} have?
- {B} has {1.time} as many {x.pl} as {A}. {A} has {0.x}. How many does {B} have?
groups
- {A} has {0.box}. There are {1.x} in each box. How many {x.pl} are there in all?
- {A} fills {0.box} with {1.x} each. How many {x.pl} does {A?he|she} need?
sharing
- {A} shares {0.x} equally among {1.child}. How many {x.pl} does each child get?
- {A} has {0.x} for {1.child}, who share them equally. How many {x.pl} does each child get?
packing
- {A} has {0.x} and puts {1.x} into each box. How many boxes does {A?he|she} fill?
- One box holds {1.x}. How many boxes does {A} need for {0.x}?
price
- {A} buys {0.x}. Each {x} costs {1.money}. How much does {A} pay in all?
- One {x} costs {1.money}. How many dollars does {A} need to buy {0.x}?
change
- {A} buys {x.a} for {0.money} and pays with {1.money}. How many dollars in change does {A?he|she}
  get?
- {A} had {1.money} and bought {x.a} for {0.money}. How much money does {A?he|she} have left?
age_older
- {A} is {0.year} old. {B} is {1.year} older than {A}. How old is {B}?
- {B} is {1.year} older than {A}, who is {0.year} old. How old is {B} now?
age_future
- {A} is {0.year} old now. How old will {A?he|she} be in {1.year}?
- Today {A} turns {0}. What will {A.s} age be {1.year} from now?
speed
- {A} rides a bicycle and covers {0.km} every hour. How many kilometres does {A?he|she} ride in
  {1.hour}?
- {A} was on the road for {1.hour} and covered {0.km} each hour. How many kilometres did {A?he|she}
  cover?
distance_left
- It is {0.km} to {x}. {A} has already walked {1.km}. How many kilometres are left?
- {A} is walking to {x}, which is {0.km} away. After {1.km} {A?he|she} takes a rest. How many
  kilometres remain?
time_total
- {A} reads for {0.minute} and then draws for {1.minute}. How many minutes does that take in all?
- {A} worked in the garden for {0.minute} and in the kitchen for {1.minute}. How many minutes did
  {A?he|she} work altogether?
pages
- {A.s} book has {0.page}. {A?He|She} reads {1.page} every day. In how many days will {A?he|she}
  finish the book?
- {A} reads {1.page} a day. How many days does {A?he|she} need for a book of {0.page}?
two_step_buy
- {A} has {0.x}. {A?He|She} buys {1.box} with {2.x} in each box. How many {x.pl} does {A} have now?
- At home {A} had {0.x}. Then {A?he|she} brought back {1.box} with {2.x} in each box. How many
  {x.pl} does {A?he|she} have altogether?
gain_loss
- {A} has {0.x}. {A?He|She} gets {1.x.more} and then gives {2.x} to {B}. How many {x.pl} does {A}
  have left?
- {A} had {0.x} in the morning and got {1} more at noon. In the evening {B} took {2} of them. How
  many {x.pl} does {A} have now?
spend
- {A} has {0.money} and buys {1.x} for {2.money} each. How many dollars does {A?he|she} have left?
- One {x} costs {2.money}. {A} had {0.money} and bought {1.x}. How much money remains?
total_three
- {A} has {0.x}, {B} has {1.x} and {C} has {2.x}. How many {x.pl} do they have together?
- {A}, {B} and {C} brought {x.pl}: {A} brought {0}, {B} brought {1} and {C} brought {2}. How many
  {x.pl} are there in all?
""")

STEPS = {
    "gain": "Now {A} has {eq.x}.",
    "loss": "{A} has {eq.x} left.",
    "more_than": "{B} has {eq.x}.",
    "difference": "The difference is {eq.x}.",
    "times": "{B} has {eq.x}.",
    "groups": "Together the boxes hold {eq.x}.",
    "sharing": "Each child gets {eq.x}.",
    "packing": "{A} needs {eq.box}.",
    "price": "{A} pays {eq.money}.",
    "change": "That leaves {eq.money}.",
    "age_older": "{B} is {eq.year} old.",
    "age_future": "{A} will be {eq.year} old.",
    "speed": "The distance is {eq.km}.",
    "distance_left": "The distance left is {eq.km}.",
    "time_total": "That takes {eq.minute}.",
    "pages": "{A} needs {eq.day}.",
    "two_step_buy": "In the boxes there are {eq1.x}. Now {A} has {eq.x}.",
    "gain_loss": "At first {A} has {eq1.x}. In the end {A?he|she} has {eq.x}.",
    "spend": "{A} pays {eq1.money}. That leaves {eq.money}.",
    "total_three": "{A} and {B} have {eq1.x}. With {C} that makes {eq.x}.",
}


def _write_name(name: str, form: str) -> str:
    """Write a name: "s" the possessive, else the name itself."""
    return f"{name}'s" if form == "s" else keep_name(name, form)


ENGLISH = Language(
    "en", NAMES, spell_number, _write_count, _write_noun, _write_name, lambda key: 0,
    QUESTIONS, STEPS, "The answer is {word} ({number}).",
)  # fmt: skip
