"""Russian: cases of nouns and names, genitives by number, animate accusatives, verb gender."""

from __future__ import annotations

from functools import cache

from num2words import num2words

from .template import Language, read_names, read_table, read_templates

NAMES = read_names(
    "Анна Мария Ольга Елена Наталья Светлана Татьяна Ирина Екатерина Дарья Полина Вера Надежда "
    "Галина Людмила Юлия Ксения Алина Маша Катя",
    "Иван Борис Сергей Андрей Дмитрий Алексей Михаил Николай Антон Максим Игорь Виктор Олег "
    "Степан Кирилл Никита Илья Денис Роман Артём",
)

# Nominative singular, genitive singular, genitive plural, gender (with a "+" if animate), and
# for children also dative and instrumental, each singular and plural.
NOUNS = read_table("""
apple яблоко яблока яблок n; orange апельсин апельсина апельсинов m;
banana банан банана бананов m; mango манго манго манго n; pear груша груши груш f;
lemon лимон лимона лимонов m; egg яйцо яйца яиц n; potato картофелина картофелины картофелин f;
tomato помидор помидора помидоров m; carrot морковка морковки морковок f;
onion луковица луковицы луковиц f; coconut кокос кокоса кокосов m;
watermelon арбуз арбуза арбузов m; cookie пряник пряника пряников m;
candy конфета конфеты конфет f; cake торт торта тортов m; book книга книги книг f;
notebook тетрадь тетради тетрадей f; pencil карандаш карандаша карандашей m;
pen ручка ручки ручек f; envelope конверт конверта конвертов m; newspaper газета газеты газет f;
stamp марка марки марок f; photo фотография фотографии фотографий f; map карта карты карт f;
ticket билет билета билетов m; key ключ ключа ключей m; button пуговица пуговицы пуговиц f;
stone камень камня камней m; flower цветок цветка цветков m; shell ракушка ракушки ракушек f;
ball мяч мяча мячей m; doll кукла куклы кукол f+; toy игрушка игрушки игрушек f;
cup чашка чашки чашек f; plate тарелка тарелки тарелок f; spoon ложка ложки ложек f;
bottle бутылка бутылки бутылок f; candle свеча свечи свечей f; lamp лампа лампы ламп f;
chair стул стула стульев m; hat шляпа шляпы шляп f; shirt рубашка рубашки рубашек f;
blanket одеяло одеяла одеял n; towel полотенце полотенца полотенец n; goat коза козы коз f+;
sheep овца овцы овец f+; hen курица курицы кур f+; duck утка утки уток f+;
rabbit кролик кролика кроликов m+; cow корова коровы коров f+;
box коробка коробки коробок f; year год года лет m; km километр километра километров m;
hour час часа часов m; minute минута минуты минут f; page страница страницы страниц f;
day день дня дней m; money рубль рубля рублей m;
child ребёнок ребёнка детей m+ ребёнку детям ребёнком детьми; time раз раза раз m;
village деревни; city города; market рынка; school школы; station вокзала; river реки; sea моря;
forest леса
""")
_ENDINGS = {"а": "у", "я": "ю"}
_PLACES = {"gen": 1, "gpl": 2, "dat1": 4, "dat": 5, "ins1": 6, "ins": 7}


@cache
def spell_number(value: int, gender: str = "m", case: str = "n") -> str:
    """Write a number in words.

    Args:
        value: The number.
        gender: "m", "f" or "n": that of the noun it counts.
        case: "n" nominative, "d" dative, "i" instrumental, "a" accusative, "a+" accusative of
            animates.

    Returns:
        Its name, such as "двадцать одна".
    """
    if case != "a":
        return str(num2words(value, lang="ru", gender=gender, case=case[0]))
    words = spell_number(value, gender)
    return words[:-1] + "у" if words.endswith("одна") else words


def _decline_accusative(key: str) -> str:
    """Return the accusative singular of a noun."""
    nominative, genitive, _, gender = NOUNS[key][:4]
    if gender == "m+":
        return genitive
    last = nominative[-1]
    return nominative[:-1] + (_ENDINGS.get(last, last) if gender[0] == "f" else last)


def _write_noun(key: str, form: str) -> str:
    """Write a noun by case ("gpl" genitive plural, "dat1" dative singular, "dat" plural)."""
    if form == "acc":
        return _decline_accusative(key)
    return NOUNS[key][_PLACES.get(form, 0)]


def _choose_form(value: int) -> str:
    """Choose a noun's form after a number: "one", "gen" (2-4) or "gpl"."""
    if value % 100 in range(11, 15):
        return "gpl"
    return "one" if value % 10 == 1 else "gen" if value % 10 in (2, 3, 4) else "gpl"


