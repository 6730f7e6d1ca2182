"""How people ask: the parts from which traces.py composes its questions.

Use:         traces.Generator draws from these lists; python build_data.py --show 20 shows what comes out

A question is an opener, a core and a closer: "Excuse me, " + "what is the capital of {s}?" + " please". Training and
evaluation share the parts but not what is made of them:
 - one composed wording in five, chosen by a hash of its text, is held out, and so is one pair in eight of a core and a
   relation ("By whom was {s} painted?" may never be trained, while "By whom was {s} written?" is);
 - the cores in the HELD lists are never trained in any form.

Slots: {p} a noun phrase such as "capital of France"; {s} its subject, {r} its relation; {a} and {b} numbers; {n} a number.
"""

OPENERS = [*[""] * 40, "Hello, ", "Hi, ", "Hey, ", "Please, ", "So, ", "Excuse me, ", "Quick question: ", "Tell me, ",
           "And ", "Okay, ",
           "Good morning. ", "I have a question: ", "Can you help? ", "Now, ", "Well, ", "Hi there! ", "Another one: ",
           "Help me: ",
           "Thanks. ", "Next: "]
CLOSERS = [*[""] * 30, " please", ", please", " exactly", " then", ", thanks", " for me", " if you know", " right now",
           " again",
           ", my friend", ", agent", " today", ", thank you"]

# Around a whole phrase: the action repeats the phrase as it stands.
PHRASE = [
    "What is the {p}?", "What's the {p}?", "What is the {p}", "Tell me the {p}.", "Tell me the {p}", "{p}", "{p}?",
    "The {p}?",
    "the {p}", "Do you know the {p}?", "I need the {p}.", "Can you tell me the {p}?", "Give me the {p}.", "Find the {p}.",
    "Look up the {p}.", "look up {p}", "I want to know the {p}.", "Could you find the {p}?", "What would be the {p}?",
    "Say the {p}.",
    "I am looking for the {p}.", "What was the {p}?", "Can you look up the {p}?", "Name the {p}.", "Please name the {p}.",
    "Which is the {p}?", "I forgot the {p}.", "Show me the {p}.", "Would you tell me the {p}?", "whats the {p}",
    "Help me with the {p}.", "Any idea what the {p} is?", "Tell me what the {p} is.",
    "Do you happen to know what the {p} is?",
    "What do you call the {p}?", "I would like to know what the {p} is.", "The {p} is what?", "Remind me of the {p}.",
    "Who or what is the {p}?", "Can you find out what the {p} is?", "Find the {p} for us.", "I wonder about the {p}.",
    "Can I have the {p}?", "Let us find the {p}.", "What exactly is the {p}?", "Do we know the {p}?",
    "I'd like to know the {p}.",
    "Would you know what the {p} was?", "Is the {p} known to you?", "the {p} is needed", "Could I have the {p} now?",
    "Find out the {p}.", "Search for the {p}.", "What might the {p} be?", "I must know the {p}.", "Please give me the {p}.",
    "Could you look up the {p}?", "Can you say what the {p} is?", "I do not know the {p}.", "Let me hear the {p}.",
]
PHRASE_HELD = ["Could you tell me the {p}?", "Please tell me the {p}.", "I wonder what the {p} is.", "Let me know the {p}.",
               "Can you name the {p}?", "I'd like the {p}.", "Do you know what the {p} is?", "Please look up the {p}."]

# With the owner in front; for every relation.
OWNER = [
    "What is {s}'s {r}?", "What's {s}'s {r}?", "{s}'s {r}?", "{s}'s {r}", "Tell me {s}'s {r}.", "Do you know {s}'s {r}?",
    "I need {s}'s {r}.",
    "Give me {s}'s {r}.", "{s} has which {r}?", "Which {r} does {s} have?", "Find {s}'s {r}.", "Can you name {s}'s {r}?",
    "What {r} has {s}?", "Look up {s}'s {r}.", "What {r} does {s} have?", "I'd like to know {s}'s {r}.",
    "{s}: what is its {r}?",
    "Which {r} belongs to {s}?", "Show me {s}'s {r}.", "Is {s}'s {r} known?", "What was {s}'s {r}?", "Say {s}'s {r}.",
    "Name {s}'s {r}.", "Name the {r} that {s} has.", "Could you tell me {s}'s {r}?",
]
OWNER_HELD = ["Can you tell me {s}'s {r}?", "Please name {s}'s {r}.", "Which {r} has {s}?"]

# Somebody did something: (relation, past, participle); {v} and {w} stand for the two forms.
DEEDS = [("author", "wrote", "written"), ("painter", "painted", "painted"), ("composer", "composed", "composed"),
         ("inventor", "invented", "invented"), ("discoverer", "discovered", "discovered"), ("sculptor", "carved", "carved"),
         ("architect", "designed", "designed"), ("creator", "created", "created"), ("founder", "founded", "founded")]
