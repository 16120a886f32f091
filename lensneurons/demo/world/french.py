"""French: elision of "de" and "que", gender of nouns and of "un", hundreds and "quatre-vingts"."""

from __future__ import annotations

from functools import cache

from num2words import num2words

from .template import Language, read_names, read_table, read_templates

NAMES = read_names(
    "Camille Léa Manon Chloé Inès Juliette Louise Alice Clara Élise Margaux Pauline Sophie Amélie "
    "Céline Nathalie Sylvie Émilie Hélène Aurélie",
    "Pierre Louis Antoine Hugo Lucas Nicolas Julien Thomas Mathieu François Étienne Guillaume "
    "Rémi Olivier Xavier Bruno Gérard Marcel Théo Arthur",
)

# Singular, plural, gender.
NOUNS = read_table("""
apple pomme pommes f; orange orange oranges f; banana banane bananes f; mango mangue mangues f;
pear poire poires f; lemon citron citrons m; egg œuf œufs m;
potato pomme_de_terre pommes_de_terre f; tomato tomate tomates f; carrot carotte carottes f;
onion oignon oignons m; coconut noix_de_coco noix_de_coco f; watermelon pastèque pastèques f;
cookie biscuit biscuits m; candy bonbon bonbons m; cake gâteau gâteaux m; book livre livres m;
notebook cahier cahiers m; pencil crayon crayons m; pen stylo stylos m;
envelope enveloppe enveloppes f; newspaper journal journaux m; stamp timbre timbres m;
photo photo photos f; map carte cartes f; ticket billet billets m; key clé clés f;
button bouton boutons m; stone pierre pierres f; flower fleur fleurs f;
shell coquillage coquillages m; ball balle balles f; doll poupée poupées f; toy jouet jouets m;
cup tasse tasses f; plate assiette assiettes f; spoon cuillère cuillères f;
bottle bouteille bouteilles f; candle bougie bougies f; lamp lampe lampes f;
chair chaise chaises f; hat chapeau chapeaux m; shirt chemise chemises f;
blanket couverture couvertures f; towel serviette serviettes f; goat chèvre chèvres f;
sheep mouton moutons m; hen poule poules f; duck canard canards m; rabbit lapin lapins m;
cow vache vaches f;
box boîte boîtes f; year an ans m; km kilomètre kilomètres m; hour heure heures f;
minute minute minutes f; page page pages f; day jour jours m; money euro euros m;
child enfant enfants m; time fois fois f;
village au_village; city à_la_ville; market au_marché; school à_l'école; station à_la_gare;
river à_la_rivière; sea à_la_mer; forest à_la_forêt
""")
_VOWELS = "aeiouhàâéèêîôûœ"


@cache
def spell_number(value: int, gender: str = "m") -> str:
    """Write a number in words.

    Args:
        value: The number.
        gender: "m" or "f": that of the noun it counts.

    Returns:
        Its name, such as "vingt et un" ("vingt et une" with a feminine noun).
    """
    words = str(num2words(value, lang="fr"))
    is_one = value % 10 == 1 and value % 100 not in (11, 71, 91)
    return words + "e" if gender == "f" and is_one else words


def _elide(particle: str, word: str) -> str:
    """Put "de" or "que" before a word, shortened before a vowel or a mute h."""
    return f"{particle[:-1]}'{word}" if word[0].lower() in _VOWELS else f"{particle} {word}"


def _write_noun(key: str, form: str) -> str:
    """Write a noun: "pl" plural, "de" plural after "de", "a" with its article, else singular."""
    singular, plural, gender = (*NOUNS[key], "", "")[:3]
    if form == "de":
        return _elide("de", plural)
    return {"pl": plural, "a": f"{'une' if gender == 'f' else 'un'} {singular}"}.get(form, singular)


