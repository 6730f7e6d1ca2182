"""The two scripts of the transformer's layer and the design's own example, as a reader runs them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import checkpoint
import tokenizer
from bpe import SAMPLES
from model import GPT, GPTConfig

LAYER = Path(__file__).resolve().parent.parent / "04_transformer"
CONFIG = GPTConfig(vocab_size=1024, block_size=32, n_layer=3, n_head=2, n_embd=16)

# DESIGN.md, section 7.
EXAMPLE = """
import torch
from model import GPT, GPTConfig; import tokenizer
m = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=32)).eval()
x = torch.tensor([tokenizer.encode('Hello world')])
full = m(x); pre, kvs = m.step(x[:, :-1]); dec, _ = m.step(x[:, -1:], kvs)
print(float((full[0,-1]-dec[0,-1]).abs().max()))
"""


def run(*command: str, cwd: Path = LAYER) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, encoding="utf-8", timeout=120)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A checkpoint whose next token is no toss-up: larger weights than at the start of training."""
    torch.manual_seed(0)
    model = GPT(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    checkpoint.save(path, model, tokenizer.load(), "base", {})
    return path


def test_bpe_script():
    """Bug: `python bpe.py` fails, or shows other ids than the vocabulary gives."""
    done = run("bpe.py")
    assert done.returncode == 0, done.stderr
    for sample in SAMPLES:
        block = done.stdout[done.stdout.index(repr(sample)):].split("\n")
        assert block[1].strip() == f"{len(sample.encode())} bytes, {len(tokenizer.encode(sample))} tokens"
        assert [int(i) for i in re.findall(r"['\"]:(\d+)(?= |$)", block[2])] == tokenizer.encode(sample)
    corpus = tokenizer.corpus_text()
    assert f"corpus: {len(corpus.encode()):,} bytes, {len(tokenizer.encode(corpus)):,} tokens" in done.stdout
    assert done.stdout.endswith("Every text came back exactly.\n")


def test_bpe_script_with_a_text():
    """Bug: --text shows the samples as well, or chokes on bytes that are no character."""
    done = run("bpe.py", "--text", "12 国")
    assert done.returncode == 0, done.stderr
    assert [int(i) for i in re.findall(r"['\"]:(\d+)", done.stdout)] == tokenizer.encode("12 国")
    assert "corpus" not in done.stdout


def test_inference_script_shows_the_forward_pass(model):
    """Bug: printed tokens, shapes or probabilities that are not the model's; worked out here from GPT.forward."""
    text = "What is 1234 plus 5678?"
    done = run("inference.py", text, "--checkpoint", str(model))
    assert done.returncode == 0, done.stderr
    gpt, bpe, _ = checkpoint.load(model)
    ids = bpe.encode(text)
    T, C, V = len(ids), CONFIG.n_embd, CONFIG.vocab_size
    assert f"model.pt, stage base: {gpt.n_params():,} parameters" in done.stdout
    _, tokens, body, top = re.split(r"\n[123]\. ", done.stdout)
    assert [int(i) for i in re.findall(r"'=(\d+)", tokens)] == ids
    rows = re.findall(r"^  (\S.*?) +(\(.*?\)) +\d+\.\d\d ms  (.*)$", body, re.MULTILINE)
    assert [(name, shape) for name, shape, _ in rows] == [
        *((name, f"(1, {T}, {C})") for name in ("embed", "block 0", "block 1", "block 2")),
        ("logits", f"(1, {T}, {V})")]
    assert all(f"keys and values (1, 2, {T}, {C // 2})" in note for name, _, note in rows if name.startswith("block"))
    with torch.no_grad():
        probabilities = gpt(torch.tensor([ids]))[0, -1].softmax(-1).tolist()
    best = sorted(range(V), key=lambda i: -probabilities[i])[:5]
    assert re.findall(r"^  (\S.*?) +(\d+\.\d)%", top, re.MULTILINE) == [
        (repr(bpe.decode([i])), f"{100 * probabilities[i]:.1f}") for i in best]


def test_inference_script_as_in_the_design():
    """Bug: the command of the design fails in a fresh clone, where nothing is trained, or later, when something is."""
    done = run("inference.py", "Hello, I am")
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout and len(re.findall(r"^  .*\d%", done.stdout, re.MULTILINE)) == 5


@pytest.mark.parametrize("arguments, message", [
    (["--checkpoint", "none.pt"], "no checkpoint at none.pt"), (["--checkpoint", "bpe.py"], "bpe.py is no checkpoint"),
    ([""], "the text has 0 tokens; this model takes 1 to 32"), (["12345678" * 5], "the text has 40 tokens")])
def test_inference_script_names_what_is_wrong(model, arguments, message):
    """Bug: a traceback where a sentence would do."""
    extra = [] if "--checkpoint" in arguments else ["--checkpoint", str(model)]
    done = run("inference.py", *arguments, *extra)
    assert done.returncode == 1 and done.stderr.startswith("inference.py: ") and message in done.stderr


def test_the_designs_own_example(tmp_path):
    """Bug: the lines that DESIGN.md promises do not run, or only in the layer's own folder."""
    done = run("-c", EXAMPLE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-6
