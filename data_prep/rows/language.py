"""Decides whether a problem is in English, by the script of its letters and by function words.

Function words decide because names, numbers and terms look alike in many languages. A word that two
languages share, such as "die" or "son", is in neither list.
"""

from __future__ import annotations

import re

FOREIGN_WORDS = 2
"""Minimum number of function words of another language; an English problem can contain a name or a
quotation.
"""
ACCENTED = 0.2
"""Minimum share of words with an accented letter that indicates a language without a list here."""
FEWEST_ACCENTED = 4
"""Minimum number of words with an accented letter for that."""

# Scripts that English mathematics does not use; Greek is notation.
FOREIGN_SCRIPT = re.compile(
    "[\u0400-\u052f\u0530-\u06ff\u0900-\u0dff\u0e00-\u0eff\u10a0-\u11ff\u1200-\u137f\u1780-\u17ff"
    "\u3040-\u30ff\u3105-\u312f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
_MATHS = re.compile(r"\$[^$]*\$|\[asy\]|\\[a-zA-Z]+|https?://\S+")
_ASY = re.compile(r"\[/?asy\]")
# Not the letters of a code, such as de30.
_WORD = re.compile(r"(?<!\w)[^\W\d_]+(?:['\u2019][^\W\d_]+)?(?!\w)")
_ENGLISH_WORDS = """
    the of and is are was were what how many much find if to with that be by at from which let each
    has have it its this there than then when where who all can will must not or such between
    determine evaluate compute calculate simplify solve given prove value express into after they
    their his her she he does did some more one two three
"""
# A line or more per language: Spanish, French, German, Italian, Portuguese, Dutch, Indonesian,
# Polish, Turkish, Swedish, Romanian; the last line holds what several share.
_OTHER_WORDS = """
    el los las del una que es por para su sus al cuál cuáles cuántos cuántas cuánto halla hallar
    encuentra encuentre sean suma números número todos cada entre hasta donde dos tres tiene
    determinar calcula calcule calcular resuelve resolver ecuación entonces enteros
    le les du une et est dans qui sur avec sont combien quel quelle quels quelles trouver trouvez
    soit soient nombre nombres tous toutes deux déterminer déterminez calculer calculez tel telle
    ces cette aux résoudre montrer
    der das den dem des und ist ein eine einer eines einem einen mit von für auf wie viele nicht
    sich dass wenn sind werden bei zum zur wird berechne bestimme finde alle zahl zahlen gilt welche
    welcher summe gegeben seien
    il lo gli di dei della delle degli dell un nel nella sono quanti quante quale quali sia siano
    trova trovare calcola calcolare determinare ogni più che numero numeri tutti somma interi
    os uma da das em um não são qual quais quantos quantas seja sejam encontre valor inteiros ao
    pela pelo onde
    het een zijn heeft voor niet hoeveel wordt deze bij welke bereken getallen getal
    yang dan adalah dengan berapa jika untuk dari nilai bilangan tentukan sebuah jumlah
    oraz liczba liczb dla które która który wynosi oblicz znajdź niech
    bir ve kaç kaçtır için ile olan sayısı bulunuz
    och är att som av hur många ett
    este sunt să numărul pentru câte aflați din și
    la de se si
"""
_ENGLISH, _OTHERS = frozenset(_ENGLISH_WORDS.split()), frozenset(_OTHER_WORDS.split())


def is_english(problem: str) -> bool:
    """Returns whether a problem in Latin letters is English, or has too few words to decide.

    It is not English if it has FOREIGN_WORDS function words of other languages, or one and a word
    with an accented letter, and more of these than English ones; or if it has no English one and
    many accented words. Maths is not counted. Linear in the length of the text.
    """
    if problem.isascii() and _OTHERS.isdisjoint(problem.lower().split()):
        return True  # the usual case, quickly
    if "[asy]" in problem:
        problem = " ".join(_ASY.split(problem)[::2])
    spelled = _WORD.findall(_MATHS.sub(" ", problem))
    words = [word.lower() for word in spelled]
    english = sum(word in _ENGLISH for word in words)
    # As written, because names begin with such words too: El Paso, Los Angeles. The first word is
    # always written with a capital letter.
    others = sum(word in _OTHERS for word in (*words[:1], *spelled[1:]))
    accented = sum(not word.isascii() and word not in _OTHERS for word in words)
    if others and others + accented >= FOREIGN_WORDS and others + accented > english:
        return False
    return bool(english) or accented < max(FEWEST_ACCENTED, ACCENTED * len(words))
