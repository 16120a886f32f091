"""German: noun gender, accusative articles, dative plurals, numbers written as one word."""

from __future__ import annotations

from functools import cache

from num2words import num2words

from .template import Language, keep_name, read_names, read_table, read_templates

NAMES = read_names(
    "Anna Lena Julia Sabine Petra Monika Heike Katrin Greta Frieda Johanna Ingrid Lotte Klara "
    "Marlene Ursula Birgit Anke Paula Mia",
    "Lukas Felix Jonas Paul Max Hans Stefan Jürgen Klaus Wolfgang Uwe Dieter Florian Tobias "
    "Sebastian Moritz Emil Anton Karl Fritz",
)

# Singular, plural, gender.
NOUNS = read_table("""
apple Apfel Äpfel m; orange Orange Orangen f; banana Banane Bananen f; mango Mango Mangos f;
pear Birne Birnen f; lemon Zitrone Zitronen f; egg Ei Eier n; potato Kartoffel Kartoffeln f;
tomato Tomate Tomaten f; carrot Karotte Karotten f; onion Zwiebel Zwiebeln f;
coconut Kokosnuss Kokosnüsse f; watermelon Wassermelone Wassermelonen f; cookie Keks Kekse m;
candy Bonbon Bonbons n; cake Kuchen Kuchen m; book Buch Bücher n; notebook Heft Hefte n;
pencil Bleistift Bleistifte m; pen Kugelschreiber Kugelschreiber m;
envelope Briefumschlag Briefumschläge m;
newspaper Zeitung Zeitungen f; stamp Briefmarke Briefmarken f; photo Foto Fotos n;
map Landkarte Landkarten f; ticket Fahrkarte Fahrkarten f; key Schlüssel Schlüssel m;
button Knopf Knöpfe m; stone Stein Steine m; flower Blume Blumen f; shell Muschel Muscheln f;
ball Ball Bälle m; doll Puppe Puppen f; toy Spielzeug Spielzeuge n; cup Tasse Tassen f;
plate Teller Teller m; spoon Löffel Löffel m; bottle Flasche Flaschen f; candle Kerze Kerzen f;
lamp Lampe Lampen f; chair Stuhl Stühle m; hat Hut Hüte m; shirt Hemd Hemden n;
blanket Decke Decken f; towel Handtuch Handtücher n; goat Ziege Ziegen f; sheep Schaf Schafe n;
hen Huhn Hühner n; duck Ente Enten f; rabbit Kaninchen Kaninchen n; cow Kuh Kühe f;
box Kiste Kisten f; year Jahr Jahre n; km Kilometer Kilometer m; hour Stunde Stunden f;
minute Minute Minuten f; page Seite Seiten f; day Tag Tage m; money Euro Euro m;
child Kind Kinder n; time Mal Male n;
village zum_Dorf; city zur_Stadt; market zum_Markt; school zur_Schule; station zum_Bahnhof;
river zum_Fluss; sea zum_Meer; forest zum_Wald
""")
_ARTICLES = {
    "a": {"m": "ein", "f": "eine", "n": "ein"},
    "aacc": {"m": "einen", "f": "eine", "n": "ein"},
}


@cache
def spell_number(value: int) -> str:
    """Write a number in words.

    Args:
        value: The number.

    Returns:
        Its name in one word, such as "einundzwanzig".
    """
    return str(num2words(value, lang="de"))


def _write_noun(key: str, form: str) -> str:
    """Write a noun: "pl", "dat" (plural), "a" or "aacc" (with its article), else singular."""
    if form in _ARTICLES:
        return f"{_ARTICLES[form][NOUNS[key][2]]} {NOUNS[key][0]}"
    plural = NOUNS[key][1] if len(NOUNS[key]) > 1 else ""
    if form == "dat":
        return plural if plural[-1] in "ns" else plural + "n"
    return plural if form == "pl" else NOUNS[key][0]


