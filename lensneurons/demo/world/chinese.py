"""Chinese: own number words, a measure word for every noun, 两 before measure words."""

from __future__ import annotations

from functools import cache

from .template import Language, keep_name, read_names, read_table, read_templates

NAMES = read_names(
    "小红 小丽 小芳 小燕 小梅 小兰 丽娜 美玲 雪莹 思雨 静怡 晓雯 佳慧 婷婷 欣然 玉珍 秀英 桂兰 "
    "春梅 雅琴",
    "小明 小刚 小强 小军 小华 大伟 建国 志强 国栋 浩然 子轩 俊杰 文博 天宇 宏伟 永辉 海涛 家豪 "
    "立新 启明",
)

# Noun and measure word.
NOUNS = read_table("""
apple 苹果 个; orange 橙子 个; banana 香蕉 根; mango 芒果 个; pear 梨 个; lemon 柠檬 个;
egg 鸡蛋 个; potato 土豆 个; tomato 西红柿 个; carrot 胡萝卜 根; onion 洋葱 个; coconut 椰子 个;
watermelon 西瓜 个; cookie 饼干 块; candy 糖果 颗; cake 蛋糕 块; book 书 本; notebook 笔记本 本;
pencil 铅笔 支; pen 钢笔 支; envelope 信封 个; newspaper 报纸 份; stamp 邮票 枚; photo 照片 张;
map 地图 张; ticket 票 张; key 钥匙 把; button 纽扣 颗; stone 石头 块; flower 花 朵;
shell 贝壳 个; ball 皮球 个; doll 布娃娃 个; toy 玩具 件; cup 杯子 个; plate 盘子 个;
spoon 勺子 把; bottle 瓶子 个; candle 蜡烛 支; lamp 台灯 盏; chair 椅子 把; hat 帽子 顶;
shirt 衬衫 件; blanket 毯子 条; towel 毛巾 条; goat 山羊 只; sheep 绵羊 只; hen 母鸡 只;
duck 鸭子 只; rabbit 兔子 只; cow 奶牛 头;
box 箱子 个; boxful - 箱; year - 岁; later - 年; km - 公里; hour - 小时; minute - 分钟; page - 页;
day - 天; money - 元; child 孩子 个; time - 倍;
village 村子; city 城里; market 市场; school 学校; station 火车站; river 河边; sea 海边;
forest 森林
""")
_DIGITS = "零一二三四五六七八九"


@cache
def spell_number(value: int) -> str:
    """Write a number below 1000 in words.

    Args:
        value: The number.

    Returns:
        Its name, such as "十二" or "两百零五".
    """
    hundreds, rest = divmod(value, 100)
    tens, units = divmod(rest, 10)
    unit = _DIGITS[units] if units or not value else ""
    ten = _DIGITS[tens] + "十" if tens else "零" * bool(hundreds and units)
    if not hundreds:
        return ("十" if tens == 1 else ten) + unit
    return ("两" if hundreds == 2 else _DIGITS[hundreds]) + "百" + ten + unit


def _write_noun(key: str, form: str) -> str:
    """Write a noun: "m" its measure word, "each" the measure word after 每, "one" after 一."""
    noun, measure = (*NOUNS[key], "")[:2]
    before = {"m": "", "each": "每", "one": "一"}.get(form)
    if before is None:
        return noun
    return measure if form == "m" else f"{before}{measure}{noun}"


def _write_count(value: int, key: str, form: str, as_digits: bool) -> str:
    """Write a number, the measure word and the noun; the form "m" leaves the noun out."""
    words = "两" if value == 2 else spell_number(value)
    noun, measure = NOUNS[key]
    return f"{value if as_digits else words}{measure}{'' if form == 'm' else noun}"


