"""Swahili: noun classes and their agreement on numbers, "other", "how many" and "of"."""

from __future__ import annotations

from functools import cache

from .template import Language, keep_name, read_names, read_table, read_templates

NAMES = read_names(
    "Asha Amina Zainabu Fatuma Mwanaisha Neema Rehema Zuhura Halima Saida Mariamu Khadija Zawadi "
    "Subira Pendo Mwajuma Furaha Imani Salma Rukia",
    "Juma Hamisi Ali Hassani Bakari Rashidi Omari Salimu Abdala Musa Baraka Daudi Yusufu "
    "Ramadhani Selemani Kassimu Jabari Athumani Tumaini Faraji",
)

# Singular, plural, noun class of the plural (11: class 10 with its singular in class 11).
NOUNS = read_table("""
apple tofaa matofaa 6; orange chungwa machungwa 6; banana ndizi ndizi 10; mango embe maembe 6;
pear peasi mapeasi 6; lemon limau malimau 6; egg yai mayai 6; potato kiazi viazi 8;
tomato nyanya nyanya 10; carrot karoti karoti 10; onion kitunguu vitunguu 8; coconut nazi nazi 10;
watermelon tikitimaji matikitimaji 6; cookie biskuti biskuti 10; candy pipi pipi 10;
cake keki keki 10; book kitabu vitabu 8; notebook daftari madaftari 6; pencil penseli penseli 10;
pen kalamu kalamu 10; envelope bahasha bahasha 10; newspaper gazeti magazeti 6;
stamp stempu stempu 10; photo picha picha 10; map ramani ramani 10; ticket tiketi tiketi 10;
key ufunguo funguo 11; button kifungo vifungo 8; stone jiwe mawe 6; flower ua maua 6;
shell kauri kauri 10; ball mpira mipira 4; doll mwanasesere wanasesere 2; toy kichezeo vichezeo 8;
cup kikombe vikombe 8; plate sahani sahani 10; spoon kijiko vijiko 8; bottle chupa chupa 10;
candle mshumaa mishumaa 4; lamp taa taa 10; chair kiti viti 8; hat kofia kofia 10;
shirt shati mashati 6; blanket blanketi mablanketi 6; towel taulo taulo 10; goat mbuzi mbuzi 2;
sheep kondoo kondoo 2; hen kuku kuku 2; duck bata bata 2; rabbit sungura sungura 2;
cow ng'ombe ng'ombe 2;
box sanduku masanduku 6; year mwaka miaka 4; km kilomita kilomita 10; hour saa saa 10;
minute dakika dakika 10; page ukurasa kurasa 11; day siku siku 10; money shilingi shilingi 10;
child mtoto watoto 2; time mara mara 10;
village kijijini; city mjini; market sokoni; school shuleni; station stesheni; river mtoni;
sea baharini; forest msituni
""")
_UNIT_WORDS = "sifuri moja mbili tatu nne tano sita saba nane tisa"
_TEN_WORDS = "kumi ishirini thelathini arobaini hamsini sitini sabini themanini tisini"
_UNITS, _TENS = _UNIT_WORDS.split(), _TEN_WORDS.split()
_STEMS = {2: "wili", 3: "tatu", 4: "nne", 5: "tano", 8: "nane"}
# Of each class: prefix of numbers, "one", "other", "how many", "of".
_AGREEMENT = {
    "2": ("wa", "mmoja", "wengine", "wangapi", "wa"),
    "4": ("mi", "mmoja", "mingine", "mingapi", "ya"),
    "6": ("ma", "moja", "mengine", "mangapi", "ya"),
    "8": ("vi", "kimoja", "vingine", "vingapi", "vya"),
    "10": ("", "moja", "nyingine", "ngapi", "za"),
    "11": ("", "mmoja", "nyingine", "ngapi", "za"),
}


@cache
def spell_number(value: int, noun_class: str = "10") -> str:
    """Write a number below 1000 in words.

    Args:
        value: The number.
        noun_class: Class of the noun that the last digit agrees with; "10" is also the number's
            own name.

    Returns:
        Its name, such as "ishirini na mbili" ("ishirini na viwili" in class 8).
    """
    hundreds, rest = divmod(value, 100)
    tens, units = divmod(rest, 10)
    parts = [f"mia {_UNITS[hundreds]}"] if hundreds else []
    parts += [_TENS[tens - 1]] if tens else []
    parts += [_agree_unit(units, noun_class)] if units or not value else []
    return " na ".join(parts) if len(parts) < 3 else f"{parts[0]} {parts[1]} na {parts[2]}"


