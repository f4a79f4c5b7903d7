"""Scripts of languages, and of the letters of texts."""

import functools
import unicodedata
from collections.abc import Collection, Mapping

_CODES = {
    "LATIN": """
        af afr az aze br bre bs bos ca cat ceb cs ces cze cy cym da dan de deu ger en eng eo epo es spa est et eu eus
        fi fin fil fo fao fr fra fre fy fry ga gle gd gla gl glg ha hau haw hr hrv ht hat hu hun id ind ig ibo is isl
        ice it ita jv jav jw kin la lat lb ltz ln lin lt lit lv lav lvs mg mlg mi mri ms msa zsm mt mlt nb nob nl nld nn
        nno dut no nor oc oci om orm pl pol pt por ro ron rum rw sk slk sl slv sn sna so som sq sqi als su sun sv swe sw
        swa swh tk tuk tl tgl tr tur uz uzb vi vie wo wol xh xho yo yor zu zul""",
    "CYRILLIC": "ba bak be bel bg bul kk kaz ky kir mk mkd mn mon ru rus tg tgk tt tat uk ukr",
    "CYRILLIC LATIN": "sr srp",
    "GREEK": "el ell gre",
    "ARMENIAN": "hy hye",
    "GEORGIAN": "ka kat",
    "HEBREW": "he heb iw yi yid",
    "ARABIC": "ar ara arb ckb fa fas pes ps pus pbt sd snd ug uig ur urd",
    "ETHIOPIC": "am amh ti tir",
    "DEVANAGARI": "hi hin mr mar ne nep npi sa san",
    "BENGALI": "as asm bn ben",
    "GURMUKHI": "pa pan",
    "GUJARATI": "gu guj",
    "ORIYA": "or ori ory",
    "TAMIL": "ta tam",
    "TELUGU": "te tel",
    "KANNADA": "kn kan",
    "MALAYALAM": "ml mal",
    "SINHALA": "si sin",
    "THAI": "th tha",
    "LAO": "lo lao",
    "TIBETAN": "bo bod dz dzo",
    "MYANMAR": "my mya",
    "KHMER": "km khm",
    "HANGUL": "ko kor",
    "CJK": "cmn nan wuu yue zh zho chi",
    "CJK HIRAGANA KATAKANA": "ja jpn",
}
"""Languages by their scripts: codes of ISO 639-1 and 639-3. Scripts are the words with which names of Unicode begin."""
SCRIPTS: Mapping[str, frozenset[str]] = {
    code: frozenset(scripts.split()) for scripts, codes in _CODES.items() for code in codes.split()
}
"""Scripts of each language."""
OF_TAGS: Mapping[str, str] = {
    "arab": "ARABIC",
    "armn": "ARMENIAN",
    "beng": "BENGALI",
    "cyrl": "CYRILLIC",
    "deva": "DEVANAGARI",
    "ethi": "ETHIOPIC",
    "geor": "GEORGIAN",
    "grek": "GREEK",
    "gujr": "GUJARATI",
    "guru": "GURMUKHI",
    "hang": "HANGUL",
    "hans": "CJK",
    "hant": "CJK",
    "hebr": "HEBREW",
    "khmr": "KHMER",
    "knda": "KANNADA",
    "laoo": "LAO",
    "latn": "LATIN",
    "mlym": "MALAYALAM",
    "mymr": "MYANMAR",
    "orya": "ORIYA",
    "sinh": "SINHALA",
    "taml": "TAMIL",
    "telu": "TELUGU",
    "thai": "THAI",
    "tibt": "TIBETAN",
}
"""Scripts of the codes of ISO 15924, as in "srp_Cyrl"."""
UNSPACED = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"})
"""Scripts without spaces between words."""


def language_of(tag: str) -> str:
    """Return the code of a language, such as "de" for "de-DE", `de_DE` or `<|de|>`."""
    return tag.strip("<|>_ ").lower().replace("_", "-").partition("-")[0]


def scripts_of(tag: str) -> frozenset[str]:
    """Return the scripts of a language, or the one that its tag names; empty for a language that is not listed."""
    subtags = tag.strip("<|>_ ").lower().replace("_", "-").split("-")[1:]
    named = frozenset(OF_TAGS[subtag] for subtag in subtags if subtag in OF_TAGS)
    return named or SCRIPTS.get(language_of(tag), frozenset())


@functools.lru_cache(maxsize=4096)
def script(letter: str) -> str:
    """Return the script of a letter: the word with which its name begins in Unicode."""
    return unicodedata.name(letter, "").replace("-", " ").partition(" ")[0]


def script_share(text: str, scripts: Collection[str]) -> float | None:
    """Return the share of the letters of a text that are of some scripts; None without letters."""
    letters = [letter for letter in unicodedata.normalize("NFKC", text) if letter.isalpha()]
    return sum(script(letter) in scripts for letter in letters) / len(letters) if letters else None
