"""The transformer: against transformers' GPT-2 with the same weights, and against itself in smaller steps."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from model import GPT, GPTConfig
from presets import PRESETS
from pretrained import SMALL, from_tensors

TINY = GPTConfig(vocab_size=61, block_size=24, n_layer=2, n_head=2, n_embd=16)


def make(config: GPTConfig = TINY, seed: int = 0, spread: float = 0.0) -> GPT:
    """A model with initial weights; with spread, noise on every parameter, so that gains and biases count too."""
    torch.manual_seed(seed)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += spread * torch.randn_like(parameter)
    return model


def draw_ids(config: GPTConfig, batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def gradients(model: GPT) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# -- Against transformers --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("V, block, L, H, C, B, T", [
    (61, 24, 2, 2, 16, 3, 24), (300, 64, 3, 4, 32, 2, 50), (97, 40, 1, 1, 8, 1, 1), (512, 128, 4, 8, 64, 2, 128)])
def test_logits_equal_transformers(V, block, L, H, C, B, T):
    """Bug: anything that makes this another network than GPT-2: gelu, epsilon, the order of norms, heads or q, k, v."""
    torch.manual_seed(1)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=block, n_layer=L, n_head=H, n_embd=C)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():                  # fresh biases are 0 and gains 1: neither would be tested
            parameter += 0.1 * torch.randn_like(parameter)
    config = GPTConfig(V, block, L, H, C)
    ours, ids = from_tensors(theirs.state_dict(), config), draw_ids(config, B, T)
    with torch.no_grad():
        expected, logits = theirs(ids).logits, ours(ids)
    assert logits.shape == (B, T, V) and expected.std() > 0.1
    assert (logits - expected).abs().max() < 1e-5


def test_parameter_count_of_gpt2_small():
    """Bug: an untied output matrix, a missing bias or norm: GPT-2's smallest model has 124,439,808 parameters."""
    with torch.device("meta"):                                 # shapes only, no memory
        model = GPT(SMALL)
    assert model.n_params() == 124_439_808


# -- Step against forward --------------------------------------------------------------------------------------------

SHAPES = st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 4]), st.sampled_from([2, 8, 16]),      # L, H, D
                   st.integers(2, 48), st.integers(5, 300))                                        # block size, V


def cuts(draw, length: int) -> list[int]:
    """A random way to cut length tokens into chunks, as their sizes."""
    marks = sorted(draw(st.sets(st.integers(1, length - 1), max_size=6))) if length > 1 else []
    return [b - a for a, b in zip([0, *marks], [*marks, length], strict=True)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SHAPES, st.integers(1, 3), st.integers(0, 1000), st.data())
def test_step_equals_forward(shape, batch, seed, data):
    """Bug: chunked prefill that sees the future or forgets the past, positions that start again at 0, rows that mix."""
    L, H, D, block, V = shape
    config = GPTConfig(V, block, L, H, H * D)
    model, length = make(config, seed), data.draw(st.integers(1, block))
    ids = draw_ids(config, batch, length, seed)
    with torch.no_grad():
        full = model(ids)                                      # (B, T, V)
    for sizes in ([length], [1] * length, cuts(data.draw, length)):
        cache, parts = None, []
        for chunk in ids.split(sizes, dim=1):
            logits, cache = model.step(chunk, cache)
            parts.append(logits)
        assert (torch.cat(parts, dim=1) - full).abs().max() < 1e-6, sizes
        assert cache and len(cache) == L and all(kv.shape == (batch, H, length, D) for pair in cache for kv in pair)


def test_step_leaves_the_given_cache_alone():
    """Bug: two continuations of one prompt (or a request tried again) that write into each other's cache."""
    model, ids = make(spread=0.1), draw_ids(TINY, 2, 10)
    _, cache = model.step(ids[:, :6])
    before = [(k.clone(), v.clone()) for k, v in cache]
    one, _ = model.step(ids[:, 6:7], cache)
    model.step(ids[:, 7:10], cache)
    again, _ = model.step(ids[:, 6:7], cache)
    assert torch.equal(one, again)
    assert len(cache) == len(before)
    for (k, v), (k0, v0) in zip(cache, before, strict=True):
        assert torch.equal(k, k0) and torch.equal(v, v0)
    assert not one.requires_grad and not cache[0][0].requires_grad


def test_rows_of_a_batch_do_not_mix():
    """Bug: a reshape that swaps heads and batch: a row's logits depend on its neighbours."""
    model, ids = make(spread=0.1), draw_ids(TINY, 4, 12)
    with torch.no_grad():
        together, alone = model(ids), torch.cat([model(row[None]) for row in ids])
    assert (together - alone).abs().max() < 1e-5


# -- Causality and loss ----------------------------------------------------------------------------------------------

def test_a_later_token_changes_nothing_earlier():
    """Bug: attention that looks ahead: training would be easy and generation useless."""
    model, ids = make(spread=0.1), draw_ids(TINY, 1, 20)
    with torch.no_grad():
        before = model(ids)
        for t in range(20):
            changed = ids.clone()
            changed[0, t] = (ids[0, t] + 1) % TINY.vocab_size
            after = model(changed)
            assert t == 0 or (after[:, :t] - before[:, :t]).abs().max() < 1e-6
            moved = (after[0, t:] - before[0, t:]).abs().amax(-1)
            assert moved.min() > 1e-4                          # and every later one does see it


