"""Spanish: gender of nouns and hundreds, shortened "un" and "veintiún", plural agreement."""

from __future__ import annotations

from functools import cache

from num2words import num2words

from .template import Language, read_names, read_table, read_templates

NAMES = read_names(
    "Ana María Lucía Carmen Elena Isabel Paula Sara Marta Rosa Julia Claudia Andrea Sofía Valeria "
    "Camila Gabriela Daniela Teresa Inés",
    "Juan Carlos Pedro Luis Miguel Javier Diego Pablo Jorge Manuel Alejandro Fernando Antonio "
    "Ricardo Andrés Roberto Sergio Raúl Mateo Tomás",
)

# Singular, plural, gender.
NOUNS = read_table("""
apple manzana manzanas f; orange naranja naranjas f; banana plátano plátanos m;
mango mango mangos m; pear pera peras f; lemon limón limones m; egg huevo huevos m;
potato papa papas f; tomato tomate tomates m; carrot zanahoria zanahorias f;
onion cebolla cebollas f; coconut coco cocos m; watermelon sandía sandías f;
cookie galleta galletas f; candy caramelo caramelos m; cake pastel pasteles m;
book libro libros m; notebook cuaderno cuadernos m; pencil lápiz lápices m;
pen bolígrafo bolígrafos m; envelope sobre sobres m; newspaper periódico periódicos m;
stamp estampilla estampillas f; photo foto fotos f; map mapa mapas m; ticket boleto boletos m;
key llave llaves f; button botón botones m; stone piedra piedras f; flower flor flores f;
shell caracola caracolas f; ball pelota pelotas f; doll muñeca muñecas f; toy juguete juguetes m;
cup taza tazas f; plate plato platos m; spoon cuchara cucharas f; bottle botella botellas f;
candle vela velas f; lamp lámpara lámparas f; chair silla sillas f; hat sombrero sombreros m;
shirt camisa camisas f; blanket manta mantas f; towel toalla toallas f; goat cabra cabras f;
sheep oveja ovejas f; hen gallina gallinas f; duck pato patos m; rabbit conejo conejos m;
cow vaca vacas f;
box caja cajas f; year año años m; km kilómetro kilómetros m; hour hora horas f;
minute minuto minutos m; page página páginas f; day día días m; money peso pesos m;
child niño niños m; time vez veces f;
village el_pueblo; city la_ciudad; market el_mercado; school la_escuela; station la_estación;
river el_río; sea el_mar; forest el_bosque
""")


@cache
def spell_number(value: int, gender: str = "") -> str:
    """Write a number in words.

    Args:
        value: The number.
        gender: "m" or "f" before a noun of that gender, else the number's own name.

    Returns:
        Its name, such as "veintiuno" ("veintiún" and "veintiuna" before nouns).
    """
    words = str(num2words(value, lang="es"))
    if gender == "m" and words.endswith("uno"):
        return words[:-3] + ("ún" if words.endswith("veintiuno") else "un")
    if gender == "f":
        words = words[:-1] + "a" if words.endswith("uno") else words
        return words.replace("cientos", "cientas").replace("quinientos", "quinientas")
    return words


def _write_noun(key: str, form: str) -> str:
    """Write a noun: "pl" the plural, "a" with its indefinite article, else the singular."""
    if form == "pl":
        return NOUNS[key][1]
    article = {"m": "un ", "f": "una "}[NOUNS[key][2]] if form == "a" else ""
    return article + NOUNS[key][0]


def _write_count(value: int, key: str, form: str, as_digits: bool) -> str:
    """Write a number and its noun; the form "more" puts "más" after them."""
    number = str(value) if as_digits else spell_number(value, NOUNS[key][2])
    more = " más" if form == "more" else ""
    return f"{number} {_write_noun(key, '' if value == 1 else 'pl')}{more}"


