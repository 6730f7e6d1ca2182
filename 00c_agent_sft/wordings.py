"""How people ask: the wordings from which traces.py makes its questions, for training and held out.

Every pair of lists is (training, held out). A held-out wording is never drawn in training: what the model gets right
there it has understood, not memorised.

Slots: {p} a noun phrase such as "capital of France"; {s} its subject; {a} and {b} numbers; {n} a number.
"""

Split = tuple[list[str], list[str]]

# Around a whole phrase: the action repeats the phrase as it stands.
PHRASE: Split = (
    ["What is the {p}?", "What's the {p}?", "What is the {p}", "Tell me the {p}.", "Tell me the {p}", "{p}", "{p}?", "The {p}?",
     "the {p} please", "Do you know the {p}?", "I need the {p}.", "Can you tell me the {p}?", "Give me the {p}.",
     "Find the {p}.", "Look up the {p}.", "look up {p}", "I want to know the {p}.", "Could you find the {p}?",
     "What would be the {p}?", "Say the {p}.", "I am looking for the {p}.", "Hello, what is the {p}?",
     "Hi, can you look up the {p}?", "Name the {p}.", "Please name the {p}.", "Which is the {p}?", "and the {p}?",
     "So what is the {p}?", "My teacher asked for the {p}.", "I forgot the {p}.", "Show me the {p}.",
     "Would you tell me the {p}?", "whats the {p}", "Help me with the {p}.", "Any idea what the {p} is?",
     "Tell me what the {p} is.", "Do you happen to know what the {p} is?", "What do you call the {p}?",
     "I would like to know what the {p} is.", "The {p} is what?", "Remind me of the {p}.",
     "Who or what is the {p}?", "Can you find out what the {p} is?", "Quick question: what is the {p}?",
     "Find the {p} for me.", "Look up the {p} for us, please.", "I wonder about the {p}.", "Excuse me, can I have the {p}?",
     "Let us find the {p}.", "What exactly is the {p}?", "Do we know the {p}?", "I'd like to know the {p}, thank you.",
     "Would you know what the {p} was?", "Is the {p} known to you?", "the {p} is needed", "Please could I have the {p} now?"],
    ["Could you tell me the {p}?", "Please tell me the {p}.", "I wonder what the {p} is.", "Let me know the {p}.",
     "Can you name the {p}?", "Find out the {p} for me.", "Excuse me, what is the {p}?", "I'd like the {p}, please.",
     "Do you know what the {p} is?", "Please look up the {p}."],
)

