"""Thai: a classifier for every noun, words without spaces, spaces around digits and clauses."""

from __future__ import annotations

from functools import cache

from num2words import num2words

from .template import Language, keep_name, read_names, read_table, read_templates

NAMES = read_names(
    "มาลี สมหญิง สุดา วิภา นภา พิมพา ดารา อรุณี กัญญา ปราณี วรรณา "
    "จันทรา กานดา มะลิ น้ำฝน ศิริพร รัตนา สุภาพร อัญชลี นิดา",
    "สมชาย ประเสริฐ วิชัย สมศักดิ์ อนันต์ ธนา กิตติ ณัฐ พิชัย สุรชัย มานะ ปิติ ชูชาติ วีระ อภิชาติ ธีระ ก้อง เอก มงคล สมบัติ",
)

# Noun and classifier.
NOUNS = read_table("""
apple แอปเปิล ลูก; orange ส้ม ลูก; banana กล้วย ลูก; mango มะม่วง ลูก; pear ลูกแพร์ ลูก; lemon มะนาว ลูก;
egg ไข่ ฟอง; potato มันฝรั่ง หัว; tomato มะเขือเทศ ลูก; carrot แครอต หัว; onion หัวหอม หัว;
coconut มะพร้าว ลูก; watermelon แตงโม ลูก; cookie คุกกี้ ชิ้น; candy ลูกอม เม็ด; cake เค้ก ชิ้น;
book หนังสือ เล่ม; notebook สมุด เล่ม; pencil ดินสอ แท่ง; pen ปากกา ด้าม; envelope ซองจดหมาย ซอง;
newspaper หนังสือพิมพ์ ฉบับ; stamp แสตมป์ ดวง; photo รูปถ่าย ใบ; map แผนที่ แผ่น; ticket ตั๋ว ใบ; key กุญแจ ดอก;
button กระดุม เม็ด; stone หิน ก้อน; flower ดอกไม้ ดอก; shell เปลือกหอย อัน; ball ลูกบอล ลูก; doll ตุ๊กตา ตัว;
toy ของเล่น ชิ้น; cup ถ้วย ใบ; plate จาน ใบ; spoon ช้อน คัน; bottle ขวด ใบ; candle เทียน เล่ม;
lamp โคมไฟ ดวง; chair เก้าอี้ ตัว; hat หมวก ใบ; shirt เสื้อ ตัว; blanket ผ้าห่ม ผืน; towel ผ้าเช็ดตัว ผืน;
goat แพะ ตัว; sheep แกะ ตัว; hen แม่ไก่ ตัว; duck เป็ด ตัว; rabbit กระต่าย ตัว; cow วัว ตัว;
box กล่อง ใบ; boxful - กล่อง; year - ปี; km - กิโลเมตร; hour - ชั่วโมง; minute - นาที; page - หน้า;
day - วัน; money - บาท; child เด็ก คน; time - เท่า;
village หมู่บ้าน; city ตัวเมือง; market ตลาด; school โรงเรียน; station สถานีรถไฟ; river แม่น้ำ; sea ทะเล;
forest ป่า
""")


@cache
def spell_number(value: int) -> str:
    """Write a number in words.

    Args:
        value: The number.

    Returns:
        Its name, such as "ยี่สิบเอ็ด".
    """
    return str(num2words(value, lang="th"))


def _write_noun(key: str, form: str) -> str:
    """Write a noun: "m" its classifier, "one" the noun counted once, else the noun."""
    if form == "m":
        return NOUNS[key][1]
    return f"{NOUNS[key][0]}หนึ่ง{NOUNS[key][1]}" if form == "one" else NOUNS[key][0]


def _write_count(value: int, key: str, form: str, as_digits: bool) -> str:
    """Write noun, number and classifier; "m" and "eq" (after an equals sign) drop the noun."""
    noun, classifier = NOUNS[key]
    if form == "eq":
        return f"{value} {classifier}"
    number = f" {value} " if as_digits else spell_number(value)
    return f"{'' if form == 'm' else noun}{number}{classifier}"