def _write_name(name: str, form: str) -> str:
    """Write a name: "y" after "and", which is "e" before an i, else the name itself."""
    if form != "y":
        return name
    return f"{'e' if name[0] in 'IÍ' else 'y'} {name}"


QUESTIONS = read_templates("""
gain
- {A} tiene {0.x}. {B} le da {1.x.more}. ¿{x?Cuántos|Cuántas} {x.pl} tiene {A} ahora?
- Al principio {A} tenía {0.x}. Después recibió de {B} {1.x.more}. ¿{x?Cuántos|Cuántas} {x.pl} tiene
  {A} en total?
loss
- {A} tiene {0.x} y le da {1.x} a {B}. ¿{x?Cuántos|Cuántas} {x.pl} le quedan a {A}?
- {A} tenía {0.x}. {B} se llevó {1.x}. ¿{x?Cuántos|Cuántas} {x.pl} quedan?
more_than
- {A} tiene {0.x}. {B} tiene {1.x.more} que {A}. ¿{x?Cuántos|Cuántas} {x.pl} tiene {B}?
- En la casa de {A} hay {0.x}, y en la casa de {B} hay {1.x.more} que en la de {A}.
  ¿{x?Cuántos|Cuántas} {x.pl} hay en la casa de {B}?
difference
- {A} tiene {0.x} {B.y} tiene {1.x}. ¿{x?Cuántos|Cuántas} {x.pl} más tiene {A} que {B}?
- {A} contó {0.x}, pero {B} contó solo {1.x}. ¿{x?Cuántos|Cuántas} {x.pl} más contó {A} que {B}?
times
- {A} tiene {0.x}. {B} tiene {1.time} esa cantidad. ¿{x?Cuántos|Cuántas} {x.pl} tiene {B}?
- {B} tiene {1.time} la cantidad de {x.pl} que tiene {A}. {A} tiene {0.x}. ¿{x?Cuántos|Cuántas}
  {x.pl} tiene {B}?
groups
- {A} tiene {0.box}. En cada caja hay {1.x}. ¿{x?Cuántos|Cuántas} {x.pl} hay en total?
- {A} llena {0.box} y pone {1.x} en cada una. ¿{x?Cuántos|Cuántas} {x.pl} necesita {A}?
sharing
- {A} reparte {0.x} en partes iguales entre {1.child}. ¿{x?Cuántos|Cuántas} {x.pl} recibe cada niño?
- {A} tiene {0.x} para {1.child} y da la misma cantidad a cada niño. ¿{x?Cuántos|Cuántas} {x.pl} le
  tocan a cada niño?
packing
- {A} tiene {0.x} y pone {1.x} en cada caja. ¿Cuántas cajas llena {A}?
- En una caja caben {1.x}. ¿Cuántas cajas necesita {A} para guardar {0.x}?
price
- {A} compra {0.x}. Cada {x} cuesta {1.money}. ¿Cuántos pesos paga {A} en total?
- {x.a} cuesta {1.money}. ¿Cuántos pesos necesita {A} para comprar {0.x}?
change
- {A} compra {x.a} por {0.money} y paga con {1.money}. ¿Cuántos pesos de cambio recibe {A}?
- {A} tenía {1.money} y compró {x.a} por {0.money}. ¿Cuántos pesos le quedan?
age_older
- {A} tiene {0.year}. {B} tiene {1.year.more} que {A}. ¿Cuántos años tiene {B}?
- {B} le lleva {1.year} a {A}, y {A} tiene {0.year}. ¿Cuántos años tiene {B} ahora?
age_future
- {A} tiene {0.year}. ¿Cuántos años tendrá {A} dentro de {1.year}?
- Hoy {A} cumple {0.year}. ¿Qué edad tendrá cuando pasen {1.year}?
speed
- {A} va en bicicleta y recorre {0.km} cada hora. ¿Cuántos kilómetros recorre en {1.hour}?
- {A} viajó durante {1.hour} y recorrió {0.km} en cada hora. ¿Cuántos kilómetros recorrió en total?
distance_left
- Hasta {x} hay {0.km}. {A} ya caminó {1.km}. ¿Cuántos kilómetros faltan?
- {A} camina hasta {x}, que está a {0.km}. Después de {1.km} toma un descanso. ¿Cuántos kilómetros
  le faltan?
time_total
- {A} lee durante {0.minute} y luego dibuja durante {1.minute}. ¿Cuántos minutos son en total?
- {A} trabajó {0.minute} en el jardín y {1.minute} en la cocina. ¿Cuántos minutos trabajó en total?
pages
- El libro de {A} tiene {0.page}. {A} lee {1.page} cada día. ¿En cuántos días termina el libro?
- {A} lee {1.page} al día. ¿Cuántos días necesita para un libro de {0.page}?
two_step_buy
- {A} tiene {0.x}. Compra {1.box} con {2.x} en cada caja. ¿{x?Cuántos|Cuántas} {x.pl} tiene {A}
  ahora?
- {A} tenía {0.x} en casa y trajo {1.box}. En cada caja había {2.x}. ¿{x?Cuántos|Cuántas}
  {x.pl} hay en total?
gain_loss
- {A} tiene {0.x}. Recibe {1.x.more} y luego le da {2.x} a {B}. ¿{x?Cuántos|Cuántas} {x.pl} le
  quedan a {A}?
- Por la mañana {A} tenía {0.x} y al mediodía compró {1.x.more}. Por la noche {B} se llevó {2.x}.
  ¿{x?Cuántos|Cuántas} {x.pl} tiene {A} ahora?
spend
- {A} tiene {0.money} y compra {1.x} a {2.money} cada {x?uno|una}. ¿Cuántos pesos le quedan?
- {x.a} cuesta {2.money}. {A} tenía {0.money} y compró {1.x}. ¿Cuántos pesos le quedan?
total_three
- {A} tiene {0.x}, {B} tiene {1.x} {C.y} tiene {2.x}. ¿{x?Cuántos|Cuántas} {x.pl} tienen en total?
- {A}, {B} {C.y} trajeron {x.pl}: {A} trajo {0.x}, {B} trajo {1.x} {C.y} trajo {2.x}.
  ¿{x?Cuántos|Cuántas} {x.pl} hay en total?
""")

