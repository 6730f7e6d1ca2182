"""Names that exist nowhere, from which the agent learns to copy what it has never seen.

Use:         made_up_name(random.Random(1))
"""

import random
import re
import string
from collections import Counter
from functools import cache

import tokenizer

SYLLABLES = ("ba be bi bo bu ka ke ki ko ku da de di do du fa fe fi fo ga ge go gu ha he hi ho la le li lo lu ma me mi mo mu "
             "na ne ni no nu pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo wa we ya yo za ze zi zo "
             "bran dor fel gar hol jin kar len mor nar ost pel quin rys sol tar ulm ven wick yar zan thal shi cho").split()


@cache
def corpus_words() -> list[str]:
    """The words of the corpus that stand in it at least twice, for names such as "Silver Harbour"."""
    counts = Counter(re.findall(r"[a-z]{3,}", tokenizer.corpus_text()))
    return sorted(word for word, count in counts.items() if count > 1)


def made_up_name(rng: random.Random) -> str:
    """A made-up name of one to three words (syllables, English words, random letters, or a mixture), or a title."""
    if rng.random() < 0.07:
        words = rng.choices(corpus_words(), k=rng.choice([1, 2, 2, 3]))
        links = [rng.choice([" of the ", " and the ", " of ", " in the ", " and ", " to "]), *[" "] * 3]
        title = "".join(word.capitalize() + link for word, link in zip(words, links, strict=False)).strip()
        title = title.removesuffix(" of the").removesuffix(" of").removesuffix(" and the").removesuffix(" and")
        return rng.choice(["The ", "", ""]) + title.removesuffix(" in the").removesuffix(" to")
    words = [made_up_word(rng) for _ in range(rng.choice([1, 1, 1, 1, 2, 2, 2, 3]))]
    name = " ".join(words)
    if rng.random() < 0.04:
        name = name.replace(" ", "-")
    return name.lower() if rng.random() < 0.06 else name


def made_up_word(rng: random.Random) -> str:
    """One word of a name: syllables, an English word, random letters, or a number."""
    kind = rng.random()
    if kind < 0.45:
        word = "".join(rng.choice(SYLLABLES) for _ in range(rng.choice([1, 2, 2, 3, 3, 4])))
    elif kind < 0.75:
        word = rng.choice(corpus_words())
    elif kind < 0.95:
        word = "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, 7)))
    else:
        return str(rng.randint(1, 999))
    return word[:1].upper() + word[1:]
