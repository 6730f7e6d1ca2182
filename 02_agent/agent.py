"""Ask the agent from the command line.

Run:         python agent.py "What is 1234 plus 5678?"          (the inference server must be running)
             python agent.py                                     asks for questions until an empty line

What it leaves out: training and serving, which are layers of their own.
"""

import argparse
import asyncio
import os
import sys

from agent_loop import run
from client import DEFAULT_URL

LABELS = {"thought": "THOUGHT", "action": "ACTION", "observation": "OBSERVATION", "token": "ANSWER"}
DIM, BOLD, PLAIN = ("\033[2m", "\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


async def ask(question: str, url: str, temperature: float) -> bool:
    """Print the agent's steps as they happen; returns whether it answered."""
    last, fine = None, True
    async for event in run(question, model_url=url, temperature=temperature):
        kind = event["type"]
        if kind == "error":
            print(f"{PLAIN}\nagent.py: {event['message']}" if last else f"agent.py: {event['message']}", file=sys.stderr)
            fine = False
        elif kind in LABELS:
            if kind != last:
                print(f"{PLAIN}{'' if last is None else chr(10)}{BOLD if kind == 'token' else DIM}{LABELS[kind]}: ", end="")
            print(event["v"], end="", flush=True)
            last = kind
    print(PLAIN)
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask the agent.")
    parser.add_argument("question", nargs="?", help="without it, questions are read until an empty line")
    parser.add_argument("--url", default=os.environ.get("MODEL_URL", DEFAULT_URL),
                        help="the inference server (default: the setting MODEL_URL, else %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default: %(default)s)")
    args = parser.parse_args()
    try:
        if args.question is not None:
            if not args.question.strip():
                raise SystemExit("agent.py: the question is empty")
            raise SystemExit(0 if asyncio.run(ask(args.question, args.url, args.temperature)) else 1)
        while question := input("Q: ").strip():
            asyncio.run(ask(question, args.url, args.temperature))
    except (KeyboardInterrupt, EOFError):
        print(PLAIN)


if __name__ == "__main__":
    main()