DEED = [
    "Who {v} {s}?", "who {v} {s}", "Who is the {r} of {s}?", "By whom was {s} {w}?", "Which person {v} {s}?",
    "{s} was {w} by whom?",
    "Tell me who {v} {s}.", "Do you know who {v} {s}?", "Who was {s} {w} by?", "Can you tell me who {v} {s}?",
    "Who first {v} {s}?",
    "Which {r} {v} {s}?", "Who was it that {v} {s}?", "I want to know who {v} {s}.", "Find out who {v} {s}.",
    "The one who {v} {s}?",
    "Somebody {v} {s}: who?", "Can you say who {v} {s}?", "I forgot who {v} {s}.", "What is the name of the {r} of {s}?",
    "Who was the {r} of {s}?", "Name the {r} who {v} {s}.", "Was {s} {w} by somebody known?",
]
DEED_HELD = ["Please tell me who {v} {s}.", "Could you say who {v} {s}?", "Who might have {w} {s}?"]

# Words of its own for one relation.
OWN = {
    "capital": ["Which city is the capital of {s}?", "What city is the capital of {s}?",
    "Which town is the capital of {s}?",
                "What is the capital city of {s}?", "Which city is {s}'s capital?", "What's {s}'s capital city?",
                "Which city governs {s}?"],
    "currency": ["What money do they use in {s}?", "How do people pay in {s}?", "Which currency does {s} use?",
                 "What do they pay with in {s}?", "What currency is used in {s}?", "Which money is used in {s}?",
                 "What money do people have in {s}?", "With what do you pay in {s}?"],
    "language": ["What language do they speak in {s}?", "Which language is spoken in {s}?", "What do people speak in {s}?",
                 "What is the main language in {s}?", "How do people talk in {s}?", "What language is spoken in {s}?",
                 "Which language do people speak in {s}?", "In {s}, what do they speak?"],
    "continent": ["Which continent is {s} in?", "What continent is {s} on?", "On which continent is {s}?",
    "Where in the world is {s}?",
                  "{s} is on which continent?", "Where is {s}?", "In which part of the world is {s}?",
                  "In which continent is {s}?",
                  "Which continent is {s} on?"],
    "symbol": ["How do chemists write {s}?", "Which symbol stands for {s}?", "What is the chemical symbol of {s}?",
               "Which letters stand for {s}?", "What is the chemical symbol for {s}?", "What letters stand for {s}?"],
    "atomic number": ["How many protons does {s} have?", "Which number is {s} in the periodic table?",
    "How many protons are in {s}?",
                      "What number of protons does {s} have?", "How many protons has {s}?"],
    "height": ["How high is {s}?", "How tall is {s}?", "Tell me how high {s} is.", "How many metres high is {s}?",
               "Do you know how high {s} is?", "How high exactly is {s}?", "How high is {s} in metres?",
               "Tell me how tall {s} is."],
    "length": ["How long is {s}?", "Tell me how long {s} is.", "How many kilometres long is {s}?",
    "Do you know how long {s} is?",
               "How long is {s} in kilometres?", "How long exactly is {s}?", "Can you tell me how long {s} is?"],
    "formula": ["How do chemists write {s} as a formula?", "What is the chemical formula of {s}?",
    "Which formula stands for {s}?",
                "What is {s} made of, as a formula?"],
    "young": ["What is a baby {s} called?", "What do you call a baby {s}?", "What is a young {s} called?",
    "What do we call a young {s}?",
              "How do you call a baby {s}?"],
}

# Sums: operator -> how two numbers are put together.
SUMS = {
    "+": ["{a} plus {b}", "{a} + {b}", "{a}+{b}", "{a} and {b} together", "the sum of {a} and {b}", "{a} added to {b}",
          "{a} with {b} added", "{a} increased by {b}", "{a} more than {b}", "{a} and {b} added up", "{a} and {b} in all",
          "the total if you add {a} and {b}", "{a} and {b} in total", "the sum of {a} with {b}", "{a} and then {b} more",
          "the total of {a} and {b}", "{a} if you add {b}", "{b} more than {a}"],
    "-": ["{a} minus {b}", "{a} - {b}", "{a}-{b}", "{a} less {b}", "{a} take away {b}",
    "the difference between {a} and {b}",
          "{a} reduced by {b}", "{a} without {b}", "{a} if you take away {b}", "{a} decreased by {b}",
          "the difference of {a} and {b}",
          "{a} with {b} taken away", "{a} if {b} is taken away", "the difference from {a} to {b}", "{b} less than {a}",
          "{b} taken from {a}", "{a} if you take {b} away", "{a} when reduced by {b}"],
    "*": ["{a} times {b}", "{a} * {b}", "{a}*{b}", "{a} x {b}", "{a} multiplied by {b}", "the product of {a} and {b}",
          "{a} multiplied with {b}", "{a} lots of {b}", "{a} groups of {b}", "the product if you multiply {a} and {b}",
          "{a} and {b} multiplied", "the product from {a} and {b}", "{a} if you multiply it by {b}",
          "the product of {a} with {b}"],
    "/": ["{a} divided by {b}", "{a} / {b}", "{a}/{b}", "{a} over {b}", "the quotient of {a} and {b}", "{a} split by {b}",
          "{a} shared by {b}", "{a} in {b} equal parts", "{a} split into {b} groups", "{a} divided among {b}",
          "{a} if you divide it by {b}", "{a} divided into {b} parts", "{a} shared among {b}"],
}
SUMS_HELD = {"+": ["{a} with {b} added to it", "the sum if you add {a} and {b}"], "-": ["{a} with {b} taken off",
                   "{a} if reduced by {b}"],
             "*": ["{a} and {b} multiplied together", "{a} if multiplied by {b}"], "/": ["{a} split into {b} equal parts",
             "{a} if divided by {b}"]}

