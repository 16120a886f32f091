"""Bengali: own number words, the classifiers টি, টা and জন, genitive endings by sound."""

from __future__ import annotations

from functools import cache
from unicodedata import normalize

from .template import Language, read_names, read_table, read_templates

NAMES = read_names(
    "আনিকা ফাতেমা নাদিয়া সুমি রিনা মিতা শিউলি লতা জোহরা তানিয়া শর্মিলা পূজা সীমা কবিতা রুমা মৌসুমী "
    "নাসরিন সাবিনা ইয়াসমিন শিখা",
    "রহিম করিম আরিফ সোহেল রাজু কামাল জামাল হাসান তপন বিমল রবি সুমন অমিত শফিক মিলন রতন নাসির জাহিদ অরুণ দীপক",
)

# Noun and the kind of its classifier: t for things and animals, j for people, none for units.
NOUNS = read_table("""
apple আপেল t; orange কমলা t; banana কলা t; mango আম t; pear নাশপাতি t; lemon লেবু t; egg ডিম t;
potato আলু t; tomato টমেটো t; carrot গাজর t; onion পেঁয়াজ t; coconut নারকেল t; watermelon তরমুজ t;
cookie বিস্কুট t; candy লজেন্স t; cake কেক t; book বই t; notebook খাতা t; pencil পেন্সিল t; pen কলম t;
envelope খাম t; newspaper পত্রিকা t; stamp ডাকটিকিট t; photo ছবি t; map মানচিত্র t; ticket টিকিট t;
key চাবি t; button বোতাম t; stone পাথর t; flower ফুল t; shell ঝিনুক t; ball বল t; doll পুতুল t;
toy খেলনা t; cup কাপ t; plate থালা t; spoon চামচ t; bottle বোতল t; candle মোমবাতি t; lamp বাতি t;
chair চেয়ার t; hat টুপি t; shirt জামা t; blanket কম্বল t; towel তোয়ালে t; goat ছাগল t; sheep ভেড়া t;
hen মুরগি t; duck হাঁস t; rabbit খরগোশ t; cow গরু t;
box বাক্স t; year বছর -; km কিলোমিটার -; hour ঘণ্টা -; minute মিনিট -; page পৃষ্ঠা -; day দিন -;
money টাকা -; child শিশু j; time গুণ -;
village গ্রাম গ্রামে; city শহর শহরে; market বাজার বাজারে; school স্কুল স্কুলে; station স্টেশন স্টেশনে;
river নদী নদীর_ধারে; sea সমুদ্র সমুদ্রের_ধারে; forest বন বনে
""")
_WORDS = normalize(
    "NFC",
    """
শূন্য এক দুই তিন চার পাঁচ ছয় সাত আট নয় দশ এগারো বারো তেরো চৌদ্দ পনেরো ষোলো সতেরো আঠারো উনিশ
বিশ একুশ বাইশ তেইশ চব্বিশ পঁচিশ ছাব্বিশ সাতাশ আটাশ ঊনত্রিশ
ত্রিশ একত্রিশ বত্রিশ তেত্রিশ চৌত্রিশ পঁয়ত্রিশ ছত্রিশ সাঁইত্রিশ আটত্রিশ ঊনচল্লিশ
চল্লিশ একচল্লিশ বিয়াল্লিশ তেতাল্লিশ চুয়াল্লিশ পঁয়তাল্লিশ ছেচল্লিশ সাতচল্লিশ আটচল্লিশ ঊনপঞ্চাশ
পঞ্চাশ একান্ন বায়ান্ন তিপ্পান্ন চুয়ান্ন পঞ্চান্ন ছাপ্পান্ন সাতান্ন আটান্ন ঊনষাট
ষাট একষট্টি বাষট্টি তেষট্টি চৌষট্টি পঁয়ষট্টি ছেষট্টি সাতষট্টি আটষট্টি ঊনসত্তর
সত্তর একাত্তর বাহাত্তর তিয়াত্তর চুয়াত্তর পঁচাত্তর ছিয়াত্তর সাতাত্তর আটাত্তর ঊনআশি
আশি একাশি বিরাশি তিরাশি চুরাশি পঁচাশি ছিয়াশি সাতাশি অষ্টাশি ঊননব্বই
নব্বই একানব্বই বিরানব্বই তিরানব্বই চুরানব্বই পঁচানব্বই ছিয়ানব্বই সাতানব্বই আটানব্বই নিরানব্বই
""",
).split()
_HUNDREDS = normalize("NFC", "একশো দুইশো তিনশো চারশো পাঁচশো ছয়শো সাতশো আটশো নয়শো").split()
_VOWEL_SIGNS = "ািীুূেো"


@cache
def spell_number(value: int) -> str:
    """Write a number below 1000 in words.

    Args:
        value: The number.

    Returns:
        Its name, such as "সাতচল্লিশ" or "একশো বারো".
    """
    hundreds, rest = divmod(value, 100)
    words = [_HUNDREDS[hundreds - 1]] if hundreds else []
    return " ".join(words + ([_WORDS[rest]] if rest or not hundreds else []))


