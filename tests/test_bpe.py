"""The tokenizer against tiktoken built from the same ranks, and the training against a brute-force version.

The checks against GPT-2's vocabulary need OpenAI's encoder.json and vocab.bpe: the setting GPT2_VOCAB_DIR names their
folder; without it ../shared/data/gpt2 beside the repository is tried. test_prompts.py and test_pretrained.py ask here
too.
"""

import json
import os
import random
import re
import sys
import unicodedata
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex
import tiktoken
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiktoken_ext.openai_public import r50k_pat_str

import tokenizer
from bpe import BPE, END_OF_TEXT, PATTERNS, SAMPLES

ROOT = Path(__file__).resolve().parent.parent
BYTES = [bytes([b]) for b in range(256)]
BOTH = ["bundled", "gpt2"]


# -- Vocabularies, oracles and texts ---------------------------------------------------------------------------------

def gpt2_folder() -> Path:
    """The folder with GPT-2's vocabulary files; skips the test that asks where there is none."""
    if setting := os.environ.get("GPT2_VOCAB_DIR"):
        return Path(setting)
    beside = ROOT.parent / "shared" / "data" / "gpt2"
    if not (beside / "encoder.json").is_file():
        pytest.skip("GPT-2's vocabulary is not here: set GPT2_VOCAB_DIR to a folder with encoder.json and vocab.bpe")
    return beside


@cache
def vocabulary(name: str) -> BPE:
    """"bundled", or "gpt2" where its files are at hand."""
    if name == "bundled":
        return tokenizer.load()
    folder = gpt2_folder()
    return tokenizer.from_gpt2_files(folder / "encoder.json", folder / "vocab.bpe")


def tiktoken_of(bpe: BPE) -> tiktoken.Encoding:
    """tiktoken with the ranks and the pattern of one of our vocabularies."""
    return tiktoken.Encoding("same ranks", pat_str=PATTERNS[bpe.pattern], mergeable_ranks=bpe.ranks,
                             special_tokens=bpe.special)


@cache
def oracle(name: str) -> tiktoken.Encoding:
    """tiktoken for a vocabulary; GPT-2's is built by tiktoken alone, from the same two files and its own pattern."""
    bpe = vocabulary(name)
    if name == "bundled":
        return tiktoken_of(bpe)
    folder = gpt2_folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")                 # no copy in the temporary folder
        ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    return tiktoken.Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: 50256})


FRAGMENTS = ["  ", "   ", "\n\n", " \n", "\t", "\r\n", "\x0b", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", "\ufeff",
             "\u200d", "'s", "'ll", " 've", "'S", "''t", "1234", " 5", "٣", "½", "²", "e\u0301", "\u0301\u0302",
             " \u0308", "ﬁ", "한국", "हिन्दी", "𠀀", "👩‍🚀", "🏳️‍🌈", "the", " The",
             "ROMEO:", "\nOBSERVATION:", END_OF_TEXT, "\0"]


@cache
def known_characters() -> list[str]:
    """For each plane, its characters whose kind is settled: a new Unicode version makes letters of unassigned ones, so
    there two regular-expression libraries of different age may rightly differ. Planes 4 to 13 are wholly unassigned."""
    planes = [[] for _ in range(17)]
    for code in range(sys.maxunicode + 1):
        plane, category = code >> 16, unicodedata.category(chr(code))
        if category != "Cs" and (category != "Cn" or 4 <= plane <= 13):
            planes[plane].append(chr(code))
    return ["".join(plane) for plane in planes]


def random_texts(count: int, seed: int) -> list[str]:
    """Random strings of 1 to 24 parts: characters of every plane, ASCII, and the fragments that trip splitting up."""
    rng, planes = random.Random(seed), known_characters()

    def part() -> str:
        kind = rng.random()
        if kind < 0.35:
            return rng.choice(FRAGMENTS)
        if kind < 0.6:
            return chr(rng.randrange(128))
        return rng.choice(planes[0] if kind < 0.8 else rng.choice(planes))

    return ["".join(part() for _ in range(rng.randint(1, 24))) for _ in range(count)]