def _write_count(value: int, key: str, form: str, as_digits: bool) -> str:
    """Write a number and its noun: "acc", "dat" or "ins" (instrumental), else nominative."""
    gender = NOUNS[key][3]
    animate = form == "acc" and gender.endswith("+")
    case, kind = "a" if form == "acc" else "n", _choose_form(value)
    if form in ("dat", "ins"):
        case, kind = form[0], form + "1" * (kind == "one")
    elif animate and value in (2, 3, 4):
        case, kind = "a+", "gpl"
    elif kind == "one":
        case, kind = "a+" if animate and gender[0] == "m" else case, form
    number = str(value) if as_digits else spell_number(value, gender[0], case)
    return f"{number} {_write_noun(key, kind)}"


def _write_name(name: str, form: str) -> str:
    """Write a name: "gen" genitive, "dat" dative, else nominative."""
    if form not in ("gen", "dat"):
        return name
    genitive = form == "gen"
    stem, last = name[:-1], name[-1]
    if name.endswith("ия"):
        return stem + "и"
    if last == "а":
        return stem + (("и" if stem[-1] in "гкхжшчщ" else "ы") if genitive else "е")
    if last == "я":
        return stem + ("и" if genitive else "е")
    if last in "йь":
        return stem + ("я" if genitive else "ю")
    return name + ("а" if genitive else "у")


QUESTIONS = read_templates("""
gain
- У {A.gen} {0.x}. {B} {B?дал|дала} {A?ему|ей} ещё {1.x.acc}. Сколько {x.gpl} теперь у {A.gen}?
- Сначала {A} {A?купил|купила} {0.x.acc}, а потом {A?получил|получила} ещё {1.x.acc} от {B.gen}.
  Сколько всего {x.gpl} стало у {A.gen}?
loss
- У {A.gen} {0.x}. {A?Он|Она} {A?отдал|отдала} {1.x.acc} {B.dat}. Сколько {x.gpl} осталось у
  {A.gen}?
- {A} {A?купил|купила} {0.x.acc}. {B} {B?взял|взяла} себе {1.x.acc}. Сколько {x.gpl} осталось?
more_than
- У {A.gen} {0.x}. У {B.gen} на {1.x.acc} больше, чем у {A.gen}. Сколько {x.gpl} у {B.gen}?
- {A} {A?купил|купила} {0.x.acc}, а {B} — на {1.x.acc} больше. Сколько {x.gpl} {B?купил|купила} {B}?
difference
- У {A.gen} {0.x}, а у {B.gen} {1.x}. На сколько {x.gpl} у {A.gen} больше, чем у {B.gen}?
- {A} {A?насчитал|насчитала} {0.x.acc}, а {B} — только {1.x.acc}. На сколько {x.gpl} больше
  {A?насчитал|насчитала} {A}?
times
- У {A.gen} {0.x}, а у {B.gen} в {1.time.acc} больше. Сколько {x.gpl} у {B.gen}?
- У {B.gen} в {1.time.acc} больше {x.gpl}, чем у {A.gen}. У {A.gen} {0.x}. Сколько {x.gpl} у
  {B.gen}?
groups
- У {A.gen} {0.box}. В каждой коробке {1.x}. Сколько всего {x.gpl} в коробках?
- {A} {A?заполнил|заполнила} {0.box.acc} и {A?положил|положила} в каждую {1.x.acc}. Сколько {x.gpl}
  {A?положил|положила} {A} в коробки?
sharing
- У {A.gen} {0.x}. {A?Он|Она} {A?раздал|раздала} их поровну {1.child.dat}. Сколько {x.gpl} получил
  каждый ребёнок?
- {A} {A?разделил|разделила} {0.x.acc} поровну между {1.child.ins}. Сколько {x.gpl} досталось
  каждому ребёнку?
packing
- У {A.gen} {0.x}. В каждую коробку {A?он|она} кладёт {1.x.acc}. Сколько коробок заполнит {A}?
- В одну коробку помещается {1.x}. Сколько коробок нужно {A.dat}, чтобы сложить {0.x.acc}?
price
- {A} {A?купил|купила} {0.x.acc}. {x?Каждый|Каждая|Каждое} {x} стоит {1.money.acc}. Сколько рублей
  {A?заплатил|заплатила} {A}?
- {x?Один|Одна|Одно} {x} стоит {1.money.acc}. Сколько рублей нужно {A.dat}, чтобы купить {0.x.acc}?
change
- {A} {A?купил|купила} {x.acc} за {0.money.acc} и {A?дал|дала} продавцу {1.money.acc}. Сколько
  рублей сдачи {A?получил|получила} {A}?
- У {A.gen} есть {1.money}. {A?Он|Она} покупает {x.acc} за {0.money.acc}. Сколько рублей останется у
  {A.gen}?
age_older
- {A.dat} {0.year}. {B} на {1.year.acc} старше, чем {A}. Сколько лет {B.dat}?
- {B} старше, чем {A}, на {1.year.acc}. {A.dat} сейчас {0.year}. Сколько лет сейчас {B.dat}?
age_future
- {A.dat} сейчас {0.year}. Сколько лет будет {A.dat} через {1.year.acc}?
- Сейчас {A.dat} {0.year}. Пройдёт ещё {1.year}. Сколько лет тогда будет {A.dat}?
speed
- {A} едет на велосипеде и каждый час проезжает {0.km.acc}. Сколько километров {A?он|она} проедет за
  {1.hour.acc}?
- {A} {A?был|была} в пути {1.hour.acc} и каждый час {A?проезжал|проезжала} {0.km.acc}. Сколько
  километров {A?проехал|проехала} {A}?
distance_left
- До {x} {0.km}. {A} уже {A?прошёл|прошла} {1.km.acc}. Сколько километров осталось пройти?
- {A} идёт до {x}, весь путь — {0.km}. Пройдя {1.km.acc}, {A?он|она} отдыхает. Сколько километров
  ещё осталось?
time_total
- {A} {A?читал|читала} {0.minute.acc}, а потом {A?рисовал|рисовала} {1.minute.acc}. Сколько всего
  минут это заняло?
- {A} {A?работал|работала} {0.minute.acc} в саду и {1.minute.acc} на кухне. Сколько всего минут
  {A?работал|работала} {A}?
pages
- В книге {0.page}. {A} читает каждый день {1.page.acc}. За сколько дней {A?он|она} прочитает всю
  книгу?
- {A} читает в день {1.page.acc}. Сколько дней {A?ему|ей} нужно на книгу, в которой {0.page}?
two_step_buy
- У {A.gen} {0.x}. {A?Он|Она} {A?купил|купила} {1.box.acc}, в каждой {2.x}. Сколько {x.gpl} теперь у
  {A.gen}?
- У {A.gen} дома {0.x}. {A?Он|Она} {A?принёс|принесла} ещё {1.box.acc}, и в каждой коробке {2.x}.
  Сколько всего {x.gpl} стало у {A.gen}?
gain_loss
- У {A.gen} {0.x}. {A?Он|Она} {A?получил|получила} ещё {1.x.acc}, а потом {A?отдал|отдала} {2.x.acc}
  {B.dat}. Сколько {x.gpl} осталось у {A.gen}?
- Утром {A} {A?купил|купила} {0.x.acc}, днём — ещё {1.x.acc}. Вечером {B} {B?взял|взяла} {2.x.acc}.
  Сколько {x.gpl} осталось у {A.gen}?
spend
- У {A.gen} {0.money}. {A?Он|Она} {A?купил|купила} {1.x.acc} по {2.money.acc}. Сколько рублей у
  {A?него|неё} осталось?
- {x?Один|Одна|Одно} {x} стоит {2.money.acc}. У {A.gen} есть {0.money}, и {A?он|она} покупает
  {1.x.acc}. Сколько рублей останется?
total_three
- У {A.gen} {0.x}, у {B.gen} {1.x}, а у {C.gen} {2.x}. Сколько {x.gpl} у них вместе?
- {A} {A?купил|купила} {0.x.acc}, {B} — {1.x.acc}, а {C} — {2.x.acc}. Сколько всего {x.gpl} они
  купили?
""")