STEPS = {
    "gain": "Ahora {A} tiene {eq.x}.",
    "loss": "Al final {A} tiene {eq.x}.",
    "more_than": "{B} tiene {eq.x}.",
    "difference": "La diferencia es de {eq.x}.",
    "times": "{B} tiene {eq.x}.",
    "groups": "En las cajas hay {eq.x}.",
    "sharing": "Cada niño recibe {eq.x}.",
    "packing": "{A} necesita {eq.box}.",
    "price": "{A} paga {eq.money}.",
    "change": "El resto es de {eq.money}.",
    "age_older": "{B} tiene {eq.year}.",
    "age_future": "{A} tendrá {eq.year}.",
    "speed": "El recorrido es de {eq.km}.",
    "distance_left": "El resto del camino es de {eq.km}.",
    "time_total": "En total son {eq.minute}.",
    "pages": "{A} necesita {eq.day}.",
    "two_step_buy": "En las cajas hay {eq1.x}. Ahora {A} tiene {eq.x}.",
    "gain_loss": "Primero {A} tiene {eq1.x}. Al final tiene {eq.x}.",
    "spend": "{A} paga {eq1.money}. El resto es de {eq.money}.",
    "total_three": "{A} {B.y} tienen {eq1.x}. Con {C} son {eq.x}.",
}

SPANISH = Language(
    "es", NAMES, spell_number, _write_count, _write_noun, _write_name,
    lambda key: int(NOUNS[key][2] == "f"), QUESTIONS, STEPS, "La respuesta es {word} ({number}).",
)  # fmt: skip
