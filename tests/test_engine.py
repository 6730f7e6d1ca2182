"""The engine: its text against the plain loop of sampling.py, its numbers against torch, its limits and its ends.

Run:         pytest tests/test_engine.py

Other files borrow small_model() and whole() from here.
"""

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sampling
import tokenizer
from engine import BadRequest, Engine, Finished, Piece, Request, StopFilter
from model import GPT, GPTConfig

BPE = tokenizer.load()
PROMPTS = ["Q: How are you?\n", "The old man", "1234 + 5678 = ", "你好 naïve 🚀", "\n\n   \t x"]


def small_model(block_size: int = 256, endless: bool = False) -> GPT:
    """A small model with random weights, large enough for varied text; an endless one never ends its text."""
    model = GPT(GPTConfig(vocab_size=BPE.vocab_size, block_size=block_size, n_layer=2, n_head=2, n_embd=32))
    dice = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.3, generator=dice)
        if endless:                                            # column 0 now only speaks against <|endoftext|>
            model.wte.weight[:, 0] = 0
            model.wte.weight[BPE.end_of_text, 0] = -1000
            model.ln_f.weight[0], model.ln_f.bias[0] = 0, 1
    return model.eval()


class Dictated(GPT):
    """A model that says given tokens, one after the other, and then <|endoftext|>."""

    def __init__(self, ids: list[int], block_size: int = 256):
        super().__init__(GPTConfig(vocab_size=BPE.vocab_size, block_size=block_size, n_layer=1, n_head=1, n_embd=8))
        self.ids = [*ids, BPE.end_of_text]

    def step(self, ids, cache=None):
        """The cache holds nothing; its length is the number of steps so far."""
        done = [*(cache or []), (ids, ids)]
        logits = torch.zeros(1, ids.size(1), BPE.vocab_size)
        logits[0, -1, self.ids[min(len(done), len(self.ids)) - 1]] = 50.0
        return logits, done


def whole(engine: Engine, prompt: str, **options) -> tuple[str, Finished]:
    """The engine's text and how it ended."""
    pieces, finished = pieces_and_end(engine.generate(Request(prompt, **options)))
    return "".join(piece.text for piece in pieces), finished


def pieces_and_end(events: Iterable[Piece | Finished]) -> tuple[list[Piece], Finished]:
    """The events of one generation, parted; fails when there is anything but pieces and one end."""
    *first, finished = events
    pieces = [event for event in first if isinstance(event, Piece)]
    assert len(pieces) == len(first) and isinstance(finished, Finished)
    return pieces, finished


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(small_model(endless=True), BPE)


# -- Text ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 3},
                                     {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 11}], ids=str)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_text_is_that_of_the_plain_loop(prompt, options):
    """Prevents: a token lost, doubled or drawn otherwise on the way through cache, decoder and stop filter."""
    model = small_model()
    ids = BPE.encode(prompt)
    plain = sampling.generate(model, BPE, ids, max_tokens=100, stop_at_end=True, **options)
    text, finished = whole(Engine(model, BPE), prompt, max_tokens=100, **options)
    assert prompt + text == plain
    assert (finished.reason == "stop") == (finished.completion_tokens < 100)
    assert finished.prompt_tokens == len(ids)


def test_the_small_model_says_enough_to_be_tested(engine):
    """Prevents: a model that repeats one token, with which the comparisons above would mean nothing."""
    texts = {whole(engine, prompt, max_tokens=60)[0] for prompt in PROMPTS}
    assert len(texts) == len(PROMPTS) and all(len(set(text)) > 5 for text in texts)


def test_end_of_text_ends_and_is_not_said():
    """Prevents: "<|endoftext|>" shown to the reader, or text after the end."""
    text, finished = whole(Engine(Dictated(BPE.encode("ANSWER: 6912")), BPE), "Q", max_tokens=50)
    assert text == "ANSWER: 6912"
    assert (finished.reason, finished.stop_reason) == ("stop", None)


