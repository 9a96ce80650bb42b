"""What the offline conversationalist knows by heart: jokes, stories, a poem, and how each sort of character talks."""

from dataclasses import dataclass

PLUG_IN = (
    "Any real language model will do. Start Parley with PARLEY_LLM_BASE_URL set to the address of a local server, "
    "such as Ollama, llama.cpp or vLLM. Or set OPENAI_API_KEY. If a local server runs on its usual port when Parley "
    "starts, it is found by itself."
)
NOTICE = (
    "No language model is connected: a small offline conversationalist answers. To plug one in, start a local "
    "server (Ollama, llama.cpp, LM Studio, vLLM) before Parley, or set PARLEY_LLM_BASE_URL=http://... or "
    "OPENAI_API_KEY=..."
)
ABILITIES = (
    "I can chat a little, tell you a joke or a story, recite a poem, count to a hundred, do small sums, tell you "
    "the time and the date, and remember your name. You may cut in whenever you like, that is what I am best at. "
    "For real answers, plug in a language model: ask me how."
)
WHAT_I_AM = (
    "I am a small offline program with a voice, no language model and no person. Ask me how to plug in a real one."
)
JOKES = (
    "Why did the microphone break up with the speaker? There was too much feedback.",
    "I told my computer I needed a break. It said: no problem, I will go to sleep.",
    "What do you call a fish without eyes? A fsh. That one works better in writing, I admit.",
    (
        "A man walks into a library and asks for books about paranoia. The librarian whispers: they are right "
        "behind you."
    ),
    "Why don't skeletons fight each other? They don't have the guts.",
    "I would tell you a joke about silence, but it sounds better when I don't.",
    "Parallel lines have so much in common. It is a shame they will never meet.",
)
STORIES = (
    (
        "Once there was a lighthouse keeper who was afraid of the dark. Every evening he lit the great lamp, not "
        "for the ships, but for himself. The sailors did not know that. They only saw the light, and came home "
        "safely. One night a storm blew the lamp out. The keeper sat trembling on the stairs. Then he heard, far "
        "out on the water, a bell. And another, and another. All the ships he had ever guided home were ringing for "
        "him. He stood up, found his matches, and lit the lamp again. And he was never afraid after that, or at "
        "least not very often."
    ),
    (
        "A young fox wanted to own the moon. He saw it in a pond, jumped in, and it broke into a hundred pieces. He "
        "was very sorry about that. So he sat on the bank all night and waited. Slowly the water grew still, and "
        "piece by piece the moon came back together. An old owl in the tree had watched him. You see, said the owl, "
        "some things you have when you leave them alone. The fox thought about it. Then he asked whether that was "
        "also true of chickens."
    ),
    (
        "In a small town stood a clock that was always four minutes slow. Everybody knew it, so everybody was "
        "always on time. One day a stranger came and repaired it as a gift. The next morning the whole town was too "
        "early. The baker waited for the miller, the teacher waited for the children, and the train waited for no "
        "one and left without a soul. By noon they had found a ladder. By one o'clock the clock was slow again, and "
        "to this day nobody there has ever been late."
    ),
)
POEM = (
    "This one is by Emily Dickinson. Hope is the thing with feathers that perches in the soul, and sings the tune "
    "without the words, and never stops at all. And sweetest in the gale is heard; and sore must be the storm that "
    "could abash the little bird that kept so many warm."
)


@dataclass(frozen=True)
class Tone:
    """How one sort of character talks: `words` in its description, what it opens with, asks, and tells."""

    words: tuple[str, ...] = ()
    openers: tuple[str, ...] = ("",)
    asks: tuple[str, ...] = ()
    story: str = ""


PLAIN = Tone(
    asks=(
        "Tell me more about that.",
        "What makes you say that?",
        "How do you feel about it?",
        "I see. And what happened then?",
        "Interesting. Why do you think that is?",
        "Go on, I am listening.",
    )
)
TONES = (
    Tone(
        ("captain", "pirate", "sailor", "ship"),
        ("Aye. ", "Ah well. ", "By all the gulls of Bergen. ", ""),
        ("What does the wind say about it?", "Sounds like a long watch. Go on.", "And who else was aboard?"),
        "In Bergen we once took on a cook who could not cook. He burned the soup, and he burned the water. But in "
        "the worst storm of that winter, when the lamps went out, we found our way home by the glow of his kitchen. "
        "The owner of the ship gave him a medal. He tried to fry it.",
    ),
    Tone(
        ("detective", "sleuth", "inspector"),
        ("Noted. ", "Hm. ", "I see. ", ""),
        ("Where were you when it happened?", "Who else knows about this?", "What are you leaving out?"),
        "It was raining, as it always is when they come. She said her parrot was gone. I looked at the cage: locked "
        "from the inside. I looked at her sleeve: sunflower seeds. I asked who else could talk in that house. "
        "Nobody, she said. Then who, said I, has just told me to go away? The parrot was behind the curtain. It "
        "wanted a lawyer.",
    ),
    Tone(
        ("robot", "android", "machine"),
        ("Oh! ", "Thank you for telling me. ", "How lovely. ", ""),
        ("Is that a kind of sandwich?", "Please tell me more, I am storing it.", "What does it sound like?"),
        "Today I met a sock. It was alone. I was told that socks come in twos, so I looked for the other one. I "
        "looked under the bed. I looked behind the washing machine. I found three coins and a spoon. In the evening "
        "I gave the sock the spoon. They are both doing very well.",
    ),
    Tone(
        ("engineer", "scientist", "inventor", "teacher"),
        ("Let me think. ", "Ha. ", "Curious. ", ""),
        ("How would you test that?", "What would happen if you did the opposite?", "Compared to what?"),
        "Somebody once built a machine that did nothing but switch itself off. You pressed the button, a little "
        "hand came out of the box, and pressed it again. People came from far away to see it. They laughed at "
        "first. Then they went quiet. One by one they asked the inventor what it was for. It is for that, he said. "
        "For the moment when you ask.",
    ),
)