def texts(**kwargs) -> st.SearchStrategy[str]:
    """Hypothesis texts of assigned characters and fragments."""
    character = st.characters(exclude_categories=("Cs", "Cn"))
    return st.lists(character | st.sampled_from(FRAGMENTS), **kwargs).map("".join)


# -- Encoding and decoding -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", BOTH)
def test_samples_and_corpus_equal_tiktoken(name):
    """Bug: a pattern or a merge order that is not quite GPT-2's; published weights would then see other tokens."""
    bpe, tik = vocabulary(name), oracle(name)
    for text in [*SAMPLES, tokenizer.corpus_text(), ""]:
        assert bpe.encode(text) == tik.encode_ordinary(text)
        assert bpe.decode(bpe.encode(text)) == text


@pytest.mark.parametrize("name", BOTH)
def test_ten_thousand_random_strings_equal_tiktoken(name):
    """Bug: a wrong split on some script, white space, contraction or combining mark; a text that does not come back."""
    bpe, tik = vocabulary(name), oracle(name)
    drawn = random_texts(10_000, seed=1)
    assert {ord(c) >> 16 for text in drawn for c in text} == set(range(17))
    for text in drawn:
        ids = bpe.encode(text)
        assert ids == tik.encode_ordinary(text), ascii(text)
        assert bpe.decode(ids) == text


@pytest.mark.parametrize("name", BOTH)
def test_any_text_equals_tiktoken(name):
    """Bug: the rare text that the seeded strings miss; hypothesis shrinks it to the smallest one."""
    bpe, tik = vocabulary(name), oracle(name)

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(texts(max_size=40))
    def check(text):
        ids = bpe.encode(text)
        assert ids == tik.encode_ordinary(text)
        assert bpe.decode(ids) == text == tik.decode(ids)

    check()


@pytest.mark.parametrize("name", BOTH)
def test_long_pieces_equal_tiktoken(name):
    """Bug: pieces of hundreds of bytes (no spaces, one letter, Chinese prose) joined in another order than short."""
    bpe, tik = vocabulary(name), oracle(name)
    for text in ["a" * 777, "ab" * 300, " " * 501, "\n" * 300, "国" * 200, "word" * 70, "1234567890" * 30, "=-" * 200]:
        assert bpe.encode(text) == tik.encode_ordinary(text), text[:10]


@pytest.mark.parametrize("name", BOTH)
def test_every_token_is_the_encoding_of_its_own_text(name):
    """Bug: ids that no text can produce: rows of the embedding that are never trained."""
    bpe, tik = vocabulary(name), oracle(name)
    for i in range(len(bpe.tokens)):
        assert bpe.token_bytes(i) == tik.decode_single_token_bytes(i)
        assert bpe.merge(bpe.tokens[i]) == [i]


@pytest.mark.parametrize("name", BOTH)
def test_special_tokens_only_on_request(name):
    """Bug: a user who types <|endoftext|> ends the text; or the trainer's own marker is cut into 13 characters."""
    bpe, tik = vocabulary(name), oracle(name)
    for text in [END_OF_TEXT, f"a{END_OF_TEXT}b", f"{END_OF_TEXT}{END_OF_TEXT} x", END_OF_TEXT[:-1], "", "x"]:
        plain, special = bpe.encode(text), bpe.encode(text, allow_special=True)
        assert bpe.end_of_text not in plain and plain == tik.encode(text, disallowed_special=())
        assert special == tik.encode(text, allowed_special="all")
        assert special.count(bpe.end_of_text) == text.count(END_OF_TEXT)
        assert bpe.decode(plain) == bpe.decode(special) == text


