"""The agent's training traces: the two splits never meet, observations are the tools' own, the mask is right."""

import re

import pytest

import tokenizer
import wordings
from names import corpus_words
from prompts import OBSERVATION, agent_trace, encode_trace, prompt_text
from tools import NOTHING_FOUND, Knowledge, calc, default_knowledge, run_tool
from traces import CATEGORIES, MIX, TEN_FACTS, THE_TEN, Generator, core, draw, plain


@pytest.fixture(scope="module")
def training():
    return draw(Generator(1, "train"), 20_000)


@pytest.fixture(scope="module")
def held():
    generator = Generator(1, "heldout")
    return [generator.trace(category) for category in CATEGORIES for _ in range(300)]


def test_the_splits_never_meet(training, held):
    """Bug: an evaluation on questions, wordings, names or number pairs that training has drawn."""
    def seen(examples, what):
        return {what(example) for example in examples}

    assert not seen(training, lambda e: plain(e.question)) & seen(held, lambda e: plain(e.question))
    assert not seen(training, lambda e: e.wording) & seen(held, lambda e: e.wording)
    for category in ("calc", "fact", "made_up", "two_step", "error"):
        def parts(e):
            return tuple(part.lower() for part in e.parts)
        assert not (seen([e for e in training if e.category == category], parts)
                    & seen([e for e in held if e.category == category], parts)), category
    names = {e.parts[1].lower() for e in training if e.category in ("made_up", "miss")}
    assert not names & {e.parts[1].lower() for e in held if e.category in ("made_up", "miss")}


def test_held_out_cores_are_nowhere_in_training():
    """Bug: the same core in a training list and in a held-out list."""
    for train, held in [(wordings.PHRASE, wordings.PHRASE_HELD), (wordings.OWNER, wordings.OWNER_HELD),
                        (wordings.DEED, wordings.DEED_HELD), (wordings.SUM, wordings.SUM_HELD),
                        (wordings.TWO_STEP, wordings.TWO_STEP_HELD),
                        *((wordings.SUMS[s], wordings.SUMS_HELD[s]) for s in wordings.SUMS)]:
        assert len(held) >= 2 and not {str(w).lower() for w in train} & {str(w).lower() for w in held}


def test_small_talk_splits_by_its_core(training, held):
    """Bug: "your name" in training and "your name, please" counted as a new sentence."""
    def cores(examples):
        return {core(e.wording) for e in examples if e.category in ("small_talk", "refuse")}
    assert cores(held) and not cores(training) & cores(held)
    assert core("Hey, how are you today?") == core("how are you")


def test_the_ten_are_not_in_training(training):
    """Bug: 1234 and 5678, or one of the ten questions, in the training data."""
    for example in training:
        text = prompt_text(example.segments())
        assert not re.search(r"(?<!\d)(1234|5678)(?!\d)", text), text
        assert plain(example.question) not in {plain(question) for question, _ in THE_TEN}
        if example.category == "fact":
            relation, subject = example.parts
            assert (relation, subject.lower()) not in TEN_FACTS


def test_observations_come_from_the_tools(training):
    """Bug: an observation that the tool would not give, which teaches the model to expect it."""
    for example in training[:3000]:
        knowledge = Knowledge(example.facts) if example.facts else default_knowledge()
        for step in example.rounds:
            assert step.observation == run_tool(step.call, {"calc": calc, "lookup": knowledge.lookup})


def test_actions_copy_from_the_question(training):
    """Bug: an action whose name is not in the question as typed, which no model can know."""
    for example in training:
        if example.category in ("fact", "made_up", "miss"):
            query = example.rounds[0].call.removeprefix("lookup(").removesuffix(")")
            name = query.rpartition(" of ")[2]
            if name:
                assert name.lower() in example.question.lower(), example


def test_answers_are_honest(training, held):
    """Bug: an answer to a lookup that found nothing, or to a sum that cannot be done."""
    for example in [*training, *held]:
        if example.rounds and example.rounds[-1].observation in (NOTHING_FOUND, "error: division by zero"):
            assert example.answer in ("I could not find that.", "That cannot be calculated.")
        if example.category == "error":
            assert example.rounds[-1].observation == "error: division by zero"


def test_misses_miss_and_made_up_names_hit(held):
    """Bug: a made-up name that is near enough to a real one to be found, counted in the wrong category."""
    missed = [e for e in held if e.category == "miss"]
    assert sum(e.rounds[0].observation == NOTHING_FOUND for e in missed) > 0.95 * len(missed)
    assert all(e.rounds[0].observation != NOTHING_FOUND for e in held if e.category == "made_up")


def test_the_mask(training):
    """Bug: a loss on the question or on what the tool said; no loss on the word that asks for it."""
    bpe = tokenizer.load()
    for example in training[:500]:
        _, targets = encode_trace(example.segments(), bpe)
        learned = bpe.decode([t for t in targets if t != -1])
        expected = "".join(text for text, is_learned in example.segments() if is_learned)
        assert learned == expected
        assert learned.count(OBSERVATION) == len(example.rounds)


def test_prompts_of_training_and_serving_are_one(training):
    """Bug: a prompt at serving time that differs from the text the model was trained on."""
    for example in training[:500]:
        whole = prompt_text(example.segments())
        for n in range(len(example.rounds) + 1):
            assert whole.startswith(prompt_text(agent_trace(example.question, example.rounds[:n])))


def test_training_is_varied_and_repeatable(training):
    """Bug: few distinct questions, a missing category, or another draw from the same seed."""
    assert len({e.question for e in training}) > 0.85 * len([e for e in training if e.category not in ("small_talk", "refuse")])
    assert {e.category for e in training} == set(MIX) == set(CATEGORIES)
    assert draw(Generator(1, "train"), 50) == training[:0] + draw(Generator(1, "train"), 50)
    assert draw(Generator(2, "train"), 50) != draw(Generator(1, "train"), 50)
    digits = {len(part) for e in training if e.category == "calc" for part in e.parts if part.isdigit()}
    assert digits == {1, 2, 3, 4, 5, 6}
    assert len(corpus_words()) > 3000


def test_traces_fit_the_context(training, held):
    """Bug: traces longer than the model sees, silently cut or crashing."""
    bpe = tokenizer.load()
    assert max(len(encode_trace(e.segments(), bpe)[0]) for e in [*training, *held]) <= 256