QUESTIONS = read_templates("""
gain
- {A}มี{0.x} {B}ให้{A}อีก{1.x.m} ตอนนี้{A}มี{x}กี่{x.m}
- ตอนแรก{A}มี{0.x} ต่อมา{A}ได้รับจาก{B}อีก{1.x.m} รวมแล้ว{A}มี{x}กี่{x.m}
loss
- {A}มี{0.x} {A}ให้{B}ไป{1.x.m} {A}เหลือ{x}กี่{x.m}
- เดิม{A}มี{0.x} ต่อมา{B}เอาไป{1.x.m} ตอนนี้เหลือ{x}กี่{x.m}
more_than
- {A}มี{0.x} {B}มีมากกว่า{A}อยู่{1.x.m} {B}มี{x}กี่{x.m}
- ที่บ้านของ{A}มี{0.x} ที่บ้านของ{B}มีมากกว่าบ้านของ{A}อยู่{1.x.m} ที่บ้านของ{B}มี{x}กี่{x.m}
difference
- {A}มี{0.x} ส่วน{B}มี{1.x} {A}มี{x}มากกว่า{B}กี่{x.m}
- {A}นับ{x}ได้{0.x.m} แต่{B}นับได้เพียง{1.x.m} {A}นับได้มากกว่า{B}กี่{x.m}
times
- {A}มี{0.x} {B}มี{x}เป็น{1.time}ของ{A} {B}มี{x}กี่{x.m}
- จำนวน{x}ของ{B}เป็น{1.time}ของ{A} ถ้า{A}มี{0.x} {B}จะมี{x}กี่{x.m}
groups
- {A}มี{0.box} แต่ละกล่องมี{1.x} รวมมี{x}ทั้งหมดกี่{x.m}
- {A}ใส่{x}ลงใน{0.box} กล่องละ{1.x.m} {A}ต้องใช้{x}ทั้งหมดกี่{x.m}
sharing
- {A}แบ่ง{0.x}ให้{1.child}เท่า ๆ กัน เด็กแต่ละคนได้{x}กี่{x.m}
- {1.child}แบ่ง{0.x}ของ{A} คนละเท่า ๆ กัน เด็กแต่ละคนได้{x}กี่{x.m}
packing
- {A}มี{0.x} ใส่กล่องละ{1.x.m} จะใส่ได้ทั้งหมดกี่กล่อง
- กล่องหนึ่งใบใส่{x}ได้{1.x.m} ถ้า{A}มี{0.x} ต้องใช้กล่องกี่ใบ
price
- {A}ซื้อ{0.x} ราคา{x.m}ละ{1.money} {A}ต้องจ่ายเงินทั้งหมดกี่บาท
- {x}ราคา{x.m}ละ{1.money} ถ้า{A}ซื้อ{0.x.m} ต้องใช้เงินกี่บาท
change
- {A}ซื้อ{x.one}ราคา{0.money} และจ่ายเงินไป{1.money} {A}จะได้เงินทอนกี่บาท
- {A}มีเงิน{1.money} แล้วซื้อ{x.one}ในราคา{0.money} {A}เหลือเงินกี่บาท
age_older
- {A}อายุ{0.year} {B}อายุมากกว่า{A}อยู่{1.year} {B}อายุกี่ปี
- {B}แก่กว่า{A}อยู่{1.year} ตอนนี้{A}อายุ{0.year} แล้ว{B}อายุกี่ปี
age_future
- ตอนนี้{A}อายุ{0.year} อีก{1.year}ข้างหน้า {A}จะอายุกี่ปี
- วันนี้{A}อายุครบ{0.year} เมื่อเวลาผ่านไปอีก{1.year} {A}จะมีอายุกี่ปี
speed
- {A}ขี่จักรยานได้ชั่วโมงละ{0.km} ในเวลา{1.hour} {A}จะไปได้กี่กิโลเมตร
- {A}เดินทางนาน{1.hour} ได้ระยะทางชั่วโมงละ{0.km} {A}เดินทางได้ทั้งหมดกี่กิโลเมตร
distance_left
- ระยะทางไป{x}คือ{0.km} {A}เดินไปแล้ว{1.km} เหลืออีกกี่กิโลเมตร
- {A}จะเดินไป{x}ซึ่งอยู่ห่างออกไป{0.km} เมื่อเดินได้{1.km}ก็หยุดพัก ยังเหลือระยะทางกี่กิโลเมตร
time_total
- {A}อ่านหนังสือ{0.minute} แล้ววาดรูปอีก{1.minute} รวมใช้เวลากี่นาที
- {A}ทำงานในสวน{0.minute} และทำงานในครัว{1.minute} รวมทำงานทั้งหมดกี่นาที
pages
- หนังสือของ{A}มี{0.page} {A}อ่านวันละ{1.page} จะอ่านจบในกี่วัน
- {A}อ่านหนังสือวันละ{1.page} ถ้าหนังสือมี{0.page} ต้องใช้เวลาอ่านกี่วัน
two_step_buy
- {A}มี{0.x} แล้วซื้อเพิ่มอีก{1.boxful} กล่องละ{2.x.m} ตอนนี้{A}มี{x}ทั้งหมดกี่{x.m}
- ที่บ้านของ{A}มี{0.x} {A}นำมาเพิ่มอีก{1.boxful} แต่ละกล่องมี{2.x} รวมมี{x}ทั้งหมดกี่{x.m}
gain_loss
- {A}มี{0.x} ได้มาเพิ่มอีก{1.x.m} แล้วให้{B}ไป{2.x.m} {A}เหลือ{x}กี่{x.m}
- ตอนเช้า{A}มี{0.x} ตอนเที่ยงซื้อเพิ่มอีก{1.x.m} ตอนเย็น{B}เอาไป{2.x.m} ตอนนี้{A}มี{x}กี่{x.m}
spend
- {A}มีเงิน{0.money} แล้วซื้อ{1.x} ราคา{x.m}ละ{2.money} {A}เหลือเงินกี่บาท
- {x}ราคา{x.m}ละ{2.money} {A}มีเงิน{0.money} และซื้อไป{1.x.m} {A}จะเหลือเงินกี่บาท
total_three
- {A}มี{0.x} {B}มี{1.x} และ{C}มี{2.x} ทั้งสามคนมี{x}รวมกันกี่{x.m}
- {A}นำ{x}มา{0.x.m} {B}นำมา{1.x.m} และ{C}นำมา{2.x.m} รวมมี{x}ทั้งหมดกี่{x.m}
""")