def _write_count(value: int, key: str, form: str, as_digits: bool) -> str:
    """Write a number and its noun: "dat" in the dative; the key "time" is the suffix "mal"."""
    if key == "time":
        return f"{value}-mal" if as_digits else f"{spell_number(value)}mal"
    number = str(value) if as_digits else spell_number(value)
    form = form if form == "dat" else "pl"
    return f"{number} {_write_noun(key, '' if value == 1 else form)}"


QUESTIONS = read_templates("""
gain
- {A} hat {0.x}. {B} gibt {A?ihm|ihr} noch {1.x} dazu. Wie viele {x.pl} hat {A} jetzt?
- Am Anfang hatte {A} {0.x}. Dann bekam {A?er|sie} von {B} noch {1.x}. Wie viele {x.pl} hat {A}
  insgesamt?
loss
- {A} hat {0.x} und gibt {B} davon {1}. Wie viele {x.pl} hat {A} noch?
- {A} hatte {0.x}. {B} nahm {1.x} mit. Wie viele {x.pl} sind übrig?
more_than
- {A} hat {0.x}. {B} hat {1.x} mehr als {A}. Wie viele {x.pl} hat {B}?
- Bei {A} gibt es {0.x}, und bei {B} gibt es {1.x} mehr als bei {A}. Wie viele {x.pl}
  gibt es bei {B}?
difference
- {A} hat {0.x} und {B} hat {1.x}. Wie viele {x.pl} hat {A} mehr als {B}?
- {A} zählt {0.x}, aber {B} zählt nur {1.x}. Wie viele {x.pl} zählt {A} mehr als
  {B}?
times
- {A} hat {0.x}. {B} hat {1.time} so viele {x.pl}. Wie viele {x.pl} hat {B}?
- {B} hat {1.time} so viele {x.pl} wie {A}. {A} hat {0.x}. Wie viele {x.pl} hat {B}?
groups
- {A} hat {0.box}. In jeder Kiste sind {1.x}. Wie viele {x.pl} sind es insgesamt?
- {A} füllt {0.box} und legt {1.x} in jede Kiste. Wie viele {x.pl} braucht {A}?
sharing
- {A} verteilt {0.x} gleichmäßig an {1.child}. Wie viele {x.pl} bekommt jedes Kind?
- {1.child} teilen sich {0.x} von {A} zu gleichen Teilen. Wie viele {x.pl} bekommt jedes Kind?
packing
- {A} hat {0.x} und legt {1.x} in jede Kiste. Wie viele Kisten füllt {A}?
- In eine Kiste passen {1.x}. Wie viele Kisten braucht {A} für {0.x}?
price
- {A} kauft {0.x}. {x?Jeder|Jede|Jedes} {x} kostet {1.money}. Wie viele Euro bezahlt {A} insgesamt?
- {x.a} kostet {1.money}. Wie viele Euro braucht {A}, um {0.x} zu kaufen?
change
- {A} kauft {x.aacc} für {0.money} und bezahlt mit {1.money}. Wie viele Euro bekommt {A?er|sie}
  zurück?
- {A} hatte {1.money} und kaufte {x.aacc} für {0.money}. Wie viele Euro hat {A?er|sie} noch?
age_older
- {A} ist {0.year} alt. {B} ist {1.year} älter als {A}. Wie alt ist {B}?
- {B} ist {1.year} älter als {A}, und {A} ist {0.year} alt. Wie alt ist {B} jetzt?
age_future
- {A} ist jetzt {0.year} alt. Wie alt ist {A?er|sie} in {1.year.dat}?
- Heute wird {A} {0.year} alt. Wie alt wird {A?er|sie} in {1.year.dat} sein?
speed
- {A} fährt mit dem Fahrrad und schafft jede Stunde {0.km}. Wie viele Kilometer fährt {A?er|sie} in
  {1.hour}?
- {A} war {1.hour} unterwegs und legte in jeder Stunde {0.km} zurück. Wie viele Kilometer legte
  {A?er|sie} zurück?
distance_left
- Bis {x} sind es {0.km}. {A} ist schon {1.km} gegangen. Wie viele Kilometer fehlen noch?
- {A} geht {x}, der ganze Weg ist {0.km} lang. Nach {1.km.dat} macht {A?er|sie} eine Pause. Wie
  viele Kilometer bleiben noch?
time_total
- {A} liest {0.minute} lang und malt danach {1.minute} lang. Wie viele Minuten sind das zusammen?
- {A} arbeitete {0.minute} im Garten und {1.minute} in der Küche. Wie viele Minuten arbeitete
  {A?er|sie} insgesamt?
pages
- Das Buch von {A} hat {0.page}. {A?Er|Sie} liest jeden Tag {1.page}. Nach wie vielen Tagen ist das
  Buch zu Ende?
- {A} liest {1.page} am Tag. Wie viele Tage braucht {A?er|sie} für ein Buch mit {0.page}?
two_step_buy
- {A} hat {0.x}. {A?Er|Sie} kauft {1.box} mit je {2.x.dat}. Wie viele {x.pl} hat {A} jetzt?
- {A} hatte {0.x} zu Hause und brachte noch {1.box} mit. In jeder Kiste waren {2.x}. Wie viele
  {x.pl} sind es insgesamt?
gain_loss
- {A} hat {0.x}. {A?Er|Sie} bekommt noch {1.x} und gibt {B} dann {2.x}. Wie viele {x.pl} hat {A}
  noch?
- Am Morgen hatte {A} {0.x}, am Mittag kaufte {A?er|sie} noch {1.x}. Am Abend nahm {B} {2.x} mit.
  Wie viele {x.pl} hat {A} jetzt?
spend
- {A} hat {0.money} und kauft {1.x} für je {2.money}. Wie viele Euro hat {A?er|sie} noch?
- {x.a} kostet {2.money}. {A} hatte {0.money} und kaufte {1.x}. Wie viele Euro hat {A?er|sie} noch?
total_three
- {A} hat {0.x}, {B} hat {1.x} und {C} hat {2.x}. Wie viele {x.pl} haben sie zusammen?
- {A} brachte {0.x} mit, {B} brachte {1.x} mit und {C} brachte {2.x} mit. Wie viele {x.pl} sind es
  insgesamt?
""")

