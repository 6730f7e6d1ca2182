"""Sampling: each rule against its definition worked out by brute force, and the loop that generates text."""

import math

import pytest
import torch

import tokenizer
from model import GPT, GPTConfig
from sampling import generate, sample

LOGITS = [2.0, -1.0, 0.5, 1.7, -3.0, 0.0, 1.1, -0.4]
DRAWS = 3000


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    weights = [math.exp(x / temperature) for x in logits]
    return [w / sum(weights) for w in weights]


def keep(probabilities: list[float], kept: set[int]) -> list[float]:
    """The probabilities when only some tokens may be drawn."""
    total = sum(probabilities[i] for i in kept)
    return [p / total if i in kept else 0.0 for i, p in enumerate(probabilities)]


def counts(seed: int = 0, logits: list[float] = LOGITS, **how) -> list[int]:
    """How often each token is drawn."""
    rng, found = torch.Generator().manual_seed(seed), [0] * len(logits)
    for _ in range(DRAWS):
        found[sample(torch.tensor(logits), generator=rng, **how)] += 1
    return found


def assert_drawn_from(found: list[int], probabilities: list[float]) -> None:
    """Pearson's chi-square: tokens of probability 0 never occur, the others as often as they should (about 5 sigma)."""
    assert not [i for i, p in enumerate(probabilities) if p == 0 and found[i]], found
    possible = [i for i, p in enumerate(probabilities) if p > 0]
    chi_square = sum((found[i] - DRAWS * probabilities[i]) ** 2 / (DRAWS * probabilities[i]) for i in possible)
    freedom = len(possible) - 1
    assert chi_square <= freedom + 5 * math.sqrt(2 * freedom), (found, probabilities)


def brute_top_k(probabilities: list[float], k: int) -> set[int]:
    return set(sorted(range(len(probabilities)), key=lambda i: -probabilities[i])[:k])


def brute_top_p(probabilities: list[float], p: float) -> set[int]:
    """The smallest set of most likely tokens that reaches p."""
    n = next((n for n in range(1, len(probabilities)) if sum(sorted(probabilities)[-n:]) >= p), len(probabilities))
    return brute_top_k(probabilities, n)


def test_temperature_zero_is_greedy():
    """Bug: temperature 0 divides by zero, or uses up random numbers so that answers are not repeatable."""
    for seed in range(20):
        logits = torch.randn(50, generator=torch.Generator().manual_seed(seed))
        rng = torch.Generator().manual_seed(0)
        before = rng.get_state()
        assert sample(logits, temperature=0, generator=rng) == max(range(50), key=lambda i: float(logits[i]))
        assert torch.equal(rng.get_state(), before)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_gives_its_distribution(temperature):
    """Bug: logits multiplied by the temperature, or divided after the softmax."""
    found = counts(temperature=temperature)
    assert_drawn_from(found, softmax(LOGITS, temperature))
    for other in {0.5, 1.0, 2.0} - {temperature}:              # and the check can tell them apart
        with pytest.raises(AssertionError):
            assert_drawn_from(found, softmax(LOGITS, other))


@pytest.mark.parametrize("top_k", [1, 2, 5, 8, 100])
def test_top_k_against_brute_force(top_k):
    """Bug: one token too many or too few, a k above the vocabulary, or remaining probabilities that do not sum to 1."""
    probabilities = softmax(LOGITS, 1.5)
    assert_drawn_from(counts(temperature=1.5, top_k=top_k), keep(probabilities, brute_top_k(probabilities, top_k)))


@pytest.mark.parametrize("top_p", [0.0, 1e-6, 0.3, 0.5, 0.75, 0.93, 0.999])
def test_top_p_against_brute_force(top_p):
    """Bug: the token that reaches p is left out (with a small p: all), or the temperature comes after the cut."""
    probabilities = softmax(LOGITS, 1.5)
    kept = brute_top_p(probabilities, top_p)
    assert kept
    assert_drawn_from(counts(temperature=1.5, top_p=top_p), keep(probabilities, kept))


def test_top_p_reached_exactly():
    """Bug: a cumulative sum that equals p takes one more token: of four equal ones, half are two."""
    found = counts(logits=[1.0, 1.0, 1.0, 1.0], top_p=0.5)
    assert sorted(n > 0 for n in found) == [False, False, True, True]


