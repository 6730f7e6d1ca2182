"""Makes agent traces: a question, and what a right agent does about it, with every observation from the real tools.

Use:         Generator(seed, "train").trace("calc") -> Example       (build_data.py writes many; evaluate.py asks held-out ones)

Two splits that never meet. A held-out question has a wording, and a number pair or name, that training never draws:
which ones, a hash of their own text decides (wordings.py says how wordings are composed).

What it leaves out: number words, units, dates, and questions that need three tools.
"""

import random
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import wordings
from names import made_up_name
from prompts import Round, Segment, agent_trace, prompt_text, quiet
from tools import NOTHING_FOUND, Knowledge, calc, read_facts, run_tool

DATA = Path(__file__).resolve().parent.parent / "data"
SMALLTALK = DATA / "smalltalk.tsv"
REFUSALS = DATA / "refusals.txt"

# The ten questions that every evaluation asks, with what a right answer contains. Their facts, number pairs and
# numbers are kept out of training.
THE_TEN = [
    ("What is the capital of France?", "Paris"),
    ("What is 23 plus 47?", "70"),
    ("What is 1234 plus 5678?", "6912"),
    ("Who wrote Hamlet?", "William Shakespeare"),
    ("What is 8 times 7?", "56"),
    ("What is the symbol of gold?", "Au"),
    ("What is the speed of light?", "299792458 m/s"),
    ("What is the longest river in Africa?", "Nile"),
    ("What is the capital of Mongolia?", "Ulaanbaatar"),
    ("How are you today?", ""),                                # any answer of its small talk
]
TEN_FACTS = {("capital", "france"), ("author", "hamlet"), ("symbol", "gold"), ("speed", "light"),
             ("longest river", "africa"), ("capital", "mongolia")}
TEN_PAIRS = {("23", "47"), ("8", "7")}
TEN_NUMBERS = r"(?<!\d)(1234|5678)(?!\d)"
TEN_SAYS = {"how are you today"}

CALC_THOUGHT = "I calculate this."
LOOKUP_THOUGHT = "I look this up."
NUMBER_THOUGHT = "First I look up the number."
NOW_CALC_THOUGHT = "Now I calculate."
MISS = "I could not find that."
CANNOT = "That cannot be calculated."

CATEGORIES = ("calc", "fact", "made_up", "miss", "two_step", "error", "small_talk", "refuse")


@dataclass(frozen=True)
class Example:
    """A question and the trace of a right agent. facts: the knowledge that its lookups need, where it is made up."""

    category: str
    question: str
    rounds: tuple[Round, ...]
    answer: str
    facts: tuple[tuple[str, str, str], ...] = ()
    # What the question was made of, for the proof that the two splits never meet.
    wording: str = ""
    parts: tuple[str, ...] = ()

    def segments(self) -> list[Segment]:
        """The trace as the text and mask to train on."""
        return agent_trace(self.question, self.rounds, self.answer)


def held_out(*parts: str, share: int = 10) -> bool:
    """Whether a name, a number pair or a wording belongs to the held-out part, one in share, by a hash of its text."""
    return zlib.crc32("|".join(part.lower() for part in parts).encode()) % share == 0


def plain(text: str) -> str:
    """Text for comparing wordings: lower case, letters and digits only, single spaces."""
    return " ".join(re.sub(r"[^\w\s]", "", text.lower()).split())


@cache
def read_smalltalk(path: Path = SMALLTALK) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Intent -> (answer, wordings). Lines are intent, role (say or answer) and text, parted by tabs."""
    answers: dict[str, str] = {}
    says: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        intent, role, text = line.split("\t")
        if role == "answer":
            answers[intent] = text
        else:
            says.setdefault(intent, []).append(text)
    return {intent: (answers[intent], tuple(says[intent])) for intent in answers}


@cache
def read_refusals(path: Path = REFUSALS) -> tuple[str, ...]:
    """What people ask that the agent cannot do, a wording a line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line.strip() and not line.startswith("#"))


def core(say: str) -> str:
    """A wording of small talk without what people put around it: "Hey, how are you today?" -> "how are you"."""
    text = plain(say)
    while True:
        shorter = text
        for opener in PLAIN_OPENERS:
            shorter = shorter.removeprefix(opener + " ")
        for closer in PLAIN_CLOSERS:
            shorter = shorter.removesuffix(" " + closer)
        if shorter == text:
            return text
        text = shorter


PLAIN_OPENERS = sorted({plain(opener) for opener in wordings.OPENERS} - {""})
PLAIN_CLOSERS = sorted({plain(closer) for closer in wordings.CLOSERS} - {""})