def _add_genitive(word: str) -> str:
    """Put the genitive ending on a word: র after a vowel sign, য়ের after ই, else ের."""
    if word[-1] in _VOWEL_SIGNS:
        return word + "র"
    return word + normalize("NFC", "য়ের" if word[-1] == "ই" else "ের")


def _write_noun(key: str, form: str) -> str:
    """Write a noun: "gen" genitive, "loc" locative, "one" after "one", else its basic form."""
    noun, other = NOUNS[key]
    if form == "loc":
        return other or noun + "য়"
    return {"gen": _add_genitive(noun), "one": f"একটি {noun}"}.get(form, noun)


def _write_count(value: int, key: str, form: str, as_digits: bool) -> str:
    """Write number, classifier and noun: "ta" the plainer classifier, "per" so many to each."""
    words = str(value) if as_digits else spell_number(value)
    people = " জন" if as_digits else "জন"
    classifier = {"t": "টা" if form.startswith("ta") else "টি", "j": people}.get(NOUNS[key][1], "")
    if words.endswith("দুই") and classifier:
        words, classifier = words[:-1], "টো" if classifier == "টা" else classifier
    if form.endswith("per"):
        classifier += " করে"
    case = form if form in ("gen", "loc") else ""
    return f"{words}{classifier} {_write_noun(key, case)}"


def _write_name(name: str, form: str) -> str:
    """Write a name: "gen" genitive, "acc" objective, else its basic form."""
    return _add_genitive(name) if form == "gen" else name + ("কে" if form == "acc" else "")


QUESTIONS = read_templates("""
gain
- {A.gen} কাছে {0.x} আছে। {B} তাকে আরও {1.x} দিল। এখন {A.gen} কাছে কয়টি {x} আছে?
- প্রথমে {A.gen} কাছে {0.x.ta} ছিল। পরে সে {B.gen} কাছ থেকে আরও {1.x.ta} পেল। এখন তার কাছে মোট কয়টা
  {x} আছে?
loss
- {A.gen} কাছে {0.x} আছে। সে {B.acc} {1.x} দিল। {A.gen} কাছে আর কয়টি {x} রইল?
- {A.gen} কাছে {0.x.ta} ছিল। {B} {1.x.ta} নিয়ে গেল। আর কয়টা {x} বাকি রইল?
more_than
- {A.gen} কাছে {0.x} আছে। {B.gen} কাছে {A.gen} চেয়ে {1.x} বেশি আছে। {B.gen} কাছে কয়টি {x} আছে?
- {A} {0.x.ta} কিনল। {B} {A.gen} চেয়ে {1.x.ta} বেশি কিনল। {B} কয়টা {x} কিনল?
difference
- {A.gen} কাছে {0.x} আর {B.gen} কাছে {1.x} আছে। {A.gen} কাছে {B.gen} চেয়ে কয়টি {x} বেশি আছে?
- {A} {0.x.ta} গুনল, কিন্তু {B} গুনল মাত্র {1.x.ta}। {A} {B.gen} চেয়ে কয়টা {x} বেশি গুনল?
times
- {A.gen} কাছে {0.x} আছে। {B.gen} কাছে তার {1.time} {x} আছে। {B.gen} কাছে কয়টি {x} আছে?
- {B.gen} কাছে {A.gen} {1.time} {x} আছে। {A.gen} কাছে আছে {0.x.ta}। {B.gen} কাছে কয়টা {x} আছে?
groups
- {A.gen} কাছে {0.box} আছে। প্রতিটি বাক্সে {1.x.per} আছে। মোট কয়টি {x} আছে?
- {A} {0.box.ta} ভরবে এবং প্রতিটি বাক্সে {1.x.ta.per} রাখবে। তার মোট কয়টা {x} লাগবে?
sharing
- {A} {0.x} {1.child.gen} মধ্যে সমান ভাগে ভাগ করে দিল। প্রত্যেক শিশু কয়টি {x} পেল?
- {1.child} {A.gen} কাছ থেকে {0.x.ta} পেয়ে সমান ভাগে ভাগ করে নিল। প্রত্যেক শিশু কয়টা {x} পেল?
packing
- {A.gen} কাছে {0.x} আছে। সে প্রতিটি বাক্সে {1.x.per} রাখে। সে কয়টি বাক্স ভরতে পারবে?
- একটি বাক্সে {1.x.ta} ধরে। {0.x.ta} রাখতে {A.gen} কয়টা বাক্স লাগবে?
price
- {A} {0.x} কিনল। প্রতিটি {x.gen} দাম {1.money}। {A} মোট কত টাকা দিল?
- একটি {x.gen} দাম {1.money}। {0.x.ta} কিনতে {A.gen} কত টাকা লাগবে?
change
- {A} {0.money} দামের {x.one} কিনল এবং দোকানিকে {1.money} দিল। সে কত টাকা ফেরত পাবে?
- {A.gen} কাছে {1.money} ছিল। সে {0.money} দিয়ে {x.one} কিনল। তার কাছে কত টাকা রইল?
age_older
- {A.gen} বয়স {0.year}। {B} {A.gen} চেয়ে {1.year.gen} বড়। {B.gen} বয়স কত বছর?
- {B} {A.gen} চেয়ে {1.year.gen} বড়, আর {A.gen} বয়স এখন {0.year}। {B.gen} বয়স এখন কত বছর?
age_future
- {A.gen} বয়স এখন {0.year}। {1.year} পরে তার বয়স কত হবে?
- আজ {A.gen} বয়স {0.year} পূর্ণ হলো। আরও {1.year} পর তার বয়স কত বছর হবে?
speed
- {A} সাইকেলে প্রতি ঘণ্টায় {0.km} যায়। {1.hour.loc} সে কত কিলোমিটার যাবে?
- {A} {1.hour} ধরে পথ চলল এবং প্রতি ঘণ্টায় {0.km} গেল। সে মোট কত কিলোমিটার গেল?
distance_left
- {x} পর্যন্ত পথ {0.km}। {A} এরই মধ্যে {1.km} হেঁটেছে। আর কত কিলোমিটার বাকি?
- {A} {x.loc} যাচ্ছে, মোট পথ {0.km}। {1.km} হাঁটার পর সে বিশ্রাম নিল। আর কত কিলোমিটার বাকি?
time_total
- {A} {0.minute} বই পড়ে, তারপর {1.minute} ছবি আঁকে। মোট কত মিনিট লাগে?
- {A} বাগানে {0.minute} আর রান্নাঘরে {1.minute} কাজ করল। সে মোট কত মিনিট কাজ করল?
pages
- {A.gen} বইয়ে {0.page} আছে। সে প্রতিদিন {1.page} করে পড়ে। কত দিনে সে বইটি শেষ করবে?
- {A} দিনে {1.page} পড়ে। {0.page.gen} একটি বই পড়তে তার কত দিন লাগবে?
two_step_buy
- {A.gen} কাছে {0.x} আছে। সে {1.box} কিনল, প্রতিটি বাক্সে {2.x.per} আছে। এখন {A.gen} কাছে মোট কয়টি {x}
  আছে?
- {A.gen} বাড়িতে {0.x.ta} ছিল। সে আরও {1.box.ta} আনল। প্রতিটি বাক্সে {2.x.ta.per} ছিল। মোট কয়টা {x} হলো?
gain_loss
- {A.gen} কাছে {0.x} আছে। সে আরও {1.x} পেল, তারপর {B.acc} {2.x} দিল। {A.gen} কাছে কয়টি {x} রইল?
- সকালে {A.gen} কাছে {0.x.ta} ছিল, দুপুরে সে আরও {1.x.ta} কিনল। রাতে {B} {2.x.ta} নিয়ে গেল। এখন
  {A.gen} কাছে কয়টা {x} আছে?
spend
- {A.gen} কাছে {0.money} আছে। সে {1.x} কিনল, প্রতিটির দাম {2.money}। তার কাছে কত টাকা রইল?
- একটি {x.gen} দাম {2.money}। {A.gen} কাছে {0.money} ছিল এবং সে {1.x.ta} কিনল। তার কাছে কত টাকা রইল?
total_three
- {A.gen} কাছে {0.x}, {B.gen} কাছে {1.x} আর {C.gen} কাছে {2.x} আছে। তিনজনের কাছে মোট কয়টি {x} আছে?
- {A} {0.x.ta}, {B} {1.x.ta} আর {C} {2.x.ta} এনেছে। তিনজন মোট কয়টা {x} এনেছে?
""")