def _agree_unit(units: int, noun_class: str) -> str:
    """Write a number below ten in agreement with a noun class."""
    prefix, one = _AGREEMENT[noun_class][:2]
    if units == 1:
        return "moja" if noun_class == "11" else one
    return prefix + _STEMS[units] if prefix and units in _STEMS else _UNITS[units]


def _write_noun(key: str, form: str) -> str:
    """Write a noun: "pl", "one", "each", "ngapi" (how many), "of", else the singular."""
    singular, plural, noun_class = (*NOUNS[key], "", "10")[:3]
    _, one, _, how_many, of = _AGREEMENT[noun_class]
    forms = {
        "pl": plural, "one": f"{singular} {one}", "each": one,
        "ngapi": f"{plural} {how_many}", "of": f"{plural} {of}",
    }  # fmt: skip
    return forms.get(form, singular)


def _write_count(value: int, key: str, form: str, as_digits: bool) -> str:
    """Write a noun and its number; the form "other" puts "other" between them."""
    singular, plural, noun_class = NOUNS[key]
    number = str(value) if as_digits else spell_number(value, noun_class)
    other = f" {_AGREEMENT[noun_class][2]}" if form == "other" else ""
    return f"{singular if value == 1 else plural}{other} {number}"


QUESTIONS = read_templates("""
gain
- {A} ana {0.x}. {B} anampa {1.x.other}. Sasa {A} ana {x.ngapi}?
- Mwanzoni {A} alikuwa na {0.x}. Baadaye alipata {1.x.other} kutoka kwa {B}. Sasa {A} ana {x.ngapi}
  kwa jumla?
loss
- {A} ana {0.x}. Anampa {B} {1.x}. {A} anabaki na {x.ngapi}?
- {A} alikuwa na {0.x}. {B} alichukua {1.x}. {A} alibaki na {x.ngapi}?
more_than
- {A} ana {0.x}. {B} ana {1.x} zaidi ya {A}. {B} ana {x.ngapi}?
- {A} alinunua {0.x}, na {B} alinunua {1.x} zaidi ya {A}. {B} alinunua {x.ngapi}?
difference
- {A} ana {0.x}, na {B} ana {1.x}. {A} ana {x.ngapi} zaidi ya {B}?
- {A} alihesabu {0.x}, lakini {B} alihesabu {1.x} tu. {A} alihesabu {x.ngapi} zaidi ya {B}?
times
- {A} ana {0.x}. {B} ana {x.pl} {1.time} ya idadi hiyo. {B} ana {x.ngapi}?
- Idadi ya {x.of} {B} ni {1.time} ya idadi ya {x.of} {A}. {A} ana {0.x}. Je, {B} ana {x.ngapi}?
groups
- {A} ana {0.box}. Kila sanduku lina {1.x}. Kuna {x.ngapi} kwa jumla?
- {A} anajaza {0.box}, na kuweka {1.x} katika kila sanduku. {A} anahitaji {x.ngapi}?
sharing
- {A} anawagawia {1.child} {0.x} kwa usawa. Kila mtoto anapata {x.ngapi}?
- {1.child} wanagawana kwa usawa {0.x} kutoka kwa {A}. Kila mtoto anapata {x.ngapi}?
packing
- {A} ana {0.x}, na anaweka {1.x} katika kila sanduku. {A} atajaza {box.ngapi}?
- Sanduku moja linaweza kubeba {1.x}. {A} anahitaji {box.ngapi} ili kuweka {0.x}?
price
- {A} ananunua {0.x}. Bei ya kila {x} ni {1.money}. {A} analipa {money.ngapi} kwa jumla?
- Bei ya {x.one} ni {1.money}. {A} anahitaji {money.ngapi} ili kununua {0.x}?
change
- {A} ananunua {x.one} kwa {0.money}, na kumpa muuzaji {1.money}. {A} atarudishiwa {money.ngapi}?
- {A} alikuwa na {1.money}. Alinunua {x.one} kwa {0.money}. {A} alibaki na {money.ngapi}?
age_older
- {A} ana umri wa {0.year}. {B} ni mkubwa kuliko {A} kwa {1.year}. {B} ana umri wa {year.ngapi}?
- {B} amemzidi {A} umri kwa {1.year}. {A} ana {0.year}. Je, {B} ana {year.ngapi} sasa?
age_future
- {A} ana umri wa {0.year} sasa. Baada ya {1.year}, {A} atakuwa na umri wa {year.ngapi}?
- Leo {A} anatimiza {0.year}. Je, {A} atakuwa na {year.ngapi} ikipita {1.year.other}?
speed
- {A} anaendesha baiskeli {0.km} kila saa. {A} ataenda {km.ngapi} kwa muda wa {1.hour}?
- {A} alisafiri kwa muda wa {1.hour}, na kila saa alienda {0.km}. {A} alisafiri {km.ngapi} kwa
  jumla?
distance_left
- Umbali wa kufika {x} ni {0.km}. {A} ametembea {1.km}. Zimebaki {km.ngapi}?
- {A} anakwenda {x}, na safari nzima ni {0.km}. Baada ya {1.km} anapumzika. Zimebaki {km.ngapi}?
time_total
- {A} anasoma kwa {0.minute}, kisha anachora kwa {1.minute}. Ni {minute.ngapi} kwa jumla?
- {A} alifanya kazi bustanini kwa {0.minute}, na jikoni kwa {1.minute}. {A} alifanya kazi kwa
  {minute.ngapi} kwa jumla?
pages
- Kitabu cha {A} kina {0.page}. {A} anasoma {1.page} kila siku. Atamaliza kitabu kwa {day.ngapi}?
- {A} anasoma {1.page} kwa siku. Anahitaji {day.ngapi} kusoma kitabu chenye {0.page}?
two_step_buy
- {A} ana {0.x}. Ananunua {1.box}, na kila sanduku lina {2.x}. Sasa {A} ana {x.ngapi}?
- {A} alikuwa na {0.x} nyumbani, kisha alileta {1.box}. Kila sanduku lilikuwa na {2.x}. Kuna
  {x.ngapi} kwa jumla?
gain_loss
- {A} ana {0.x}. Anapata {1.x.other}, kisha anampa {B} {2.x}. {A} anabaki na {x.ngapi}?
- Asubuhi {A} alikuwa na {0.x}, na mchana alinunua {1.x.other}. Jioni {B} alichukua {2.x}. Sasa {A}
  ana {x.ngapi}?
spend
- {A} ana {0.money}. Ananunua {1.x} kwa bei ya {2.money} kila {x.each}. {A} anabaki na
  {money.ngapi}?
- Bei ya {x.one} ni {2.money}. {A} alikuwa na {0.money}, na alinunua {1.x}. {A} alibaki na
  {money.ngapi}?
total_three
- {A} ana {0.x}, {B} ana {1.x}, na {C} ana {2.x}. Wote watatu wana {x.ngapi} kwa pamoja?
- {A} alileta {0.x}, {B} alileta {1.x}, na {C} alileta {2.x}. Walileta {x.ngapi} kwa jumla?
""")