def held_out_cores(says: Sequence[str]) -> set[str]:
    """The cores that training never sees: one in six of those whose words all stand in three other wordings of the list
    too (so what is asked is a new sentence, not a new word), and the one of the ten."""
    words = Counter(word for say in says for word in set(plain(say).split()))
    cores = {core(say) for say in says if all(words[word] > 3 for word in plain(say).split())}
    return {c for c in cores if held_out("say", c, share=6)} | {core(say) for say in TEN_SAYS}


# Relations whose subjects take no article, being stuffs: "the symbol of gold"; others often do: "the inventor of the telephone".
BARE = {"symbol", "atomic number", "formula", "melting point", "boiling point", "freezing point", "mix", "source", "science",
        "year"}
# Relations whose phrase takes another word than "of": "longest river in Africa".
IN = {"longest river", "highest mountain", "largest lake", "largest desert", "largest country", "largest island"}

COUNTED = ("population", "age", "price", "weight", "area", "height", "length", "depth", "number of rooms", "number of doors")

# Relations that have wordings of their own.
SPECIAL = sorted({*wordings.OWN, *(deed[0] for deed in wordings.DEEDS)})

ODD_RELATIONS = ("mayor", "anthem", "flower", "owner", "population", "patron", "motto", "captain", "founder", "age", "colour",
                 "main port", "oldest bridge", "phone number", "price", "weight", "area", "ruler", "editor", "builder")