STEPS = {
    "gain": "Теперь у {A.gen} {eq.x}.",
    "loss": "Остаток у {A.gen}: {eq.x}.",
    "more_than": "У {B.gen} {eq.x}.",
    "difference": "Разница: {eq.x}.",
    "times": "У {B.gen} {eq.x}.",
    "groups": "Всего в коробках {eq.x}.",
    "sharing": "Каждый ребёнок получил {eq.x.acc}.",
    "packing": "Нужно взять {eq.box.acc}.",
    "price": "Надо заплатить {eq.money.acc}.",
    "change": "Остаток: {eq.money}.",
    "age_older": "Значит, {B.dat} {eq.year}.",
    "age_future": "Тогда {A.dat} будет {eq.year}.",
    "speed": "Весь путь: {eq.km}.",
    "distance_left": "Осталось пройти {eq.km.acc}.",
    "time_total": "Всего это {eq.minute}.",
    "pages": "Нужно читать {eq.day.acc}.",
    "two_step_buy": "В коробках {eq1.x}. Теперь у {A.gen} {eq.x}.",
    "gain_loss": "Сначала у {A.gen} {eq1.x}. Потом остаётся {eq.x}.",
    "spend": "Покупка стоит {eq1.money.acc}. Остаток: {eq.money}.",
    "total_three": "У {A.gen} и {B.gen} вместе {eq1.x}. Всего у троих {eq.x}.",
}

RUSSIAN = Language(
    "ru", NAMES, spell_number, _write_count, _write_noun, _write_name,
    lambda key: "mfn".index(NOUNS[key][3][0]), QUESTIONS, STEPS, "Ответ: {word} ({number}).",
)  # fmt: skip
