"""One forward pass, printed step by step: from a line of text to the five most likely next tokens.

Run:         python inference.py "Hello, I am"                    the best checkpoint there is, else random weights
             python inference.py "Q: Hi" --checkpoint ../00b_sft/out/sft.pt

Letters:     B batch, T time (tokens), C width, H heads, D head width, V vocabulary, L layers.

What it leaves out: generating more than one token (00_train/sample.py does).
"""

import argparse
import time
from pathlib import Path

import torch

import checkpoint
import tokenizer
from bpe import BPE
from model import GPT, GPTConfig

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = [ROOT / "00c_agent_sft/out/agent.pt", ROOT / "00b_sft/out/sft.pt", ROOT / "00_train/out/base.pt"]


def choose(path: Path | None) -> tuple[GPT, BPE, str]:
    """The model to look into, its vocabulary and where it came from."""
    found = path or next((p for p in CHECKPOINTS if p.exists()), None)
    if found:
        model, bpe, info = checkpoint.load(found)
        return model, bpe, f"{found.name}, stage {info['stage']}"
    torch.manual_seed(0)
    bpe = tokenizer.load()
    return GPT(GPTConfig(vocab_size=bpe.vocab_size)).eval(), bpe, "random weights (nothing is trained yet)"


@torch.no_grad()
def walk(model: GPT, bpe: BPE, text: str) -> None:
    """Print every step of the forward pass with its shape and its time."""
    config = model.config

    def row(name: str, shape, started: float, note: str = "") -> None:
        print(f"  {name:<22}{tuple(shape)!s:<18}{(time.perf_counter() - started) * 1e3:7.2f} ms  {note}")

    ids = bpe.encode(text)
    print(f"\n1. Text to tokens: {text!r}\n  " + "  ".join(f"{bpe.decode([i])!r}={i}" for i in ids))
    tokens = torch.tensor([ids])                                                         # (B, T)
    model.step(tokens)                                                                   # warm up, so that times count
    print(f"\n2. Through the model (B=1, T={len(ids)}, C={config.n_embd}, H={config.n_head}, "
          f"D={config.n_embd // config.n_head}, L={config.n_layer})")
    started = time.perf_counter()
    x = model.embed(tokens)                                                              # (B, T, C)
    row("embed", x.shape, started, "token + position embedding")
    for i, block in enumerate(model.blocks):
        started = time.perf_counter()
        x, (keys, _) = block(x)                                                          # (B, T, C)
        row(f"block {i}", x.shape, started, f"keys and values {tuple(keys.shape)}, residual norm {x[0, -1].norm():.2f}")
    started = time.perf_counter()
    logits = model.logits(model.ln_f(x))                                                 # (B, T, V)
    row("logits", logits.shape, started, "LayerNorm, then the token embedding again")
    print("\n3. The next token: softmax over the last row of logits (V,)")
    probabilities, best = logits[0, -1].softmax(-1).topk(5)
    for p, i in zip(probabilities.tolist(), best.tolist(), strict=True):
        print(f"  {bpe.decode([i])!r:<16}{p:6.1%}  {'#' * round(40 * p)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="?", default="Hello, I am", help="(default: %(default)r)")
    parser.add_argument("--checkpoint", type=Path, help="the model (default: the last stage that is trained)")
    args = parser.parse_args()
    try:
        model, bpe, source = choose(args.checkpoint)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"inference.py: {error}") from None
    length = len(bpe.encode(args.text))
    if not 1 <= length <= model.config.block_size:
        raise SystemExit(f"inference.py: the text has {length} tokens; this model takes 1 to {model.config.block_size}")
    parts = {"token embedding": model.wte, "position embedding": model.wpe, "blocks": model.blocks,
             "last LayerNorm": model.ln_f}
    print(f"{source}: {model.n_params():,} parameters ("
          + ", ".join(f"{name} {sum(p.numel() for p in part.parameters()):,}" for name, part in parts.items()) + ")")
    walk(model, bpe, args.text)


if __name__ == "__main__":
    main()