class Generator:
    """Draws examples of one split ("train" or "heldout"), the same ones for the same seed."""

    def __init__(self, seed: int, split: str):
        if split not in ("train", "heldout"):
            raise ValueError(f"split must be train or heldout, not {split!r}")
        self.rng = random.Random(f"{split}{seed}")
        self.held_out = split == "heldout"
        facts, aliases = read_facts()
        self.knowledge = Knowledge(facts, aliases)
        self.facts = [f for f in facts if self._mine(f[0], f[1]) and (f[0], f[1].lower()) not in TEN_FACTS]
        self.by_relation: dict[str, list[tuple[str, str, str]]] = {}
        for fact in self.facts:
            self.by_relation.setdefault(fact[0], []).append(fact)
        self.numeric = [f for f in self.facts if re.fullmatch(r"\d+( [a-z/]+)?", f[2])]
        lists = [says for _, says in read_smalltalk().values()] + [read_refusals()]
        held = set().union(*map(held_out_cores, lists))
        self.small = [(intent, say, answer) for intent, (answer, says) in read_smalltalk().items()
                      for say in says if (core(say) in held) == self.held_out]
        self.refusals = [say for say in read_refusals() if (core(say) in held) == self.held_out]

    def trace(self, category: str) -> Example:
        """One example of a category (one of CATEGORIES). None for training holds a number of the ten."""
        while True:
            example = getattr(self, "_" + category)()
            if self.held_out or not re.search(TEN_NUMBERS, prompt_text(example.segments())):
                return example

    # -- numbers -------------------------------------------------------------------------------------------------

    def _mine(self, *parts: str) -> bool:
        return held_out(*parts) == self.held_out

    def _number(self, least: int = 0, longest: int = 6) -> str:
        """A number of one to so many digits, each length equally often; now and then a decimal."""
        digits = self.rng.randint(1, longest)
        low = 10 ** (digits - 1) if digits > 1 else 0
        text = str(max(least, self.rng.randint(low, 10**digits - 1)))
        if len(text) < 5 and self.rng.random() < 0.07:
            text += f".{self.rng.randint(1, 99)}"
        return text

    def _pair(self, longest: int = 6) -> tuple[str, str]:
        """Two numbers whose pair belongs to this split."""
        while True:
            a, b = self._number(longest=longest), self._number(1, longest)
            if (a, b) not in TEN_PAIRS and self._mine(a, b):
                return a, b

    def _compose(self, cores: Sequence[str], held: Sequence[str], relation: str = "") -> tuple[str, str]:
        """A wording of this split -> (text with its slots, the same as it is known by)."""
        while True:
            core = self.rng.choice(held if held and self.held_out and self.rng.random() < 0.4 else cores)
            opener, closer = self.rng.choice(wordings.OPENERS), self.rng.choice(wordings.CLOSERS)
            text = core.rstrip("?.")
            wording = opener + (core[:1].lower() if opener and not core.startswith("I ") else core[:1]) + text[1:] + closer
            out = core in held or held_out(wording, relation, share=5) or held_out(text, relation, share=8)
            if out == self.held_out:
                return wording + core[len(text):], f"{wording} [{relation}]"

    # -- categories ----------------------------------------------------------------------------------------------

    def _calc(self) -> Example:
        three = self.rng.random() < 0.08                       # three numbers, shorter ones, written with signs
        a, b = self._pair(longest=3 if three else 6)
        sign = self.rng.choice("++--**/")
        if three:
            c, more = str(self.rng.randint(1, 999)), self.rng.choice("+-*")
            frame, wording = self._compose(wordings.SUM, wordings.SUM_HELD, f"{sign}{more}")
            expression = f"{a} {sign} {b} {more} {c}"
            return self._sum("calc", self._style(frame.format(p=expression)), expression, wording, (a, b))
        question, wording = self._sum_question(sign, a, b)
        return self._sum("calc", question, f"{a} {sign} {b}", wording, (a, b))

    def _sum_question(self, sign: str, a: str, b: str) -> tuple[str, str]:
        """A question for the sum of two numbers -> (question, wording)."""
        held = self.held_out and self.rng.random() < 0.3
        inner = self.rng.choice((wordings.SUMS_HELD if held else wordings.SUMS)[sign])
        frame, wording = self._compose(wordings.SUM, wordings.SUM_HELD, inner)
        if sign == "+" and inner.startswith("{b}"):            # "8 more than 5": the call names 8 first, as the question does
            inner = inner.replace("{b}", "\0").replace("{a}", "{b}").replace("\0", "{a}")
        return self._style(frame.format(p=inner.format(a=a, b=b))), wording

    def _sum(self, category: str, question: str, expression: str, wording: str, parts: tuple[str, ...]) -> Example:
        call = f"calc({expression})"
        said = run_tool(call, {"calc": calc})
        answer = CANNOT if said.startswith("error") else said
        return Example(category, question, (Round(CALC_THOUGHT, call, said),), answer, (), wording, parts)

    def _error(self) -> Example:
        """A sum that the calculator refuses: division by zero."""
        while not self._mine(a := self._number(), "0"):
            pass
        question, wording = self._sum_question("/", a, "0")
        return self._sum("error", question, f"{a} / 0", wording, (a, "0"))

    def _fact(self) -> Example:
        relation = self.rng.choice(list(self.by_relation)) if self.rng.random() < 0.3 else None
        fact = self.rng.choice(self.by_relation[relation] if relation else self.facts)
        return self._lookup("fact", fact, self.knowledge, ())

    def _made_up(self) -> Example:
        fact = self._made_up_fact()
        return self._lookup("made_up", fact, Knowledge([fact]), (fact,))

    def _miss(self) -> Example:
        relation, subject, _ = self._made_up_fact()
        return self._lookup("miss", (relation, subject, ""), self.knowledge, ())

    def _lookup(self, category: str, fact: tuple[str, str, str], knowledge: Knowledge, facts: tuple) -> Example:
        relation, subject, _ = fact
        question, query, wording = self._ask(relation, subject)
        call = f"lookup({query})"
        said = run_tool(call, {"lookup": knowledge.lookup})
        answer = MISS if said == NOTHING_FOUND else said
        return Example(category, question, (Round(LOOKUP_THOUGHT, call, said),), answer, facts, wording, (relation, subject))

    def _two_step(self) -> Example:
        if self.rng.random() < 0.5:
            relation, subject, value = self.rng.choice(self.numeric)
            knowledge, facts = self.knowledge, ()
        else:
            _, subject, _ = self._made_up_fact()
            relation = self.rng.choice([*COUNTED, *sorted({relation for relation, _, _ in self.numeric})])
            value = str(self.rng.randint(1, 9999)) + self.rng.choice(["", "", " km", " m", " days"])
            facts = ((relation, subject, value),)
            knowledge = Knowledge(facts)
        held = self.held_out and self.rng.random() < 0.3
        inner, expression = self.rng.choice(wordings.TWO_STEP_HELD if held else wordings.TWO_STEP)
        frame, wording = self._compose(wordings.SUM, wordings.SUM_HELD, inner)
        while True:
            n = str(self.rng.randint(1, 10 ** self.rng.randint(1, 3)))
            if self._mine(subject, n):
                break
        question, (query,) = self._styled(frame.format(p=inner.format(p="\0", n=n)), [self._phrase(relation, subject)])
        first = Round(NUMBER_THOUGHT, f"lookup({query})", run_tool(f"lookup({query})", {"lookup": knowledge.lookup}))
        number = re.match(r"\d+", first.observation)
        if not number:                                         # near spellings may hide a made-up name: an honest miss
            return Example("two_step", question, (first,), MISS, facts, wording, (subject, n))
        call = f"calc({expression.format(v=number.group(), n=n)})"
        second = Round(NOW_CALC_THOUGHT, call, run_tool(call, {"calc": calc}))
        return Example("two_step", question, (first, second), second.observation, facts, wording, (subject, n))

    def _small_talk(self) -> Example:
        intent, say, answer = self.rng.choice(self.small)
        return Example("small_talk", self._style(self._padded(say)), (), answer, (), say, (intent,))

    def _refuse(self) -> Example:
        say = self.rng.choice(self.refusals)
        return Example("refuse", self._style(self._padded(say)), (), wordings.REFUSAL, (), say)

    def _padded(self, say: str) -> str:
        """Small talk as people lead into it or trail off."""
        opener, closer, ends = self.rng.choice(wordings.OPENERS), self.rng.choice(wordings.CLOSERS), say.rstrip("?.! ")
        return opener + (ends[:1].lower() if opener else ends[:1]) + ends[1:] + closer + say[len(ends):] if ends else say

    # -- wording -------------------------------------------------------------------------------------------------

    def _phrase(self, relation: str, subject: str) -> str:
        """"capital" and "France" as people say it: "capital of France"."""
        link = "in" if relation in IN and self.rng.random() < 0.6 else "of"
        return f"{relation} {link} {self._article(relation, subject)}{subject}"

    def _article(self, relation: str, subject: str) -> str:
        """The article that people may put before a thing."""
        may = relation not in BARE and subject[:1].islower() and not subject.startswith(("the ", "a "))
        return self.rng.choice(["the ", "the ", "a ", ""]) if may else ""

    def _ask(self, relation: str, subject: str) -> tuple[str, str, str]:
        """A question for a fact -> (question, the query for lookup, the wording)."""
        deed = next((deed for deed in wordings.DEEDS if deed[0] == relation), None)
        kind = self.rng.random()
        if kind < 0.45:
            core, wording = self._compose(wordings.PHRASE, wordings.PHRASE_HELD, relation)
            question, (phrase,) = self._styled(core.replace("{p}", "\0"), [self._phrase(relation, subject)])
            return question, phrase, wording
        if deed and kind < 0.9:
            core, wording = self._compose(wordings.DEED, wordings.DEED_HELD, relation)
            core = core.replace("{v}", deed[1]).replace("{w}", deed[2])
        elif relation in wordings.OWN and kind < 0.8:
            core, wording = self._compose(wordings.OWN[relation], (), relation)
        else:
            core, wording = self._compose(wordings.OWNER, wordings.OWNER_HELD, relation)
        article = "" if "{s}'s" in core else self._article(relation, subject)
        question, (name,) = self._styled(core.replace("{r}", relation).replace("{s}", "\0"), [article + subject])
        return question, f"{relation} of {name}", wording

    def _styled(self, wording: str, slots: list[str]) -> tuple[str, list[str]]:
        """Fill the slots (each a NUL) and type the question as some person would -> (question, the slots as typed)."""
        styled = self._style(wording)
        if styled.isupper():
            slots = [slot.upper() for slot in slots]
        elif styled == styled.lower() and self.rng.random() < 0.7:
            slots = [slot.lower() for slot in slots]
        question = styled
        for slot in slots:
            question = question.replace("\0", slot, 1)
        if quiet(question) != question:                        # the model sees it in small letters, and copies that
            slots = [slot.lower() for slot in slots]
        return question, slots

    def _style(self, text: str) -> str:
        """Capitals, end marks and politeness as people vary them."""
        roll = self.rng.random()
        if roll < 0.15:
            text = text.lower()
        elif roll < 0.22:
            text = text.upper()
        elif roll < 0.28:
            text = text[:1].upper() + text[1:]
        roll = self.rng.random()
        if roll < 0.10:
            text = text.rstrip("?.!")
        elif roll < 0.13:
            text = text.rstrip("?.!") + self.rng.choice([" ?", "??", "!"])
        return text

    # -- made-up names -------------------------------------------------------------------------------------------

    def _made_up_fact(self) -> tuple[str, str, str]:
        """A relation, a name that exists nowhere, and a value, which may be a name, a number or both."""
        relation = self.rng.choice(SPECIAL if self.rng.random() < 0.6 else
                                   [*ODD_RELATIONS, *sorted(self.by_relation)])
        while True:
            subject = made_up_name(self.rng)
            if self._mine(subject):
                break
        roll = self.rng.random()
        value = (made_up_name(self.rng) if roll < 0.6 else str(self.rng.randint(1, 99999)) if roll < 0.8
                 else f"{self.rng.randint(1, 9999)} {self.rng.choice(['m', 'km', 'kg', 'days', 'euros', 'years'])}")
        return relation, subject, value


# How often each category is drawn for training.
MIX = {"calc": 0.19, "fact": 0.15, "made_up": 0.16, "miss": 0.05, "two_step": 0.16, "error": 0.01, "small_talk": 0.18,
       "refuse": 0.10}


def draw(generator: Generator, count: int) -> list[Example]:
    """Examples in the training mixture, in random order."""
    categories = generator.rng.choices(list(MIX), weights=list(MIX.values()), k=count)
    return [generator.trace(category) for category in categories]