# Wordings that belong to one relation: (relation, training, held out).
SPECIAL: list[tuple[str, list[str], list[str]]] = [
    ("capital",
     ["Which city is the capital of {s}?", "What city is the capital of {s}?", "{s}'s capital?", "What is {s}'s capital?",
      "Which town is the capital of {s}?", "Tell me {s}'s capital.", "{s} has which capital?", "{s} capital"],
     ["What's {s}'s capital city?", "Do you know {s}'s capital?", "Which city is {s}'s capital?"]),
    ("currency",
     ["What money do they use in {s}?", "How do people pay in {s}?", "What is {s}'s currency?", "Which currency does {s} use?",
      "What do they pay with in {s}?", "What currency is used in {s}?", "{s}'s currency?"],
     ["Which money is used in {s}?", "What currency do they have in {s}?", "Tell me {s}'s currency."]),
    ("language",
     ["What language do they speak in {s}?", "Which language is spoken in {s}?", "What do people speak in {s}?",
      "{s}'s language?", "What is {s}'s language?", "What is the main language in {s}?", "How do people talk in {s}?"],
     ["Which language do people speak in {s}?", "What language is spoken in {s}?", "Tell me {s}'s language."]),
    ("continent",
     ["Which continent is {s} in?", "What continent is {s} on?", "On which continent is {s}?", "Where in the world is {s}?",
      "{s} is on which continent?", "Where is {s}?", "In which part of the world is {s}?"],
     ["On what continent is {s}?", "Which continent is {s} on?", "In which continent is {s}?"]),
    ("symbol",
     ["What is {s}'s symbol?", "How do chemists write {s}?", "Which symbol stands for {s}?", "{s}'s chemical symbol?",
      "What is the chemical symbol of {s}?", "Which letters stand for {s}?", "What is the chemical symbol for {s}?"],
     ["Which symbol does {s} have?", "What letters stand for {s}?", "Tell me {s}'s symbol."]),
    ("atomic number",
     ["What atomic number does {s} have?", "How many protons does {s} have?", "{s}'s atomic number?",
      "What is {s}'s atomic number?", "Which number is {s} in the periodic table?", "How many protons are in {s}?"],
     ["Which atomic number has {s}?", "Tell me {s}'s atomic number.", "What number of protons does {s} have?"]),
    ("author",
     ["Who wrote {s}?", "Who is the author of {s}?", "By whom is {s}?", "who wrote {s}", "Which writer wrote {s}?",
      "Do you know who wrote {s}?", "{s} was written by whom?", "Tell me who wrote {s}.", "Whose book is {s}?"],
     ["Who was {s} written by?", "Can you tell me who wrote {s}?", "Which author wrote {s}?"]),
    ("painter",
     ["Who painted {s}?", "Who is the painter of {s}?", "Which artist painted {s}?", "{s} was painted by whom?",
      "Tell me who painted {s}.", "Do you know who painted {s}?", "who painted {s}"],
     ["Who was {s} painted by?", "Can you tell me who painted {s}?", "Which painter painted {s}?"]),
    ("composer",
     ["Who composed {s}?", "Who wrote the music of {s}?", "Who is the composer of {s}?", "{s} was composed by whom?",
      "Tell me who composed {s}.", "Which composer wrote {s}?", "who composed {s}"],
     ["Who was {s} composed by?", "Can you tell me who composed {s}?", "Which composer composed {s}?"]),
    ("inventor",
     ["Who invented {s}?", "Who is the inventor of {s}?", "{s} was invented by whom?", "Tell me who invented {s}.",
      "Who came up with {s}?", "Do you know who invented {s}?", "who invented {s}", "Which inventor made {s}?"],
     ["Who was {s} invented by?", "Can you tell me who invented {s}?", "Who first invented {s}?"]),
    ("discoverer",
     ["Who discovered {s}?", "Who found {s}?", "{s} was discovered by whom?", "Tell me who discovered {s}.",
      "Do you know who discovered {s}?", "who discovered {s}"],
     ["Who was {s} discovered by?", "Can you tell me who discovered {s}?", "Who first discovered {s}?"]),
    ("height",
     ["How high is {s}?", "How tall is {s}?", "What is {s}'s height?", "Tell me how high {s} is.", "how tall is {s}",
      "How many metres high is {s}?", "Do you know how high {s} is?",
      "How high exactly is {s}?", "How high is {s} in metres?", "How high is {s} really?"],
     ["Can you tell me how high {s} is?", "How high is {s} exactly?", "Tell me how tall {s} is."]),
    ("length",
     ["How long is {s}?", "What is {s}'s length?", "Tell me how long {s} is.", "how long is {s}",
      "How many kilometres long is {s}?", "Do you know how long {s} is?",
      "How far does {s} flow?", "How long is {s} in kilometres?", "How long exactly is {s}?", "How long does {s} run?"],
     ["Can you tell me how long {s} is?", "How long is {s} exactly?", "How far does {s} run?"]),
    ("formula",
     ["What is {s} made of, as a formula?", "How do chemists write {s} as a formula?", "What is {s}'s formula?",
      "What is the chemical formula of {s}?", "{s}'s formula?"],
     ["Tell me {s}'s formula.", "Which formula does {s} have?"]),
    ("young",
     ["What is a baby {s} called?", "What do you call a baby {s}?", "What is a young {s} called?", "{s}'s young?",
      "What do we call a young {s}?", "How do you call a baby {s}?"],
     ["What do you call a young {s}?", "What name has a baby {s}?"]),
]