def test_loss_equals_forward_with_targets():
    """Bug: the short way to the loss, working only where there is a target, gives another number or other gradients."""
    model, ids = make(spread=0.1).train(), draw_ids(TINY, 3, 20)
    targets = draw_ids(TINY, 3, 20, seed=1)
    targets[torch.rand(3, 20, generator=torch.Generator().manual_seed(2)) < 0.4] = -1
    logits, full = model(ids, targets=targets)
    full.backward()
    expected = gradients(model)
    model.zero_grad()
    short = model.loss(ids, targets)
    short.backward()
    assert torch.equal(logits, model(ids))
    assert abs(short.item() - full.item()) < 1e-6
    assert len(expected) == len(list(model.parameters()))
    for name, found in gradients(model).items():
        assert found.abs().max() > 0, name
        assert torch.allclose(found, expected[name], rtol=1e-4, atol=1e-7), name


def test_targets_of_minus_one_are_ignored():
    """Bug: the question or the padding counts in the loss: here it is worked out by hand from the other positions."""
    model, ids, targets = make(spread=0.1), draw_ids(TINY, 2, 8), draw_ids(TINY, 2, 8, seed=1)
    targets[0, :5], targets[1, 2] = -1, -1
    with torch.no_grad():
        logits, loss = model(ids, targets=targets)
        by_hand = [-math.log(math.exp(logits[b, t, targets[b, t]]) / logits[b, t].double().exp().sum())
                   for b in range(2) for t in range(8) if targets[b, t] >= 0]
    assert len(by_hand) == 10
    assert loss.item() == pytest.approx(sum(by_hand) / 10, abs=1e-5)
    assert model.loss(ids, targets).item() == pytest.approx(sum(by_hand) / 10, abs=1e-5)


def first_loss(config: GPTConfig, seed: int) -> float:
    model = make(config, seed)
    length = min(64, config.block_size)
    with torch.no_grad():
        return model.loss(draw_ids(config, 4, length, seed), draw_ids(config, 4, length, seed + 1)).item()


@pytest.mark.parametrize("name", PRESETS)
def test_first_loss_is_that_of_guessing(name):
    """Bug: an initialisation that starts out sure of something: the first loss must be ln(V)."""
    config = PRESETS[name].config
    for seed in range(2):
        assert first_loss(config, seed) == pytest.approx(math.log(config.vocab_size), abs=0.05)


def test_first_loss_of_gpt2s_own_shape():
    """Bug: an initialisation that depends on the width in another way than GPT-2's.

    With tied embeddings of std 0.02 a logit is a sum of C products with the last LayerNorm's output (variance 1), so
    its variance is 0.02^2 C, and the mean of ln(sum exp) is ln(V) + 0.02^2 C / 2: at C = 768, 0.154 above ln(V).
    """
    config = replace(SMALL, n_layer=1)
    assert first_loss(config, 0) == pytest.approx(math.log(config.vocab_size) + 0.02**2 * config.n_embd / 2, abs=0.05)


def test_initial_weights_are_gpt2s():
    """Bug: PyTorch's own initialisation left in place, or residual projections that are not scaled by 1 / sqrt(2L)."""
    model = make(GPTConfig(vocab_size=1024, block_size=256, n_layer=3, n_head=4, n_embd=128))
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.any(), name
        elif ".ln" in name or name.startswith("ln"):
            assert (p == 1).all(), name
        else:
            expected = 0.02 / math.sqrt(6) if name.endswith("proj.weight") else 0.02
            assert p.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * p.numel())), name
            assert abs(p.mean().item()) < 5 * expected / math.sqrt(p.numel()), name


def test_the_embedding_is_the_output_matrix():
    """Bug: an output matrix of its own, which doubles the parameters and is no GPT-2."""
    model = make()
    assert model.n_params() == sum(t.numel() for t in model.state_dict().values())
    ids = draw_ids(TINY, 1, 5)
    with torch.no_grad():
        before = model(ids)
        assert (ids != TINY.vocab_size - 1).all()
        model.wte.weight[-1] += torch.randn(TINY.n_embd)       # a token that is not in ids: only its logit may move
        moved = (model(ids) - before).abs().amax((0, 1))       # (V,)
    assert moved[-1] > 0.1 and moved[:-1].max() == 0
    model.loss(ids, ids).backward()
    assert (gradients(model)["wte.weight"].abs().sum(1) > 0).all()      # every row gets a gradient, also those not read


# -- Errors ----------------------------------------------------------------------------------------------------------

def test_context_overflow_is_an_error():
    """Bug: a text that is too long ends in an index error from deep inside, or wraps around without a word."""
    model, ids = make(), draw_ids(TINY, 1, 25)
    with pytest.raises(ValueError, match=r"25 tokens.* 24"):
        model(ids)
    _, cache = model.step(ids[:, :24])
    for extra in (1, 3):
        with pytest.raises(ValueError, match=rf"context overflow: {24 + extra} tokens"):
            model.step(ids[:, :extra], cache)


def test_ids_without_a_batch_dimension_are_an_error():
    """Bug: model(tensor([1, 2, 3])) broadcasts into something and gives logits of a wrong shape."""
    for shape in ((5,), (1, 5, 1), ()):
        with pytest.raises(ValueError, match="batch, time"):
            make()(torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("change, message", [
    ({"n_embd": 30, "n_head": 4}, r"n_embd \(30\) must be a multiple of n_head \(4\)"), ({"n_layer": 0}, "n_layer"),
    ({"vocab_size": -1}, "vocab_size"), ({"block_size": 1.5}, "block_size"), ({"n_head": "2"}, "n_head"),
    ({"n_embd": None}, "n_embd")])
def test_impossible_shapes_are_refused(change, message):
    """Bug: a wrong number in a configuration shows up later as a shape error of some matrix."""
    with pytest.raises(ValueError, match=message):
        GPTConfig(**{**asdict(GPTConfig()), **change})