def _write_count(value: int, key: str, form: str, as_digits: bool) -> str:
    """Write a number and its noun; the form "more" puts "de plus" after them."""
    number = str(value) if as_digits else spell_number(value, NOUNS[key][2])
    more = " de plus" if form == "more" else ""
    return f"{number} {_write_noun(key, '' if value == 1 else 'pl')}{more}"


def _write_name(name: str, form: str) -> str:
    """Write a name: after "de" or "que" if that is the form, else alone."""
    return _elide(form, name) if form else name


QUESTIONS = read_templates("""
gain
- {A} a {0.x}. {B} lui donne {1.x.more}. Combien {x.de} {A} a-t-{A?il|elle} maintenant ?
- Au début, {A} avait {0.x}. Ensuite, {A?il|elle} a encore reçu {1.x} de la part {B.de}. Combien
  {x.de} a-t-{A?il|elle} en tout ?
loss
- {A} a {0.x} et donne {1.x} à {B}. Combien {x.de} reste-t-il à {A} ?
- {A} avait {0.x}. {B} a pris {1.x}. Combien {x.de} reste-t-il ?
more_than
- {A} a {0.x}. {B} a {1.x.more} {A.que}. Combien {x.de} {B} a-t-{B?il|elle} ?
- Chez {A}, il y a {0.x}. Chez {B}, il y a {1.x.more} que chez {A}. Combien {x.de} y a-t-il chez
  {B} ?
difference
- {A} a {0.x} et {B} a {1.x}. Combien {x.de} {A} a-t-{A?il|elle} de plus {B.que} ?
- {A} a compté {0.x}, mais {B} n'a compté que {1.x}. Combien {x.de} {A} a-t-{A?il|elle}
  {x?comptés|comptées} de plus {B.que} ?
times
- {A} a {0.x}. {B} a {1.time} plus {x.de} {A.que}. Combien {x.de} {B} a-t-{B?il|elle} ?
- {B} a {1.time} autant {x.de} {A.que}. {A} a {0.x}. Combien {x.de} {B} a-t-{B?il|elle} ?
groups
- {A} a {0.box}. Il y a {1.x} dans chaque boîte. Combien {x.de} y a-t-il en tout ?
- {A} remplit {0.box} et met {1.x} dans chacune. Combien {x.de} faut-il à {A} ?
sharing
- {A} partage {0.x} à parts égales entre {1.child}. Combien {x.de} chaque enfant reçoit-il ?
- {A} a {0.x} pour {1.child} et donne le même nombre à chacun. Combien {x.de} y a-t-il pour chaque
  enfant ?
packing
- {A} a {0.x} et met {1.x} dans chaque boîte. Combien de boîtes remplit-{A?il|elle} ?
- Une boîte peut contenir {1.x}. Combien de boîtes faut-il à {A} pour ranger {0.x} ?
price
- {A} achète {0.x}. Chaque {x} coûte {1.money}. Combien {A} paie-t-{A?il|elle} en tout ?
- {x.a} coûte {1.money}. Combien d'euros faut-il à {A} pour acheter {0.x} ?
change
- {A} achète {x.a} à {0.money} et paie avec {1.money}. Combien d'euros lui rend-on ?
- {A} avait {1.money} et a acheté {x.a} à {0.money}. Combien d'euros lui reste-t-il ?
age_older
- {A} a {0.year}. {B} a {1.year.more} {A.que}. Quel âge a {B} ?
- {A}, qui a {0.year}, a {1.year} de moins {B.que}. Quel âge a {B} maintenant ?
age_future
- {A} a {0.year}. Quel âge aura-t-{A?il|elle} dans {1.year} ?
- Aujourd'hui, {A} fête ses {0.year}. Quel sera l'âge {A.de} dans {1.year} ?
speed
- {A} fait du vélo et parcourt {0.km} par heure. Combien de kilomètres parcourt-{A?il|elle} en
  {1.hour} ?
- {A} a roulé pendant {1.hour} et a fait {0.km} chaque heure. Combien de kilomètres a-t-{A?il|elle}
  faits ?
distance_left
- {A} va {x}, qui est à {0.km}. {A?Il|Elle} a déjà fait {1.km} à pied. Combien de kilomètres
  reste-t-il ?
- {A} doit marcher {0.km} pour aller {x}. Après {1.km}, {A?il|elle} fait une pause. Combien de
  kilomètres lui reste-t-il ?
time_total
- {A} lit pendant {0.minute}, puis dessine pendant {1.minute}. Combien de minutes cela fait-il en
  tout ?
- {A} a travaillé {0.minute} dans le jardin et {1.minute} dans la cuisine. Combien de minutes
  a-t-{A?il|elle} travaillé en tout ?
pages
- Le livre {A.de} a {0.page}. {A} lit {1.page} par jour. En combien de jours finit-{A?il|elle} le
  livre ?
- {A} lit {1.page} chaque jour. Combien de jours lui faut-il pour un livre de {0.page} ?
two_step_buy
- {A} a {0.x}. {A?Il|Elle} achète {1.box} avec {2.x} dans chaque boîte. Combien {x.de} {A}
  a-t-{A?il|elle} maintenant ?
- {A} avait {0.x} à la maison et a rapporté {1.box}. Il y avait {2.x} dans chaque boîte. Combien
  {x.de} y a-t-il en tout ?
gain_loss
- {A} a {0.x}. {A?Il|Elle} reçoit {1.x.more}, puis donne {2.x} à {B}. Combien {x.de} reste-t-il à
  {A} ?
- Le matin, {A} avait {0.x} et, à midi, {A?il|elle} a acheté {1.x.more}. Le soir, {B} a pris {2.x}.
  Combien {x.de} {A} a-t-{A?il|elle} maintenant ?
spend
- {A} a {0.money} et achète {1.x} à {2.money} la pièce. Combien d'euros lui reste-t-il ?
- {x.a} coûte {2.money}. {A} avait {0.money} et a acheté {1.x}. Combien d'euros lui reste-t-il ?
total_three
- {A} a {0.x}, {B} a {1.x} et {C} a {2.x}. Combien {x.de} cela fait-il en tout ?
- {A} a acheté {0.x}, {B} {1.x} et {C} {2.x}. Combien {x.de} y a-t-il en tout ?
""")

