"""Words of messages: numbers with their nouns."""


def count(number: float, noun: str) -> str:
    """Return a number with its noun, which is in the plural unless the number is 1: "1 shard", "2,000 shards"."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of a regular noun, or of the last word of several."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"