# Sums: operator -> (training, held out).
SUMS: dict[str, Split] = {
    "+": (["{a} plus {b}", "{a} + {b}", "{a}+{b}", "{a} and {b} together", "the sum of {a} and {b}", "{a} added to {b}",
           "{a} with {b} added", "{a} increased by {b}", "{a} more than {b}", "{a} and {b} added up", "{a} and {b} in all",
           "the total if you add {a} and {b}", "{a} and {b} in total", "the sum of {a} with {b}", "{a} and then {b} more"],
          ["the total of {a} and {b}", "{a} with {b} added to it", "{a} plus another {b}"]),
    "-": (["{a} minus {b}", "{a} - {b}", "{a}-{b}", "{a} less {b}", "{a} take away {b}", "the difference between {a} and {b}",
           "{a} reduced by {b}", "{a} without {b}", "{a} if you take away {b}", "{a} decreased by {b}",
           "the difference if you take {a} and {b}", "{a} with {b} taken away", "the difference from {a} to {b}"],
          ["the difference of {a} and {b}", "{a} when you take away {b}", "{a} with {b} less"]),
    "*": (["{a} times {b}", "{a} * {b}", "{a}*{b}", "{a} x {b}", "{a} multiplied by {b}", "the product of {a} and {b}",
           "{a} multiplied with {b}", "{a} lots of {b}", "{a} groups of {b}", "the product if you multiply {a} and {b}",
           "{a} and {b} multiplied", "the product from {a} and {b}"],
          ["the product of {a} with {b}", "{a} and {b} multiplied together", "{a} if you multiply it by {b}"]),
    "/": (["{a} divided by {b}", "{a} / {b}", "{a}/{b}", "{a} over {b}", "the quotient of {a} and {b}", "{a} split by {b}",
           "{a} shared by {b}", "{a} in {b} equal parts", "{a} split into {b} groups", "{a} divided among {b}",
           "{a} if you divide it by {b}"],
          ["{a} split into {b} equal parts", "{a} divided into {b} parts", "{a} shared among {b}"]),
}

# Around a sum {p}.
SUM: Split = (
    ["What is {p}?", "What's {p}?", "{p}", "{p} = ?", "{p}?", "Calculate {p}.", "calculate {p}", "How much is {p}?",
     "Compute {p}.", "What does {p} make?", "Tell me {p}.", "Work out {p}.", "Please work out {p}.", "Can you calculate {p}?",
     "Can you work out {p}?", "I need {p}.", "What do you get for {p}?", "Give me {p}.", "What is {p}", "whats {p}",
     "How many is {p}?", "Hello, what is {p}?", "solve {p}", "Solve {p}.", "What is the value of {p}?", "What is the result of {p}?",
     "Do you know what {p} is?", "Please tell me what {p} is.", "My homework says {p}.", "So how much is {p}?",
     "{p} is what?", "{p} makes what?", "Quick question: what is {p}?", "Find {p}.", "and {p}?", "What would {p} be?",
     "What does {p} equal?", "{p} equals", "What does {p} come out at?", "Excuse me, how much is {p}?", "Could you find {p}?",
     "Find out what {p} makes.", "How much does {p} come to?", "{p} comes to what?", "Can you tell me {p}, please?",
     "I would like to know what {p} is, thanks.", "Is it hard to work out {p} in your head?", "{p} is how much?"],
    ["Could you work out {p}?", "Please calculate {p}.", "Tell me what {p} is.", "How much would {p} be?", "{p} equals what?",
     "Find out how much {p} is.", "What does {p} come to?", "Can you compute {p}?", "Excuse me, what is {p}?"],
)