def test_end_of_text_in_a_prompt_is_ordinary_text(engine):
    """Prevents: a reader who types the control token and so cuts off what stands before it."""
    prompt = "before <|endoftext|> after"
    ids = engine.prepare(Request(prompt))
    assert BPE.end_of_text not in ids and BPE.decode(ids) == prompt
    text, finished = whole(engine, prompt, max_tokens=20)
    assert prompt + text == sampling.generate(engine.model, BPE, BPE.encode(prompt), max_tokens=20, temperature=0)
    assert finished.prompt_tokens == len(BPE.encode(prompt))


# Few characters that UTF-8 writes in 1 to 4 bytes, all of them; surrogates alone are no text.
TEXTS = st.text(st.sampled_from("aé你🚀👩\u200d\n ") | st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_pieces_are_whole_characters(text):
    """Prevents: an emoji or a Chinese character, which is several tokens, sent in broken parts."""
    engine = Engine(Dictated(BPE.encode(text)), BPE)
    pieces, finished = pieces_and_end(engine.generate(Request("Q", max_tokens=250)))
    assert "".join(piece.text for piece in pieces) == text
    assert all(piece.text for piece in pieces)
    assert finished.completion_tokens == len(BPE.encode(text)) + 1


def test_a_character_cut_off_by_the_limit_becomes_one_sign():
    """Prevents: half a character that is lost without a trace, or that breaks the stream."""
    ids = BPE.encode("ab🚀")
    text, finished = whole(Engine(Dictated(ids), BPE), "Q", max_tokens=len(ids) - 1)
    assert text == "ab\ufffd" and finished.reason == "length"


# -- Stop texts ------------------------------------------------------------------------------------------------------

def first_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """What comes before the stop text that is complete first, and that stop text: letter by letter, by brute force."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if complete:
            met = max(complete, key=len)
            return text[: end - len(met)], met
    return text, None


SHORT = st.text(alphabet="ab\n", min_size=1, max_size=4)


def cut(text: str, cuts: list[int]) -> list[str]:
    places = sorted({min(c, len(text)) for c in cuts} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)]


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab\n", max_size=30), st.lists(SHORT, max_size=3), st.lists(st.integers(0, 30)))
def test_stop_filter_against_brute_force(text, stops, cuts):
    """Prevents: part of a stop text sent, text before it lost, or another end when the tokens are cut otherwise."""
    expected, met = first_stop(text, stops)
    stop, said = StopFilter(tuple(stops)), ""
    for piece in cut(text, cuts):
        said += stop.push(piece)
        assert expected.startswith(said)
        if stop.met is not None:
            break
    assert stop.met == met
    if met is not None:
        assert said == expected
    else:                                                      # only the beginning of a stop text may be held back
        held = text[len(said) :]
        assert not held or any(s.startswith(held) and s != held for s in stops)
        assert said + stop.flush() == text


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="OBS:\n", max_size=40), SHORT | st.text(alphabet="OBS:\n", min_size=1, max_size=5),
       st.lists(st.integers(0, 40)))
def test_one_stop_text_against_find(text, stop, cuts):
    """Prevents: a second occurrence taken for the first, or an overlap ("OO" in "OOO") that is missed."""
    at = text.find(stop)
    one, said = StopFilter((stop,)), ""
    for piece in cut(text, cuts):
        if one.met is None:
            said += one.push(piece)
    said += one.flush() if one.met is None else ""
    assert said == (text if at < 0 else text[:at])
    assert one.met == (None if at < 0 else stop)


def test_an_empty_stop_text_stops_nothing():
    """Prevents: stop="" (an empty field of a form) that ends every answer before its first letter."""
    stop = StopFilter(("", "x"))
    assert stop.push("abc") == "abc" and stop.met is None
    assert stop.push("dxe") == "d" and stop.met == "x"


@pytest.mark.parametrize("start, length", [(0, 1), (4, 3), (10, 9), (30, 1)])
def test_the_engine_stops_where_the_text_says_so(engine, start, length):
    """Prevents: a stop text that spans tokens and is met too late, or that is part of the answer."""
    full, _ = whole(engine, "The old man", max_tokens=80)
    stop = full[start : start + length]
    text, finished = whole(engine, "The old man", max_tokens=80, stop=("never said", stop))
    assert text == full[: full.find(stop)]
    assert (finished.reason, finished.stop_reason) == ("stop", stop)
    assert finished.completion_tokens < 80


def test_a_stop_text_that_never_comes_changes_nothing(engine):
    """Prevents: text that is held back as a possible beginning of a stop text, and lost at the end."""
    full, _ = whole(engine, "The old man", max_tokens=40)
    text, finished = whole(engine, "The old man", max_tokens=40, stop=(full[-1] + "\x00", full[-5:] + "\x00"))
    assert text == full and finished.reason == "length"


# -- Limits ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("most", [1, 2, 17])
def test_max_tokens(engine, most):
    """Prevents: one token too many or too few."""
    _, finished = whole(engine, "The old man", max_tokens=most)
    assert (finished.reason, finished.completion_tokens) == ("length", most)


@pytest.mark.parametrize("room", [1, 2, 30])
def test_the_context_ends_as_length(room):
    """Prevents: a "context overflow" from the model in mid-stream instead of an end."""
    prompt = " the" * 400
    block = 64
    prompt = BPE.decode(BPE.encode(prompt)[: block - room])
    engine = Engine(small_model(block, endless=True), BPE)
    _, finished = whole(engine, prompt, max_tokens=1000)
    assert finished.prompt_tokens == block - room
    assert (finished.reason, finished.completion_tokens) == ("length", room)


@pytest.mark.parametrize("request_, reason", [
    (Request(""), "prompt is empty"), (Request(" the" * 256), "256 tokens, but this model sees 256"),
    (Request("x" * 10**6), "too long: 1000000 characters"), (Request("Q", logprobs=21), "between 0 and 20"),
    (Request("Q", logprobs=-1), "between 0 and 20")], ids=["empty", "full", "huge", "many", "negative"])
def test_bad_requests_say_why(engine, request_, reason):
    """Prevents: an exception of torch, or an answer to a prompt that was cut without a word."""
    for refuse in (lambda: engine.prepare(request_), lambda: next(engine.generate(request_))):
        with pytest.raises(BadRequest, match=reason):
            refuse()


def test_the_longest_prompt_that_fits_is_served(engine):
    """Prevents: the quick refusal by length of prompts that do fit, because their tokens are long."""
    words = [token for token in BPE.tokens if token.startswith(b" ") and token[1:].isalpha()]
    prompt = max(words, key=len).decode() * 255
    assert len(BPE.encode(prompt)) == 255
    _, finished = whole(engine, prompt)
    assert (finished.prompt_tokens, finished.completion_tokens) == (255, 1)


def test_a_huge_prompt_is_refused_without_encoding_it(engine):
    """Prevents: one word of a million letters, which takes hours to encode, as a way to stop the server."""
    began = time.thread_time()
    with pytest.raises(BadRequest):
        engine.prepare(Request("the" * 10**6))
    assert time.thread_time() - began < 0.2


# -- Sampling --------------------------------------------------------------------------------------------------------

def test_the_same_seed_gives_the_same_text(engine):
    """Prevents: chance from elsewhere (a shared generator) in a text that was to be repeatable."""
    first = [whole(engine, "The old man", temperature=1.0, seed=seed, max_tokens=40)[0] for seed in range(4)]
    torch.rand(5)
    assert first == [whole(engine, "The old man", temperature=1.0, seed=seed, max_tokens=40)[0] for seed in range(4)]
    assert len(set(first)) == 4


def test_without_a_seed_texts_differ(engine):
    """Prevents: every reader getting the same "random" answer."""
    assert len({whole(engine, "The old man", temperature=1.0, max_tokens=40)[0] for _ in range(4)}) > 1


@pytest.mark.parametrize("options", [{"temperature": 1e-300}, {"temperature": 1e-40}, {"temperature": 1e-9},
                                     {"temperature": 1.0, "top_p": 1e-300}, {"temperature": 1.0, "top_k": 1}], ids=str)
def test_the_coldest_sampling_is_greedy(engine, options):
    """Prevents: infinities from a division by a tiny temperature, which break off the stream."""
    assert whole(engine, "The old man", seed=1, max_tokens=30, **options)[0] == whole(engine, "The old man",
                                                                                      max_tokens=30)[0]


def test_logprobs_against_torch(engine):
    """Prevents: a logprob of another token, of other logits, or in another base; tokens reported twice or never."""
    prompt, most, top = "The old man", 40, 5
    options = {"temperature": 1.0, "seed": 5, "max_tokens": most}
    pieces, finished = pieces_and_end(engine.generate(Request(prompt, logprobs=top, stop=("never said",), **options)))
    reports = [report for piece in pieces for report in piece.tokens]
    ids = BPE.encode(prompt)
    said = [report["id"] for report in reports]
    assert len(said) == finished.completion_tokens == most
    with torch.no_grad():
        logprobs = engine.model(torch.tensor([ids + said]))[0].log_softmax(-1)     # (T, V)
    logprobs = logprobs[len(ids) - 1 : -1]
    total = logprobs[range(most), said].sum()
    assert abs(sum(report["logprob"] for report in reports) - total) < 1e-3
    for report, row in zip(reports, logprobs, strict=True):
        assert report["logprob"] == pytest.approx(row[report["id"]].item(), abs=1e-4)
        best = row.sort(descending=True).values[:top].tolist()
        assert [t["logprob"] for t in report["top"]] == pytest.approx(best, abs=1e-4)
        assert all(row[t["id"]].item() == pytest.approx(t["logprob"], abs=1e-4) for t in report["top"])
        assert report["token"] == BPE.decode([report["id"]])
    assert "".join(piece.text for piece in pieces) == whole(engine, prompt, **options)[0] == BPE.decode(said)


def test_no_logprobs_unless_asked_for(engine):
    """Prevents: work and bytes for every token that nobody asked for."""
    pieces, _ = pieces_and_end(engine.generate(Request("The old man", max_tokens=5)))
    assert pieces and not any(piece.tokens for piece in pieces)


# -- Many at once, and the end ---------------------------------------------------------------------------------------

def test_generations_at_the_same_time_do_not_mix(engine):
    """Prevents: a cache, a generator or a decoder of one request that another one finds."""
    asked = [{"prompt": prompt, "temperature": t, "seed": seed, "max_tokens": 60}
             for prompt in PROMPTS for t, seed in [(0.0, None), (1.0, 1), (1.0, 2)]]
    alone = [whole(engine, **options)[0] for options in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda options: whole(engine, **options)[0], asked))
    assert together == alone


def test_cancelled_before_it_begins(engine):
    """Prevents: a prefill, the most costly step, for a client that has left the queue."""
    cancelled = threading.Event()
    cancelled.set()
    pieces, finished = pieces_and_end(engine.generate(Request("The old man"), cancelled))
    assert not pieces and finished.reason == "cancelled" and finished.completion_tokens == 0


def test_cancelled_in_the_middle(engine):
    """Prevents: a generation that runs to its limit after its client has left."""
    cancelled = threading.Event()
    events = engine.generate(Request("The old man", max_tokens=200), cancelled)
    next(events)
    cancelled.set()
    pieces, finished = pieces_and_end(events)
    assert finished.reason == "cancelled" and finished.completion_tokens < 20 and len(pieces) <= 1


def test_times_add_up(engine):
    """Prevents: times that are negative, counted twice, or that leave out the wait before a place was free."""
    began = time.perf_counter()
    _, finished = whole(engine, "The old man", max_tokens=30)
    passed = time.perf_counter() - began
    parts = (finished.queue, finished.prefill, finished.decode)
    assert min(parts) >= 0 and sum(parts) <= passed
    late = engine.generate(Request("The old man", max_tokens=2), arrived=time.perf_counter() - 5)
    _, finished = pieces_and_end(late)
    assert 5 <= finished.queue < 6 and finished.prefill < 4 and finished.decode < 4