QUESTIONS = read_templates(
    """
gain
- {A}有{0.x}，{B}又给了{A?他|她}{1.x.m}。{A}现在有多少{x.m}{x}？
- {A}原来有{0.x}，后来{B}送给{A?他|她}{1.x}。{A}现在一共有多少{x.m}{x}？
loss
- {A}有{0.x}，给了{B}{1.x.m}。{A}还剩多少{x.m}{x}？
- {A}原来有{0.x}，{B}带走了其中的{1.x.m}。还剩下多少{x.m}{x}？
more_than
- {A}有{0.x}，{B}比{A}多{1.x.m}。{B}有多少{x.m}{x}？
- {A}家有{0.x}，{B}家比{A}家多{1.x.m}。{B}家有多少{x.m}{x}？
difference
- {A}有{0.x}，{B}有{1.x}。{A}比{B}多多少{x.m}{x}？
- {A}数了{0.x}，{B}只数了{1.x.m}。{A}比{B}多数了多少{x.m}{x}？
times
- {A}有{0.x}，{B}的{x}是{A}的{1.time}。{B}有多少{x.m}{x}？
- {B}的{x}数量是{A}的{1.time}，{A}有{0.x}。{B}有多少{x.m}{x}？
groups
- {A}有{0.box}，每个箱子里有{1.x}。一共有多少{x.m}{x}？
- {A}要装满{0.box}，每箱放{1.x}。{A?他|她}需要多少{x.m}{x}？
sharing
- {A}把{0.x}平均分给{1.child}。每个孩子得到多少{x.m}{x}？
- {1.child}平分{A}的{0.x}。每个孩子分到多少{x.m}{x}？
packing
- {A}有{0.x}，每个箱子放{1.x.m}。{A?他|她}能装满多少个箱子？
- 一个箱子能放{1.x}。{A}要放{0.x}，需要多少个箱子？
price
- {A}买了{0.x}，{x.each}{1.money}。{A}一共要付多少元？
- {x.one}的价钱是{1.money}。{A}想买{0.x}，需要多少元？
change
- {A}买了{x.one}，价钱是{0.money}，{A?他|她}付了{1.money}。应该找回多少元？
- {A}带了{1.money}，花{0.money}买了{x.one}。{A?他|她}还剩多少元？
age_older
- {A}今年{0.year}，{B}比{A}大{1.year}。{B}今年多少岁？
- {B}比{A}大{1.year}，{A}今年{0.year}。{B}现在多少岁？
age_future
- {A}今年{0.year}。{1.later}后，{A}多少岁？
- 今天是{A}的{0.year}生日。再过{1.later}，{A?他|她}多少岁？
speed
- {A}骑自行车，每小时骑{0.km}。{A?他|她}{1.hour}能骑多少公里？
- {A}在路上走了{1.hour}，每小时前进{0.km}。{A?他|她}一共走了多少公里？
distance_left
- 到{x}的路长{0.km}，{A}已经走了{1.km}。还剩多少公里？
- {A}要去{x}，全程{0.km}。走了{1.km}以后，{A?他|她}休息了一会儿。还要走多少公里？
time_total
- {A}先看了{0.minute}书，然后画了{1.minute}画。一共用了多少分钟？
- {A}在花园里干了{0.minute}活，又在厨房里干了{1.minute}活。{A?他|她}一共干了多少分钟活？
pages
- {A}的书有{0.page}，{A?他|她}每天看{1.page}。多少天可以看完？
- {A}每天看{1.page}书。看完一本{0.page}的书需要多少天？
two_step_buy
- {A}有{0.x}，又买了{1.boxful}，每箱有{2.x.m}。{A}现在有多少{x.m}{x}？
- {A}家里有{0.x}，{A?他|她}又带回了{1.boxful}，每箱有{2.x}。一共有多少{x.m}{x}？
gain_loss
- {A}有{0.x}，又得到{1.x.m}，然后给了{B}{2.x.m}。{A}还剩多少{x.m}{x}？
- 早上{A}有{0.x}，中午又买了{1.x}，晚上{B}带走了其中的{2.x.m}。{A}现在有多少{x.m}{x}？
spend
- {A}有{0.money}，买了{1.x}，{x.each}{2.money}。{A}还剩多少元？
- {x.one}的价钱是{2.money}。{A}带了{0.money}，买了{1.x}。{A?他|她}还剩多少元？
total_three
- {A}有{0.x}，{B}有{1.x}，{C}有{2.x}。三个人一共有多少{x.m}{x}？
- {A}带来{0.x}，{B}带来{1.x}，{C}带来{2.x}。三个人一共带来多少{x.m}{x}？
""",
    "",
)

STEPS = {
    "gain": "{A}现在有{eq.x}。",
    "loss": "{A}还剩{eq.x}。",
    "more_than": "{B}有{eq.x}。",
    "difference": "相差{eq.x}。",
    "times": "{B}有{eq.x}。",
    "groups": "箱子里一共有{eq.x}。",
    "sharing": "每个孩子得到{eq.x}。",
    "packing": "需要{eq.box}。",
    "price": "{A}要付{eq.money}。",
    "change": "剩下{eq.money}。",
    "age_older": "{B}今年{eq.year}。",
    "age_future": "那时{A}是{eq.year}。",
    "speed": "路程是{eq.km}。",
    "distance_left": "剩下的路是{eq.km}。",
    "time_total": "一共用了{eq.minute}。",
    "pages": "需要{eq.day}。",
    "two_step_buy": "箱子里有{eq1.x}。现在{A}有{eq.x}。",
    "gain_loss": "加起来{A}有{eq1.x}。最后剩下{eq.x}。",
    "spend": "{A}付了{eq1.money}。剩下{eq.money}。",
    "total_three": "{A}和{B}共有{eq1.x}。加上{C}的，一共有{eq.x}。",
}

CHINESE = Language(
    "zh", NAMES, spell_number, _write_count, _write_noun, keep_name, lambda key: 0,
    QUESTIONS, STEPS, "答案是{word}（{number}）。", "",
)  # fmt: skip