# A number from the knowledge base, then a sum: (wording, expression), {v} the value that was looked up.
TWO_STEP: tuple[list[tuple[str, str]], list[tuple[str, str]]] = (
    [("the {p} plus {n}", "{v} + {n}"), ("{n} plus the {p}", "{n} + {v}"), ("the {p} minus {n}", "{v} - {n}"),
     ("{n} minus the {p}", "{n} - {v}"), ("the {p} times {n}", "{v} * {n}"), ("{n} times the {p}", "{n} * {v}"),
     ("the {p} divided by {n}", "{v} / {n}"), ("the {p} + {n}", "{v} + {n}"), ("the {p} - {n}", "{v} - {n}"),
     ("the {p} * {n}", "{v} * {n}"), ("the sum of the {p} and {n}", "{v} + {n}"), ("{n} + the {p}", "{n} + {v}"),
     ("the product of the {p} and {n}", "{v} * {n}"), ("the {p} multiplied by {n}", "{v} * {n}"),
     ("{n} added to the {p}", "{n} + {v}"), ("the {p} reduced by {n}", "{v} - {n}"), ("the {p} less {n}", "{v} - {n}"),
     ("the {p} with {n} added", "{v} + {n}"), ("the {p} and {n} together", "{v} + {n}"), ("the {p} over {n}", "{v} / {n}"),
     ("the {p} and {n} in total", "{v} + {n}"), ("the {p} if you take away {n}", "{v} - {n}"),
     ("the {p}, increased by {n}", "{v} + {n}"), ("the {p} x {n}", "{v} * {n}"), ("{n} x the {p}", "{n} * {v}")],
    [("the {p} increased by {n}", "{v} + {n}"), ("{n} multiplied by the {p}", "{n} * {v}"),
     ("the {p} take away {n}", "{v} - {n}"), ("the total of the {p} and {n}", "{v} + {n}")],
)

# What the agent cannot do.
REFUSE: Split = (
    ["Write a poem about the sea.", "Write me a song.", "Draw a picture of a horse.", "Paint a house for me.",
     "What is the weather today?", "Will it rain tomorrow?", "How is the weather in Rome?", "Send an email to my boss.",
     "Call my mother.", "Phone the doctor.", "Order a pizza.", "Buy me a ticket to Rome.", "Book a table for two.",
     "What is the news today?", "Who won the game last night?", "What time is it?", "What time is it in Tokyo?",
     "What day is it today?", "Open the door.", "Turn on the light.", "Play some music.", "Play a song for me.",
     "Translate this letter into French.", "Translate my text.", "Write a letter to the bank.", "Write an essay about trees.",
     "Write a program in Python.", "Fix my computer.", "Write code that sorts a list.", "Make me a sandwich.",
     "Cook dinner for me.", "Clean my room.", "Drive me home.", "Where are my keys?", "Find my phone.", "Set an alarm for seven.",
     "Set a timer for ten minutes.", "Remind me to water the plants.", "Read me the newspaper.", "Show me a film.",
     "Show me a photo of a cat.", "Search the web for shoes.", "Google this for me.", "What will the lottery numbers be?",
     "Which stock should I buy?", "Tell me the future.", "Tell me a long story.", "Write a story about a dog.",
     "Summarise this book for me.", "Download a game.", "Delete my files.", "Take a photo of me.", "Sing a song.",
     "Dance for me.", "Do my homework.", "Write my homework for me.", "Mow the lawn.", "Feed the cat.", "Give me some money.",
     "Lend me ten euros.", "is it going to snow", "how warm is it outside", "write a poem", "draw me a cat",
     "make a plan for my holiday", "plan my trip to Spain", "What should I eat tonight?", "What should I wear today?",
     "Can you write a poem?", "Can you draw?", "Can you sing?", "Can you book a flight?", "Please send a message to Ann.",
     "Please write a speech.", "Could you order food?", "I want you to paint a picture."],
    ["Write a song about the moon.", "Draw a picture of a tree.", "What is the weather in Paris?", "Will it snow tomorrow?",
     "Book a flight to London.", "Play a film for me.", "Write a poem about a cat.", "Send a message to my sister.",
     "Order a taxi.", "Turn off the light.", "Write a letter to my teacher.", "Can you paint?", "Set an alarm for six.",
     "Translate this book.", "Cook lunch for me.", "Please write a story."],
)
REFUSAL = "I cannot do that. I can calculate and look up facts."