# Around a sum {p}.
SUM = [
    "What is {p}?", "What's {p}?", "{p}", "{p} = ?", "{p} =", "{p}?", "Calculate {p}.", "calculate {p}",
    "How much is {p}?", "Compute {p}.",
    "What does {p} make?", "Tell me {p}.", "Work out {p}.", "Please work out {p}.", "Can you calculate {p}?",
    "Can you work out {p}?",
    "I need {p}.", "What do you get for {p}?", "Give me {p}.", "What is {p}", "whats {p}", "How many is {p}?", "solve {p}",
    "Solve {p}.",
    "What is the value of {p}?", "What is the result of {p}?", "Do you know what {p} is?", "Please tell me what {p} is.",
    "My homework says {p}.", "So how much is {p}?", "{p} is what?", "{p} makes what?", "Find {p}.", "What would {p} be?",
    "What does {p} equal?", "{p} equals", "What does {p} come out at?", "Could you find {p}?", "Find out what {p} makes.",
    "How much does {p} come to?", "{p} comes to what?", "Can you tell me {p}?", "I would like to know what {p} is.",
    "Is it hard to work out {p} in your head?", "{p} is how much?", "Find out how much {p} is.", "What does {p} come to?",
    "Can you compute {p}?", "{p} equals what?", "Could you calculate {p}?", "Say how much {p} is.", "What will {p} be?",
]
SUM_HELD = ["Could you work out {p}?", "Please calculate {p}.", "Tell me what {p} is.", "How much would {p} be?",
            "Please compute {p}.",
            "Can you say what {p} makes?"]

# A number from the knowledge base, then a sum: (wording, expression), {v} the value that was looked up.
TWO_STEP = [
    ("the {p} plus {n}", "{v} + {n}"), ("{n} plus the {p}", "{n} + {v}"), ("the {p} minus {n}", "{v} - {n}"),
    ("{n} minus the {p}", "{n} - {v}"), ("the {p} times {n}", "{v} * {n}"), ("{n} times the {p}", "{n} * {v}"),
    ("the {p} divided by {n}", "{v} / {n}"), ("the {p} + {n}", "{v} + {n}"), ("the {p} - {n}", "{v} - {n}"),
    ("the {p} * {n}", "{v} * {n}"), ("the sum of the {p} and {n}", "{v} + {n}"), ("{n} + the {p}", "{n} + {v}"),
    ("the product of the {p} and {n}", "{v} * {n}"), ("the {p} multiplied by {n}", "{v} * {n}"),
    ("{n} added to the {p}", "{n} + {v}"), ("the {p} reduced by {n}", "{v} - {n}"), ("the {p} less {n}", "{v} - {n}"),
    ("the {p} with {n} added", "{v} + {n}"), ("the {p} if {n} is taken away", "{v} - {n}"), ("the {p} and {n} together",
    "{v} + {n}"), ("the {p} over {n}", "{v} / {n}"),
    ("the {p} and {n} in total", "{v} + {n}"), ("the {p} if you take away {n}", "{v} - {n}"),
    ("the {p} increased by {n}", "{v} + {n}"), ("the {p} x {n}", "{v} * {n}"), ("{n} x the {p}", "{n} * {v}"),
    ("the {p} take away {n}", "{v} - {n}"), ("the total of the {p} and {n}", "{v} + {n}"), ("the {p} decreased by {n}",
    "{v} - {n}"),
    ("{n} multiplied with the {p}", "{n} * {v}"), ("the {p} / {n}", "{v} / {n}"), ("the {p}, plus {n}", "{v} + {n}"),
    ("the {p} if you add {n}", "{v} + {n}"), ("the {p} multiplied with {n}", "{v} * {n}"),
    ("the {p} if you multiply it by {n}", "{v} * {n}"),
    ("the sum of {n} and the {p}", "{n} + {v}"),
]
TWO_STEP_HELD = [("{n} multiplied by the {p}", "{n} * {v}"), ("the {p} with {n} taken away", "{v} - {n}"),
                 ("the product of {n} and the {p}", "{n} * {v}"), ("the total of {n} and the {p}", "{n} + {v}")]

# What the agent says where it can do nothing; the wordings are in data/refusals.txt.
REFUSAL = "I cannot do that. I can calculate and look up facts."