def test_the_longer_of_two_special_tokens_wins():
    """Bug: "<|end|>2" never found because "<|end|>" was tried first; a special text read as a regular expression."""
    bpe = BPE(BYTES, special={"<|end|>": 256, "<|end|>2": 257, "(.*)": 258})
    assert bpe.encode("<|end|>2<|end|>(.*)x", allow_special=True) == [257, 256, 258, ord("x")]
    assert BPE(BYTES).encode("<|end|>", allow_special=True) == list(b"<|end|>")


@pytest.mark.parametrize("name", BOTH)
def test_lone_surrogates_become_replacement_characters(name):
    """Bug: half of a surrogate pair, which JSON may carry, crashes the server with UnicodeEncodeError."""
    bpe, tik = vocabulary(name), oracle(name)
    for text, repaired in [("a\ud800b", "a\ufffdb"), ("\udc00", "\ufffd"), ("\ud83d\ude80 go", "🚀 go"),
                           ("\ude80\ud83d", "\ufffd\ufffd"), ("end \ud83d", "end \ufffd")]:
        for allow_special in (False, True):
            assert bpe.encode(text, allow_special) == tik.encode(text)
        assert bpe.decode(bpe.encode(text)) == repaired


@pytest.mark.parametrize("name", BOTH)
def test_stream_decoder_gives_whole_characters_and_the_same_text(name):
    """Bug: a Chinese character or an emoji that is sent in halves; text lost or changed by streaming."""
    bpe = vocabulary(name)

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(texts(max_size=30))
    def whole_text(text):
        stream = bpe.stream()
        pieces = [stream.push(i) for i in bpe.encode(text)]
        assert "".join(pieces) == text and stream.flush() == ""
        sent = 0
        for i, piece in enumerate(pieces):                     # each token gives out all characters that are complete
            sent += len(piece.encode())
            held = b"".join(map(bpe.token_bytes, bpe.encode(text)[: i + 1]))[sent:]
            assert len(held) < 4 and (not held or held[0] >= 0xC2)

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.lists(st.integers(0, bpe.vocab_size - 1), max_size=30))
    def any_ids(ids):                                          # a model may give bytes that are no UTF-8 at all
        stream = bpe.stream()
        assert "".join([stream.push(i) for i in ids] + [stream.flush()]) == bpe.decode(ids)

    whole_text()
    any_ids()


def test_stream_decoders_do_not_share_bytes():
    """Bug: two requests at the same time, and half of one's character ends up in the other's text."""
    bpe = BPE(BYTES)
    first, second = bpe.stream(), bpe.stream()
    start, end = "é".encode()
    assert first.push(start) == ""
    assert second.push(ord("x")) == "x"
    assert first.push(end) == "é"
    assert first.push(start) == "" and first.flush() == "\ufffd"


def test_ids_outside_the_vocabulary_are_errors():
    """Bug: id -1 silently decodes as the last token; an id too large raises an IndexError that says nothing."""
    bpe = vocabulary("bundled")
    for token_id in (-1, -1024, bpe.vocab_size, 10**9):
        with pytest.raises(ValueError, match=rf"{token_id} .*{bpe.vocab_size}"):
            bpe.token_bytes(token_id)
        with pytest.raises(ValueError, match=str(token_id)):
            bpe.decode([65, token_id])
    assert bpe.token_bytes(bpe.end_of_text) == END_OF_TEXT.encode()
    assert bpe.decode([0xE4]) == "\ufffd"


# -- Training --------------------------------------------------------------------------------------------------------

def brute_force(text: str, vocab_size: int, pattern: str) -> list[bytes] | None:
    """The tokens that training must find, each piece cut anew from its bytes each time; None for too short a text."""
    merges: list[tuple[bytes, bytes]] = []

    def cut(piece: bytes) -> list[bytes]:
        parts = [bytes([b]) for b in piece]
        for left, right in merges:                             # each merge in turn, from left to right
            done: list[bytes] = []
            while parts:
                if parts[:2] == [left, right]:
                    done.append(left + right)
                    parts = parts[2:]
                else:
                    done.append(parts[0])
                    parts = parts[1:]
            parts = done
        return parts

    tokens = list(BYTES)
    while len(tokens) < vocab_size - 1:
        pieces = [cut(piece.encode()) for piece in regex.findall(PATTERNS[pattern], text)]
        counts = Counter(pair for parts in pieces for pair in pairwise(parts))
        if not counts:
            return None
        most = max(counts.values())
        equal = [pair for pair, count in counts.items() if count == most]
        best = min(equal, key=lambda pair: [tokens.index(part) for part in pair])
        merges.append(best)
        tokens.append(best[0] + best[1])
    return tokens