STEPS = {
    "gain": "{eq}, kwa hiyo sasa {A} ana {r.x}.",
    "loss": "{eq}, kwa hiyo {A} anabaki na {r.x}.",
    "more_than": "{eq}, kwa hiyo {B} ana {r.x}.",
    "difference": "{eq}, kwa hiyo tofauti ni {r.x}.",
    "times": "{eq}, kwa hiyo {B} ana {r.x}.",
    "groups": "{eq}, kwa hiyo masanduku yana {r.x}.",
    "sharing": "{eq}, kwa hiyo kila mtoto anapata {r.x}.",
    "packing": "{eq}, kwa hiyo {A} anahitaji {r.box}.",
    "price": "{eq}, kwa hiyo {A} analipa {r.money}.",
    "change": "{eq}, kwa hiyo salio ni {r.money}.",
    "age_older": "{eq}, kwa hiyo {B} ana {r.year}.",
    "age_future": "{eq}, kwa hiyo {A} atakuwa na {r.year}.",
    "speed": "{eq}, kwa hiyo safari ni {r.km}.",
    "distance_left": "{eq}, kwa hiyo umbali uliobaki ni {r.km}.",
    "time_total": "{eq}, kwa hiyo muda ni {r.minute}.",
    "pages": "{eq}, kwa hiyo {A} anahitaji {r.day}.",
    "two_step_buy": "{eq1}, kwa hiyo masanduku yana {r1.x}. {eq}, kwa hiyo sasa {A} ana {r.x}.",
    "gain_loss": "{eq1}, kwa hiyo kwanza {A} ana {r1.x}. {eq}, kwa hiyo anabaki na {r.x}.",
    "spend": "{eq1}, kwa hiyo {A} analipa {r1.money}. {eq}, kwa hiyo salio ni {r.money}.",
    "total_three": "{eq1}, kwa hiyo {A} na {B} wana {r1.x}. {eq}, kwa hiyo jumla ni {r.x}.",
}

SWAHILI = Language(
    "sw", NAMES, spell_number, _write_count, _write_noun, keep_name, lambda key: 0,
    QUESTIONS, STEPS, "Jibu ni {word} ({number}).",
)  # fmt: skip