def test_the_strongest_limits_leave_the_best_token():
    """Bug: top_k = 1 or top_p near 0 is not the greedy choice, or the two together leave nothing to draw from."""
    for seed in range(50):
        logits = torch.randn(30, generator=torch.Generator().manual_seed(seed))
        for top_k, top_p in ((1, 1.0), (0, 0.0), (1, 0.9), (5, 1e-9)):
            assert sample(logits, 3.0, top_k, top_p) == int(logits.argmax())


def test_extreme_temperatures_and_logits():
    """Bug: a temperature of 1e-40 makes infinite logits and the draw fails; half precision loses small differences."""
    logits = torch.tensor([3.0, 90.0, 89.0, -torch.inf])
    rng = torch.Generator().manual_seed(0)
    for temperature in (1e-3, 1e-20, 1e-40):
        assert sample(logits, temperature, generator=rng) == 1
    hot = {sample(logits, 1e6, generator=rng) for _ in range(200)}
    assert hot == {0, 1, 2}                                    # never the one that is ruled out
    assert sample(logits.bfloat16(), 1e-3, generator=rng) == 1


# -- The loop --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=1024, block_size=16, n_layer=1, n_head=2, n_embd=16)).eval()


def test_the_same_seed_gives_the_same_text(model):
    """Bug: a seed that is ignored, or that depends on what else has drawn random numbers."""
    bpe = tokenizer.load()
    ids = bpe.encode("The sea")
    first = generate(model, bpe, ids, 30, seed=7)
    torch.rand(5)
    assert generate(model, bpe, ids, 30, seed=7) == first
    assert len({generate(model, bpe, ids, 30, seed=seed) for seed in range(5)}) == 5
    assert len({generate(model, bpe, ids, 30) for _ in range(5)}) == 5


def slow_greedy(model: GPT, ids: list[int], max_tokens: int) -> list[int]:
    """Greedy text without a cache: what is in the context is read anew for each token."""
    ids, block = list(ids), model.config.block_size
    start = max(0, len(ids) - block)
    for _ in range(max_tokens):
        if len(ids) - start > block:                           # full: the oldest half goes
            start = len(ids) - block // 2
        ids.append(int(model(torch.tensor([ids[start:]]))[0, -1].argmax()))
    return ids


@pytest.mark.parametrize("length", [1, 15, 16, 17, 40])
def test_generation_slides_the_context(model, length):
    """Bug: an overflow at the end of the context, or other text from there on, because cache and positions disagree."""
    bpe = tokenizer.load()
    ids = torch.randint(1000, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    with torch.no_grad():
        expected = slow_greedy(model, ids, 50)
    before = list(ids)
    assert generate(model, bpe, ids, 50, temperature=0) == bpe.decode(expected)
    assert ids == before                                       # the caller's list is not grown


def test_generation_with_a_context_of_one_token():
    """Bug: half of a context of one is none, and ids[-0:] is all of them."""
    torch.manual_seed(0)
    one = GPT(GPTConfig(vocab_size=1024, block_size=1, n_layer=1, n_head=1, n_embd=8)).eval()
    text = generate(one, tokenizer.load(), [65, 66], 5, temperature=0)
    assert text.startswith("AB")


def test_generation_stops_at_the_end_of_the_text_if_asked(model):
    """Bug: the end marker is printed as text, or generation runs on behind it."""
    bpe = tokenizer.load()
    one = GPT(model.config).eval()
    with torch.no_grad():
        one.ln_f.weight.zero_()                                # every state is the bias: the end of the text wins
        one.ln_f.bias.copy_(100 * one.wte.weight[bpe.end_of_text])
    assert generate(one, bpe, [65], 5, temperature=0, stop_at_end=True) == "A"
    assert generate(one, bpe, [65], 2, temperature=0) == "A<|endoftext|><|endoftext|>"


def test_nothing_to_continue_is_an_error(model):
    """Bug: an empty prompt fails deep inside with a message about tensor types."""
    with pytest.raises(ValueError, match="no token to continue"):
        generate(model, tokenizer.load(), [])