STEPS = {
    "gain": "এখন {A.gen} কাছে আছে {eq.x}।",
    "loss": "{A.gen} কাছে রইল {eq.x}।",
    "more_than": "{B.gen} কাছে আছে {eq.x}।",
    "difference": "পার্থক্য {eq.x}।",
    "times": "{B.gen} কাছে আছে {eq.x}।",
    "groups": "সব বাক্সে মোট {eq.x}।",
    "sharing": "প্রত্যেক শিশু পেল {eq.x}।",
    "packing": "লাগবে {eq.box}।",
    "price": "মোট দাম {eq.money}।",
    "change": "বাকি রইল {eq.money}।",
    "age_older": "{B.gen} বয়স {eq.year}।",
    "age_future": "তখন {A.gen} বয়স হবে {eq.year}।",
    "speed": "মোট পথ {eq.km}।",
    "distance_left": "বাকি পথ {eq.km}।",
    "time_total": "মোট সময় {eq.minute}।",
    "pages": "সময় লাগবে {eq.day}।",
    "two_step_buy": "বাক্সগুলোতে আছে {eq1.x}। এখন {A.gen} কাছে আছে {eq.x}।",
    "gain_loss": "প্রথমে {A.gen} কাছে হলো {eq1.x}। শেষে রইল {eq.x}।",
    "spend": "মোট দাম {eq1.money}। বাকি রইল {eq.money}।",
    "total_three": "{A} আর {B.gen} কাছে মোট আছে {eq1.x}। তিনজনের মোট {eq.x}।",
}

BENGALI = Language(
    "bn", NAMES, spell_number, _write_count, _write_noun, _write_name, lambda key: 0,
    QUESTIONS, STEPS, "উত্তর হলো {word} ({number})।",
)  # fmt: skip
