"""Japanese: kanji numbers by num2words, a counter for every noun, particles after names."""

from __future__ import annotations

from functools import cache

from num2words import num2words

from .template import Language, keep_name, read_names, read_table, read_templates

NAMES = read_names(
    "さくら 花子 陽子 由美 美咲 愛 結衣 葵 明日香 直子 恵子 真由美 千春 桃子 彩 楓 遥 紗希 ゆかり "
    "ひなた",
    "太郎 健太 翔太 大輔 拓也 直樹 誠 一郎 次郎 和也 陸 蓮 悠斗 浩二 勇気 隼人 武 正男 けんじ "
    "ひろし",
)

# Noun and counter.
NOUNS = read_table("""
apple りんご 個; orange オレンジ 個; banana バナナ 本; mango マンゴー 個; pear 梨 個;
lemon レモン 個; egg 卵 個; potato じゃがいも 個; tomato トマト 個; carrot にんじん 本;
onion 玉ねぎ 個; coconut ココナッツ 個; watermelon すいか 個; cookie クッキー 枚; candy あめ 個;
cake ケーキ 個; book 本 冊; notebook ノート 冊; pencil 鉛筆 本; pen ペン 本; envelope 封筒 枚;
newspaper 新聞 部; stamp 切手 枚; photo 写真 枚; map 地図 枚; ticket 切符 枚; key 鍵 本;
button ボタン 個; stone 石 個; flower 花 本; shell 貝がら 個; ball ボール 個; doll 人形 体;
toy おもちゃ 個; cup コップ 個; plate お皿 枚; spoon スプーン 本; bottle びん 本;
candle ろうそく 本; lamp ランプ 台; chair いす 脚; hat 帽子 個; shirt シャツ 枚; blanket 毛布 枚;
towel タオル 枚; goat やぎ 頭; sheep 羊 頭; hen にわとり 羽; duck あひる 羽; rabbit うさぎ 匹;
cow 牛 頭;
box - 箱; year - 歳; later - 年; km - キロメートル; hour - 時間; minute - 分; page - ページ;
day - 日; money - 円; child - 人; time - 倍;
village 村; city 町; market 市場; school 学校; station 駅; river 川; sea 海; forest 森
""")


@cache
def spell_number(value: int) -> str:
    """Write a number in kanji.

    Args:
        value: The number.

    Returns:
        Its name, such as "二十一".
    """
    return str(num2words(value, lang="ja"))


def _write_noun(key: str, form: str) -> str:
    """Write a noun: "m" its counter, else the noun."""
    return NOUNS[key][1] if form == "m" else NOUNS[key][0]


def _write_count(value: int, key: str, form: str, as_digits: bool) -> str:
    """Write a number and the counter of what it counts."""
    return f"{value if as_digits else spell_number(value)}{NOUNS[key][1]}"


