"""Instruction tuning itself, for whatever model it starts from: batches, the same questions before and after, the checkpoint.

Use:         tune(model, bpe, recipe, out=Path("out/sft.pt"), info={"preset": "tiny"})
"""

from pathlib import Path

from bpe import BPE
from chat_data import encode_pairs, read_pairs
from model import GPT
from prompts import chat_trace, prompt_text
from rows import Rows, pad_batch
from sampling import generate
from trainer import Recipe, Trainer

OUT = Path(__file__).resolve().parent / "out" / "sft.pt"
ROWS = 32
ASKED = ["How are you?", "What is the capital of France?", "Name three fruits.", "Who are you?", "Is the moon a planet?"]


def _show_answers(model: GPT, bpe: BPE, title: str) -> None:
    """Put the same questions and print the greedy answers."""
    print(f"\n{title}:")
    for question in ASKED:
        prompt = prompt_text(chat_trace(question))
        answer = generate(model, bpe, bpe.encode(prompt), max_tokens=40, temperature=0, stop_at_end=True)[len(prompt):]
        print(f"  Q: {question}\n  A:{answer.splitlines()[0] if answer.strip() else ''}")
    print()


def tune(model: GPT, bpe: BPE, recipe: Recipe, *, out: Path, info: dict, resume: bool = False) -> Path:
    """Tune a model on the bundled question/answer pairs, every twelfth of them kept for validation; returns the checkpoint."""
    pairs = read_pairs()
    train = encode_pairs([pair for i, pair in enumerate(pairs) if i % 12 != 11], bpe)
    held_ids, held_targets = (part.to(model.wte.weight.device) for part in pad_batch(encode_pairs(pairs[11::12], bpe)))
    trainer = Trainer(model, bpe, Rows(train, ROWS, recipe.seed).batch, recipe, stage="sft", out=out, info=info, resume=resume,
                      validate=lambda m: m.loss(held_ids, held_targets).item())
    _show_answers(model, bpe, "Before")
    path = trainer.run()
    _show_answers(model, bpe, "After")
    print(f"validation loss {trainer.val_losses[-1][1]:.3f} on the answers, after {trainer.seconds:.0f} s; saved {path}")
    return path