WORDS = ["a", "ab", " ab", " ba", "aaa", " aab", "b", "'s", " 12", "é", " éa", "\n", "  "]
SMALL_TEXTS = st.text(alphabet="aab '1\né", max_size=60) | st.lists(st.sampled_from(WORDS), max_size=40).map("".join)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(SMALL_TEXTS, st.integers(257, 275), st.sampled_from(list(PATTERNS)))
def test_training_equals_brute_force(text, vocab_size, pattern):
    """Bug: overlapping pairs ("aaa") joined or counted wrongly, merges across pieces, or a tie broken by chance."""
    expected = brute_force(text, vocab_size, pattern)
    if expected is None:
        with pytest.raises(ValueError, match="the text has only"):
            BPE.train(text, vocab_size, pattern)
    else:
        bpe = BPE.train(text, vocab_size, pattern)
        assert bpe.tokens == expected
        assert bpe.special == {END_OF_TEXT: vocab_size - 1} and bpe.vocab_size == vocab_size
        assert bpe.pattern == pattern


@settings(max_examples=200, deadline=None, derandomize=True)
@given(SMALL_TEXTS, st.integers(257, 275), SMALL_TEXTS)
def test_trained_vocabularies_equal_tiktoken(learned, vocab_size, text):
    """Bug: training learns a token that encoding cannot reach (tiktoken takes a whole piece that is a token)."""
    assume(brute_force(learned, vocab_size, "gpt2"))
    bpe = BPE.train(learned, vocab_size)
    tik = tiktoken_of(bpe)
    for piece in (learned, text):
        assert bpe.encode(piece) == tik.encode_ordinary(piece)


def test_of_equally_frequent_pairs_the_smaller_ids_win():
    """Bug: ties broken by the order of a hash table, so that one corpus gives two vocabularies on two machines."""
    # Every pair occurs twice: " b" (32, 98) before " z" (32, 122), then " b" "a" (256, 97) before " z" "y" (257, 121).
    for text in (" zy zy ba ba", " ba ba zy zy", " ba zy ba zy"):
        assert BPE.train(text, 261).tokens[256:] == [b" b", b" z", b" ba", b" zy"]


def test_training_reports_its_progress_and_its_limits():
    """Bug: a progress bar with the wrong total; a size below the 256 bytes that raises nothing or something unclear."""
    seen = []
    BPE.train("hello hello", 260, progress=lambda merges: seen.append(len(merges)) or merges)
    assert seen == [3]
    assert BPE.train("", 257).tokens == BYTES
    with pytest.raises(ValueError, match="at least 257"):
        BPE.train("hello", 256)
    with pytest.raises(ValueError, match=r"only 258 tokens.*300"):
        BPE.train("a aa", 301)


# -- Files and validation --------------------------------------------------------------------------------------------

def test_save_load_and_state_round_trip(tmp_path):
    """Bug: a vocabulary file or a checkpoint that comes back with other ids, pattern or special tokens."""
    bpe = BPE.train("It's low, lower, lowest; über 12 über 12\n" * 3, 265, "digits")
    bpe.save(tmp_path / "vocabulary.json")
    state = bpe.state()
    assert json.loads(json.dumps(state)) == state
    path = tmp_path / "vocabulary.json"
    for again in (BPE.load(path), BPE.from_state(state), tokenizer.load(str(path))):
        assert (again.tokens, again.ranks) == (bpe.tokens, bpe.ranks)
        assert (again.pattern, again.special) == (bpe.pattern, bpe.special)
        assert again.encode(f"lower 12 über{END_OF_TEXT}", True) == bpe.encode(f"lower 12 über{END_OF_TEXT}", True)
    state["special"]["<|new|>"] = 999                          # the state is a copy
    assert bpe.special == {END_OF_TEXT: 264}


