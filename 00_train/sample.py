"""Text from a trained checkpoint.

Run:         python sample.py "ROMEO:"
             python sample.py "Once" --tokens 200 --temperature 0.7 --checkpoint out/base.pt
"""

import argparse
from pathlib import Path

import checkpoint
from presets import PRESETS, base_path
from sampling import generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt", nargs="?", default="ROMEO:", help="how the text begins (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="the model (default: the preset's base checkpoint)")
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="whose base checkpoint (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=150, help="how many to generate (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=50, help="draw from the k likeliest tokens, 0 for all (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="for the same text again (default: another one each time)")
    args = parser.parse_args()
    try:
        model, bpe, _ = checkpoint.load(args.checkpoint or base_path(args.preset))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"sample.py: {error}") from None
    if not args.prompt:
        raise SystemExit("sample.py: the prompt is empty; give the text a beginning")
    print(generate(model, bpe, bpe.encode(args.prompt), args.tokens, args.temperature, args.top_k, seed=args.seed))


if __name__ == "__main__":
    main()