STEPS = {
    "gain": "Maintenant, {A} a {eq.x}.",
    "loss": "Il reste à {A} {eq.x}.",
    "more_than": "{B} a {eq.x}.",
    "difference": "La différence est de {eq.x}.",
    "times": "{B} a {eq.x}.",
    "groups": "Dans les boîtes, il y a {eq.x}.",
    "sharing": "Chaque enfant reçoit {eq.x}.",
    "packing": "Il faut à {A} {eq.box}.",
    "price": "{A} paie {eq.money}.",
    "change": "Le reste est de {eq.money}.",
    "age_older": "{B} a {eq.year}.",
    "age_future": "{A} aura {eq.year}.",
    "speed": "Le trajet est de {eq.km}.",
    "distance_left": "Il reste {eq.km}.",
    "time_total": "Cela fait {eq.minute}.",
    "pages": "Il faut à {A} {eq.day}.",
    "two_step_buy": "Dans les boîtes, il y a {eq1.x}. Maintenant, {A} a {eq.x}.",
    "gain_loss": "D'abord, {A} a {eq1.x}. À la fin, il reste {eq.x}.",
    "spend": "{A} paie {eq1.money}. Il reste {eq.money}.",
    "total_three": "{A} et {B} ont {eq1.x}. Avec {C}, cela fait {eq.x}.",
}

FRENCH = Language(
    "fr", NAMES, spell_number, _write_count, _write_noun, _write_name,
    lambda key: int(NOUNS[key][2] == "f"), QUESTIONS, STEPS, "La réponse est {word} ({number}).",
)  # fmt: skip