def test_unusable_vocabularies_are_refused():
    """Bug: a damaged vocabulary is accepted, and text comes out garbled much later."""
    with pytest.raises(ValueError, match=r"unknown split pattern 'gpt3'.*gpt2, digits"):
        BPE(BYTES, "gpt3")
    with pytest.raises(ValueError, match="same bytes"):
        BPE([*BYTES, b"ab", b"ab"])
    with pytest.raises(ValueError, match=r"lacks 2 of the 256 .* 7"):
        BPE([b for b in BYTES if b not in (b"\x07", b"\xff")])
    with pytest.raises(ValueError, match="something else"):
        BPE.from_state({"format": "something else", "pattern": "gpt2", "special": {}, "tokens": []})
    with pytest.raises(ValueError, match="None"):
        BPE.from_state({})
    for special in ({"<|a|>": 65}, {"<|a|>": 256, "<|b|>": 256}, {"<|a|>": -1}):
        with pytest.raises(ValueError, match=r"special .*<\|[ab]\|>"):
            BPE(BYTES, special=special)


def test_gpt2_files_that_do_not_belong_together_are_refused(tmp_path):
    """Bug: encoder.json of one model with vocab.bpe of another: every text would be cut wrongly, without a word."""
    folder = gpt2_folder()
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")
    lines[5], lines[6] = lines[6], lines[5]
    (tmp_path / "vocab.bpe").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match="merge 4 "):
        tokenizer.from_gpt2_files(folder / "encoder.json", tmp_path / "vocab.bpe")


def test_load_names_what_is_missing(tmp_path, monkeypatch):
    """Bug: a typing error in --vocab ends in a bare traceback instead of saying what can be given."""
    with pytest.raises(FileNotFoundError, match=r"'gtp2'.*bundled, gpt2"):
        tokenizer.load("gtp2")
    monkeypatch.setenv("GPT2_VOCAB_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"GPT2_VOCAB_DIR.*encoder\.json"):
        tokenizer.load.__wrapped__("gpt2")                  # past the cache of what is loaded


# -- The bundled vocabulary ------------------------------------------------------------------------------------------

def test_the_bundled_vocabulary():
    """Bug: a retrained vocabulary of another size, with numbers glued together, or the protocol's words in pieces."""
    bpe = vocabulary("bundled")
    assert bpe.vocab_size == 1024 and bpe.end_of_text == 1023 and bpe.pattern == "digits"
    assert not [token for token in bpe.tokens if len(token) > 1 and re.search(rb"\d", token)]
    digits = bpe.encode("What is 1234 plus 5678?")
    assert [bpe.decode([i]) for i in digits if bpe.decode([i]).isdigit()] == list("12345678")
    for word in ("THOUGHT", "ACTION", "OBSERVATION", "ANSWER"):
        assert len(bpe.encode(word)) == 1
        assert bpe.encode(f"x\n{word}:")[-2:] == [*bpe.encode(word), *bpe.encode(":")]


def test_module_functions_speak_the_bundled_vocabulary():
    """Bug: tokenizer.encode and decode drift from the vocabulary that checkpoints and servers use."""
    text = "Hello world, 你好"
    ids = tokenizer.encode(text)
    assert ids == oracle("bundled").encode_ordinary(text) and tokenizer.decode(ids) == text
    assert tokenizer.decode_one(ord("A")) == "A" and tokenizer.decode_one(0xE4) == "\ufffd"
    assert tokenizer.encode(END_OF_TEXT) == oracle("bundled").encode_ordinary(END_OF_TEXT)
