"""Words of tokens, with the places of their tokens."""

from raysp.text.token_words import words_of_tokens

TEXT = {1: " Hello", 2: ",", 3: " wor", 4: "ld", 5: ".", 6: " (", 7: "now", 8: ")", 9: "你", 10: "好", 11: "。"}


def decode(ids):
    return "".join(TEXT[one] for one in ids)


def test_words_have_the_punctuation_that_touches_them_and_end_with_their_last_letter():
    found = words_of_tokens([1, 2, 3, 4, 5, 6, 7, 8], decode, has_spaces=True)
    assert [tuple(word) for word in found] == [("Hello,", 0, 1), ("world.", 2, 4), ("(now)", 5, 7)]
    found = words_of_tokens([9, 10, 11], decode, has_spaces=False)
    assert [tuple(word) for word in found] == [("你", 0, 1), ("好。", 1, 2)]
    assert words_of_tokens([], decode, has_spaces=True) == []


def test_tokens_of_a_character_stay_together():
    whole = "é".encode()

    def of_bytes(ids):
        return bytes(whole[one] for one in ids).decode(errors="replace")

    assert [tuple(word) for word in words_of_tokens([0, 1], of_bytes, has_spaces=True)] == [("é", 0, 2)]