STEPS = {
    "gain": "Jetzt hat {A} {eq.x}.",
    "loss": "{A} hat noch {eq.x}.",
    "more_than": "{B} hat {eq.x}.",
    "difference": "Der Unterschied beträgt {eq.x}.",
    "times": "{B} hat {eq.x}.",
    "groups": "In allen Kisten zusammen: {eq.x}.",
    "sharing": "Jedes Kind bekommt {eq.x}.",
    "packing": "{A} braucht {eq.box}.",
    "price": "{A} bezahlt {eq.money}.",
    "change": "Der Rest beträgt {eq.money}.",
    "age_older": "{B} ist {eq.year} alt.",
    "age_future": "{A} ist dann {eq.year} alt.",
    "speed": "Der Weg ist {eq.km} lang.",
    "distance_left": "Der restliche Weg ist {eq.km} lang.",
    "time_total": "Das dauert {eq.minute}.",
    "pages": "{A} braucht {eq.day}.",
    "two_step_buy": "In den Kisten liegen {eq1.x}. Jetzt hat {A} {eq.x}.",
    "gain_loss": "Zuerst hat {A} {eq1.x}. Am Ende hat {A?er|sie} {eq.x}.",
    "spend": "{A} bezahlt {eq1.money}. Der Rest beträgt {eq.money}.",
    "total_three": "{A} und {B} haben {eq1.x}. Mit {C} sind es {eq.x}.",
}

GERMAN = Language(
    "de", NAMES, spell_number, _write_count, _write_noun, keep_name,
    lambda key: "mfn".index(NOUNS[key][2]), QUESTIONS, STEPS, "Die Antwort ist {word} ({number}).",
)  # fmt: skip
