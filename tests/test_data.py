"""The bundled data: how much there is, that it is original in its own terms, and that the facts hang together."""

import re
from collections import Counter
from itertools import combinations

import tokenizer
from bpe import BPE
from chat_data import read_pairs
from tools import Knowledge, normalise, read_facts
from traces import read_smalltalk


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def grams(text: str, n: int = 8) -> list[tuple[str, ...]]:
    w = words(text)
    return [tuple(w[i : i + n]) for i in range(len(w) - n + 1)]


def test_corpus_is_large_plain_and_of_many_kinds():
    """Bug: a corpus that shrank, lost a kind of text, or holds characters that cost a small vocabulary dearly."""
    files = tokenizer.corpus_files()
    assert sum(f.stat().st_size for f in files) >= 1_000_000
    assert {f.parent.name for f in files} == {"plays", "stories", "dialogues", "explanations", "measuring"}
    for f in files:
        text = f.read_text(encoding="utf-8")
        assert text.isascii(), f"{f.name} is not plain ASCII"
        assert text.endswith("\n") and "\t" not in text and "\r" not in text, f.name
    plays = "".join(f.read_text() for f in files if f.parent.name == "plays")
    assert len(set(re.findall(r"^([A-Z][A-Z .'-]+):$", plays, re.MULTILINE))) > 80


def test_corpus_repeats_itself_little():
    """Bug: text that a program filled in from templates: under 2% of the 8-word sequences may occur twice."""
    counts = Counter(gram for f in tokenizer.corpus_files() for gram in grams(f.read_text(encoding="utf-8")))
    repeated = sum(count for count in counts.values() if count > 1)
    assert repeated / sum(counts.values()) < 0.02


def test_no_file_is_a_near_copy_of_another():
    """Bug: the same scene under two names: no two files share more than 5% of their 4-word sequences."""
    sets = {f.name: set(grams(f.read_text(encoding="utf-8"), 4)) for f in tokenizer.corpus_files()}
    for (one, a), (other, b) in combinations(sets.items(), 2):
        assert len(a & b) / min(len(a), len(b)) < 0.05, f"{one} and {other}"


def test_corpus_opens_differently_in_every_file():
    """Bug: stories that all begin alike."""
    openings = Counter(" ".join(words(f.read_text(encoding="utf-8"))[:6]) for f in tokenizer.corpus_files())
    assert max(openings.values()) == 1


def test_every_country_has_its_four_facts():
    """Bug: a country that can be asked for its capital but not for its money."""
    facts, _ = read_facts()
    by = {relation: {subject for r, subject, _ in facts if r == relation} for relation in
          ("capital", "currency", "language", "continent")}
    assert len(by["continent"]) >= 195
    assert by["continent"] == by["currency"] == by["language"]
    assert by["continent"] <= by["capital"]


def test_every_element_has_symbol_and_number():
    """Bug: a gap or a double entry in the periodic table."""
    facts, _ = read_facts()
    numbers = {subject: value for relation, subject, value in facts if relation == "atomic number"}
    symbols = {subject: value for relation, subject, value in facts if relation == "symbol"}
    assert sorted(map(int, numbers.values())) == list(range(1, 119))
    assert set(numbers) == set(symbols)
    assert len(set(symbols.values())) == 118 and all(re.fullmatch("[A-Z][a-z]?", s) for s in symbols.values())


def test_facts_are_many_and_unambiguous():
    """Bug: two facts under one key, of which only one can ever be found."""
    facts, aliases = read_facts()
    assert len(facts) >= 1000
    keys = Counter((normalise(relation), normalise(subject)) for relation, subject, _ in facts)
    assert max(keys.values()) == 1, keys.most_common(3)
    subjects = {normalise(subject) for _, subject, _ in facts}
    for alias, name in aliases.items():
        assert normalise(name) in subjects, f"the alias {alias} names {name}, which is no subject"
    for relation, subject, value in facts:
        assert len(value) <= 45 and value == value.strip(), (relation, subject, value)


def test_every_fact_can_be_asked_for():
    """Bug: a fact that its own words do not find."""
    facts, aliases = read_facts()
    knowledge = Knowledge(facts, aliases)
    for relation, subject, value in facts:
        assert knowledge.lookup(f"the {relation} of the {subject}?") == value


def test_questions_and_small_talk():
    """Bug: too few pairs, a question asked twice, a wording that belongs to two intents."""
    pairs = read_pairs()
    assert len(pairs) >= 300
    assert len({question.lower() for question, _ in pairs}) == len(pairs)
    says = Counter(" ".join(words(say)) for _, (_, wordings) in read_smalltalk().items() for say in wordings)
    assert len(read_smalltalk()) >= 15 and max(says.values()) == 1, says.most_common(3)


def test_the_bundled_vocabulary_comes_from_the_bundled_text():
    """Bug: a vocabulary that was trained on other data: its first 60 merges are found again by training."""
    bundled = tokenizer.load()
    again = BPE.train(tokenizer.training_text(), 257 + 60, bundled.pattern)
    assert again.tokens == bundled.tokens[: 256 + 60]