QUESTIONS = read_templates(
    """
gain
- {A}さんは{x}を{0.x}{x?持って|飼って}います。さらに{B}さんから{1.x}もらいました。{A}さんは今、
  {x}を何{x.m}{x?持って|飼って}いますか。
- {A}さんのところに{x}が{0.x}{x?あり|い}ました。そのあと、{B}さんから{1.x}もらいました。
  {x}は全部で何{x.m}になりましたか。
loss
- {A}さんは{x}を{0.x}{x?持って|飼って}います。{B}さんに{1.x}あげました。{x}は何{x.m}残っていますか。
- {A}さんの{x}は{0.x}でした。{B}さんがそのうち{1.x}を{x?持って|連れて}いきました。
  残りの{x}は何{x.m}ですか。
more_than
- {A}さんは{x}を{0.x}{x?持って|飼って}います。{B}さんは{A}さんより{1.x}多く{x?持って|飼って}います。
  {B}さんの{x}は何{x.m}ですか。
- {A}さんの家の{x}は{0.x}です。{B}さんの家の{x}はそれより{1.x}多いです。
  {B}さんの家の{x}は何{x.m}ですか。
difference
- {A}さんは{x}を{0.x}、{B}さんは{1.x}{x?持って|飼って}います。
  {A}さんは{B}さんより何{x.m}多く{x?持って|飼って}いますか。
- {A}さんは{x}を{0.x}数えましたが、{B}さんは{1.x}しか数えませんでした。
  {A}さんは{B}さんより何{x.m}多く数えましたか。
times
- {A}さんは{x}を{0.x}{x?持って|飼って}います。{B}さんの{x}はその{1.time}です。
  {B}さんは{x}を何{x.m}{x?持って|飼って}いますか。
- {B}さんは{x}を{A}さんの{1.time}{x?持って|飼って}います。{A}さんの{x}は{0.x}です。
  {B}さんの{x}は何{x.m}ですか。
groups
- {A}さんは{x}の箱を{0.box}持っています。どの箱にも{x}が{1.x}入っています。
  {x}は全部で何{x.m}ですか。
- {A}さんは{x}を一箱に{1.x}ずつ、{0.box}に入れます。{x}は全部で何{x.m}いりますか。
sharing
- {A}さんは{0.x}の{x}を{1.child}の子どもに同じ数ずつ分けます。一人分は何{x.m}ですか。
- {1.child}の子どもが{A}さんの{x}{0.x}を等しく分けました。子どもは一人何{x.m}ずつもらいましたか。
packing
- {A}さんは{0.x}の{x}を一箱に{1.x}ずつ入れます。箱はいくつ必要ですか。
- 一つの箱に{x}が{1.x}入ります。{A}さんが{0.x}の{x}を全部入れるには、箱がいくつ必要ですか。
price
- {A}さんは一{x.m}{1.money}の{x}を{0.x}買いました。代金は全部で何円ですか。
- {x}は一{x.m}{1.money}です。{A}さんが{0.x}買うには、何円必要ですか。
change
- {A}さんは{0.money}の{x}を一{x.m}買って、{1.money}払いました。おつりは何円ですか。
- {A}さんは{1.money}持っていました。{x}を一{x.m}、{0.money}で買いました。残りは何円ですか。
age_older
- {A}さんは{0.year}です。{B}さんは{A}さんより{1.year}年上です。{B}さんは何歳ですか。
- {B}さんは{A}さんより{1.year}年上で、{A}さんは今{0.year}です。{B}さんは今、何歳ですか。
age_future
- {A}さんは今{0.year}です。{1.later}後には何歳になりますか。
- 今日は{A}さんの{0.year}の誕生日です。今から{1.later}たつと、{A}さんは何歳になりますか。
speed
- {A}さんは自転車で一時間に{0.km}進みます。{1.hour}では何キロメートル進みますか。
- {A}さんは自転車で時速{0.km}で{1.hour}走りました。走った道のりは何キロメートルですか。
distance_left
- {x}までの道のりは{0.km}です。{A}さんはもう{1.km}歩きました。残りは何キロメートルですか。
- {A}さんは{0.km}先の{x}へ行きます。{1.km}歩いて休みました。あと何キロメートルありますか。
time_total
- {A}さんは本を{0.minute}間読み、それから絵を{1.minute}間かきました。合わせて何分間ですか。
- {A}さんは庭で{0.minute}間、台所で{1.minute}間働きました。全部で何分間働きましたか。
pages
- {A}さんの本は{0.page}あります。毎日{1.page}ずつ読むと、何日で読み終わりますか。
- {A}さんは一日に{1.page}ずつ本を読みます。{0.page}の本を読むのに何日かかりますか。
two_step_buy
- {A}さんは{x}を{0.x}持っています。{x}が{2.x}入った箱を{1.box}買いました。
  {x}は全部で何{x.m}になりましたか。
- {A}さんの家には{x}が{0.x}あります。さらに{1.box}買ってきました。どの箱にも{x}が{2.x}入っています。
  {x}は合わせて何{x.m}ですか。
gain_loss
- {A}さんは{x}を{0.x}{x?持って|飼って}います。さらに{1.x}もらい、それから{B}さんに{2.x}あげました。
  {x}は何{x.m}残っていますか。
- 朝、{A}さんの{x}は{0.x}でした。昼に{1.x}買いました。夜、
  {B}さんが{2.x}{x?持って|連れて}いきました。{A}さんの{x}は今、何{x.m}ですか。
spend
- {A}さんは{0.money}持っています。一{x.m}{2.money}の{x}を{1.x}買いました。残りは何円ですか。
- {x}は一{x.m}{2.money}です。{0.money}持っていた{A}さんは、{1.x}買いました。お金は何円残りましたか。
total_three
- {A}さんは{x}を{0.x}、{B}さんは{1.x}、{C}さんは{2.x}{x?持って|飼って}います。
  三人の{x}は合わせて何{x.m}ですか。
- {x}を{A}さんが{0.x}、{B}さんが{1.x}、{C}さんが{2.x}{x?持って|連れて}きました。
  {x}は全部で何{x.m}{x?あり|い}ますか。
""",
    "",
)

STEPS = {
    "gain": "今の{x}は{eq.x}です。",
    "loss": "残りの{x}は{eq.x}です。",
    "more_than": "{B}さんの{x}は{eq.x}です。",
    "difference": "ちがいは{eq.x}です。",
    "times": "{B}さんの{x}は{eq.x}です。",
    "groups": "{x}は全部で{eq.x}です。",
    "sharing": "一人分は{eq.x}です。",
    "packing": "必要な箱は{eq.box}です。",
    "price": "代金は{eq.money}です。",
    "change": "残りは{eq.money}です。",
    "age_older": "{B}さんは{eq.year}です。",
    "age_future": "そのとき{A}さんは{eq.year}です。",
    "speed": "道のりは{eq.km}です。",
    "distance_left": "残りの道のりは{eq.km}です。",
    "time_total": "合わせて{eq.minute}間です。",
    "pages": "必要な日数は{eq.day}です。",
    "two_step_buy": "箱の中の{x}は{eq1.x}です。全部で{eq.x}です。",
    "gain_loss": "{A}さんの{x}は、まず{eq1.x}になります。残りは{eq.x}です。",
    "spend": "代金は{eq1.money}です。残りは{eq.money}です。",
    "total_three": "{A}さんと{B}さんで{eq1.x}です。{C}さんの分も合わせると{eq.x}です。",
}


def _tell_animal(key: str) -> int:
    """Choose the alternative of a slot: 1 for animals, which are kept and led, else 0."""
    return int(NOUNS[key][1] in "頭羽匹")


JAPANESE = Language(
    "ja", NAMES, spell_number, _write_count, _write_noun, keep_name, _tell_animal,
    QUESTIONS, STEPS, "答えは{word}（{number}）。", "",
)  # fmt: skip