STEPS = {
    "gain": "ตอนนี้{A}มี{x} {eq.x}",
    "loss": "{A}เหลือ{x} {eq.x}",
    "more_than": "{B}มี{x} {eq.x}",
    "difference": "ต่างกัน {eq.x}",
    "times": "{B}มี{x} {eq.x}",
    "groups": "ในกล่องมี{x}ทั้งหมด {eq.x}",
    "sharing": "เด็กแต่ละคนได้{x} {eq.x}",
    "packing": "ต้องใช้กล่อง {eq.box}",
    "price": "ต้องจ่ายเงิน {eq.money}",
    "change": "เหลือเงิน {eq.money}",
    "age_older": "{B}อายุ {eq.year}",
    "age_future": "ตอนนั้น{A}จะอายุ {eq.year}",
    "speed": "ระยะทางทั้งหมดคือ {eq.km}",
    "distance_left": "ระยะทางที่เหลือคือ {eq.km}",
    "time_total": "รวมใช้เวลา {eq.minute}",
    "pages": "ต้องใช้เวลา {eq.day}",
    "two_step_buy": "ในกล่องมี{x} {eq1.x} ตอนนี้{A}มี{x} {eq.x}",
    "gain_loss": "รวมแล้ว{A}มี{x} {eq1.x} สุดท้ายเหลือ {eq.x}",
    "spend": "ต้องจ่ายเงิน {eq1.money} เหลือเงิน {eq.money}",
    "total_three": "{A}กับ{B}มี{x} {eq1.x} เมื่อรวมกับของ{C}เป็น {eq.x}",
}

THAI = Language(
    "th", NAMES, spell_number, _write_count, _write_noun, keep_name, lambda key: 0,
    QUESTIONS, STEPS, "คำตอบคือ{word} ({number})",
)  # fmt: skip
