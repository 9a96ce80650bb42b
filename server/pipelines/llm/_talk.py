"""Small talk by rules: a turn of the conversation in, an answer out. Pure, and the same for the same turn.

In the tradition of Weizenbaum's ELIZA (1966): patterns, and the user's own words turned around.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random

from server.pipelines.llm._numbers import said, summed, value
from server.pipelines.llm._parts import ABILITIES, JOKES, PLUG_IN, POEM, STORIES, WHAT_I_AM, Tone

_TURNED = {
    "i": "you", "me": "you", "my": "your", "mine": "yours", "myself": "yourself", "am": "are", "was": "were",
    "i'm": "you are", "i've": "you have", "i'd": "you would", "i'll": "you will", "we": "you", "our": "your",
    "us": "you", "you": "I", "your": "my", "yours": "mine", "yourself": "myself", "are": "am", "you're": "I am",
    "you've": "I have",
}  # fmt: skip
_FILLERS = re.compile(r"^(?:(?:well|so|and|but|oh|um|uh|okay|ok|please|hey|now|actually|yes|no|yeah)\b[ ,.!]*)+(?=\w)")


@dataclass(frozen=True)
class Turn:
    """What an answer is made from. `heard`: the user's words; `told`: what was answered before, oldest first."""

    heard: str
    told: Sequence[str]
    me: str
    user: str
    tone: Tone
    now: datetime
    chance: Random

    def fresh(self, choices: Sequence[str]) -> str:
        """One of `choices`, if there is one that was not said yet (an answer cut off was said as well)."""
        before = "\n".join(self.told)
        unused = [choice for choice in choices if choice[:24] not in before]
        return self.chance.choice(unused or list(choices))


def answer(turn: Turn) -> str:
    """What to say to `turn.heard`. Never raises, never empty."""
    heard = re.sub(r"\s+", " ", turn.heard.lower().replace("’", "'")).strip(" .,!?;:\"'")
    plain = _FILLERS.sub("", heard)
    for pattern, reply in _RULES:
        if found := pattern.search(plain) or pattern.search(heard):
            text = reply(turn, found) if callable(reply) else turn.fresh(reply)
            if text:
                return _filled(text, turn)
    return _filled(_anything(turn, plain), turn)


def _filled(text: str, turn: Turn) -> str:
    user = f", {turn.user}" if turn.user else ""
    return text.replace("{me}", turn.me or "your offline companion").replace("{,user}", user)


def _anything(turn: Turn, plain: str) -> str:
    if not plain:
        return turn.fresh(("I did not catch that. Could you say it again?", "Sorry, what was that?", "I am listening."))
    if not re.search("[a-z0-9]", plain):
        return "I am sorry, I only know English."
    if re.match(r"(what|who|where|when|why|how|which|can|could|do|does|did|is|are|will|would|should)\b", plain):
        return turn.fresh(
            (
                "I wish I knew. I only know a handful of things by heart; a real language model would know.",
                "That is beyond me: I am a small program without a language model. What do you think?",
                "Good question. I can't look it up. Ask me how to plug in a real model, and then ask again.",
            )
        )
    return turn.chance.choice(turn.tone.openers) + turn.fresh(turn.tone.asks)


def _turned(words: str) -> str:
    """The user's words from our side: "i love my cat" -> "you love your cat"."""
    turned = [_TURNED.get(word, word) for word in words.strip(" .,!?").split()[:14]]
    return " ".join(turned[:-1] + ["me" if word == "I" else word for word in turned[-1:]])


def _told_name(turn: Turn, found: re.Match[str]) -> str:
    return (
        turn.fresh((f"Nice to meet you, {turn.user}.", f"Hello, {turn.user}. What brings you here?"))
        if turn.user
        else ""
    )


def _whose_name(turn: Turn, found: re.Match[str]) -> str:
    return f"Your name is {turn.user}, isn't it?" if turn.user else "You have not told me yet. What is your name?"


def _time(turn: Turn, found: re.Match[str]) -> str:
    return f"It is {turn.now:%H:%M}."


def _date(turn: Turn, found: re.Match[str]) -> str:
    return f"Today is {turn.now:%A}, {turn.now:%B} {turn.now.day}, {turn.now.year}."


def _story(turn: Turn, found: re.Match[str]) -> str:
    own = turn.tone.story  # its own comes first
    return own if own and own[:24] not in "\n".join(turn.told) else turn.fresh(STORIES)


def _count(turn: Turn, found: re.Match[str]) -> str:
    back = "down" in found[0] or "backward" in found[0]
    top = max(1, min(100, value(found[1] or "") or (10 if back else 20)))
    numbers = [said(n).capitalize() for n in range(1, top + 1)]
    return ". ".join(reversed(numbers) if back else numbers) + "."


def _sum(turn: Turn, found: re.Match[str]) -> str:
    return summed(found[1], found[2], found[3])


def _again(turn: Turn, found: re.Match[str]) -> str:
    return f"I said: {turn.told[-1].rstrip('—')}" if turn.told else "I have not said anything yet."


def _go_on(turn: Turn, found: re.Match[str]) -> str:
    """What was cut off is taken up at the sentence that was cut."""
    if not turn.told or not turn.told[-1].endswith("—"):
        return ""
    heard = turn.told[-1].rstrip("— ")
    known = (ABILITIES, PLUG_IN, POEM, turn.tone.story, *STORIES, *JOKES, _count_text())
    for whole in known:
        at = whole.find(heard[-60:])
        if heard and at >= 0:
            end = at + len(heard[-60:])
            begin = max(whole.rfind(mark, 0, end) + 2 for mark in (". ", "? ", "! ", "\0"))
            return f"Where was I? Ah yes. {whole[max(0, begin if begin > 1 else 0) :]}"
    return ""


def _count_text() -> str:
    return ". ".join(said(n).capitalize() for n in range(1, 101)) + "."


def _you_feel(turn: Turn, found: re.Match[str]) -> str:
    rest = _turned(found[1])
    if not rest:
        return ""
    return turn.fresh(
        (f"How long have you been {rest}?", f"Do you like being {rest}?", f"Why are you {rest}, do you think?")
    )


def _you_want(turn: Turn, found: re.Match[str]) -> str:
    rest = _turned(found[2])
    return turn.fresh((f"What would it mean to you to have {rest}?", f"Why do you {found[1]} {rest}?")) if rest else ""


def _you_do(turn: Turn, found: re.Match[str]) -> str:
    verb, rest = found[1], _turned(found[2])
    return (
        turn.fresh((f"You {verb} {rest}? Tell me more.", f"What is it that makes you {verb} {rest}?")) if rest else ""
    )


def _i_am(turn: Turn, found: re.Match[str]) -> str:
    rest = _turned(found[1])
    return turn.fresh((f"What makes you think I am {rest}?", f"Maybe I am {rest}. Does it bother you?")) if rest else ""


def _greeted(turn: Turn, found: re.Match[str]) -> str:
    if len(turn.told) > 1:  # the first is the greeting
        return turn.fresh(("Hello again{,user}.", "Hi{,user}. Good to hear you.", "Yes{,user}, I am here."))
    return turn.fresh(
        ("Hello{,user}! I am {me}. What would you like to talk about?", "Hi{,user}. I am {me}. How are you?")
    )


Reply = Callable[[Turn, re.Match[str]], str] | tuple[str, ...]
_TABLE: tuple[tuple[str, Reply], ...] = (
    (r"\b(?:my name is|my name's|call me|i am called) \w+", _told_name),
    (r"\bwhat('s| is) my name\b|\bwho am i\b|\bremember (me|my name)\b", _whose_name),
    (r"\b(language model|real model|plug|api key|ollama|chat ?gpt|openai|llama|smarter)\b", (PLUG_IN,)),
    (r"\bwhat (can|do) you do\b|\bcan you do\b|\bhelp me\b|\bwhat can i (say|ask|do)\b|^help$", (ABILITIES,)),
    (r"\bare you (a |an )?(real|human|robot|computer|machine|ai|bot|person|alive|program)\b", (WHAT_I_AM,)),
    (r"\bwhat('s| is) your name\b|\bwho are you\b|\byour name\b", ("I am {me}. And who are you?", "My name is {me}.")),
    (r"\bhow (are|do) you( do(ing)?| feel(ing)?)?( today)?$|\bhow('s| is) it going\b|\bwhat's up\b",
     ("I am well, thank you{,user}. How are you?", "Never better. And yourself?")),
    (r"\bcount(?:ing)? (?:down |backwards? )?(?:up )?(?:from \w+ )?(?:to |from )?([\w-]+(?: [\w-]+)?)?", _count),
    (r"\b(tell|know|another|one more|hear)\b.*\bjokes?\b|^jokes?$|\bmake me laugh\b", JOKES),
    (r"\b(tell|know|another|hear|read)\b.*\b(stor(y|ies)|tale)\b|^(a )?story$|\bsomething long\b", _story),
    (r"\b(poem|poetry|recite|sing|song)\b", (POEM,)),
    (r"\bwhat (time|hour) is it\b|\bwhat('s| is) the time\b|\b(tell|know) .*\btime\b|^the time$", _time),
    (r"\bwhat (day|date|year|month)\b|\bwhat('s| is) (the )?(date|day)\b|\btoday's date\b", _date),
    (r"([\w.-]+(?: (?!plus|minus|times|divided)[\w-]+)?) (plus|minus|times|divided by|[-+*/x]) ([\w.-]+(?: [\w-]+)?)",
     _sum),
    (r"\b(say that|say it|repeat|come) again\b|\bwhat did you say\b|^(repeat( that)?|pardon|what)$", _again),
    (r"^(go on|continue|carry on|keep going|and then|then what|go ahead|what happened next)\b", _go_on),
    (r"^(stop|wait|quiet|enough|be quiet|shut up|hold on|pause|silence)\b", ("All right. I listen.", "Of course.")),
    (r"\b(thank you|thanks|thank)\b", ("You are welcome{,user}.", "My pleasure.", "Any time{,user}.")),
    (r"\b(bye|goodbye|good night|see you|farewell)\b", ("Goodbye{,user}. It was nice to talk.", "Until next time.")),
    (r"\b(hello|hi|hey|good (morning|afternoon|evening|day)|greetings)\b", _greeted),
    (r"\bsorry\b", ("No harm done.", "Don't worry about it{,user}.")),
    (r"\b(weather|rain|snow|sunny)\b", ("I have no window, I am afraid. What is it like where you are?",)),
    (r"\b(?:i am|i'm|i feel) (?:feeling )?(?:so |very |really )?(.+)", _you_feel),
    (r"\bi (want|need|would like|wish for) (.+)", _you_want),
    (r"\bi (love|like|hate|enjoy|miss|remember|think about|dream of) (.+)", _you_do),
    (r"\byou(?: are|'re) (.+)", _i_am),
    (r"\b(mother|father|sister|brother|wife|husband|son|daughter|family|friend|dog|cat)\b",
     ("Tell me more about your family and friends.", "Who is closest to you?", "What are they like?")),
    (r"\bbecause\b", ("Is that the real reason?", "What other reasons might there be?", "That makes sense.")),
    (r"^(yes|yeah|yep|sure|of course|okay|ok|right|fine|good|great)$", ("Good. Go on.", "I see. Tell me more.")),
    (r"^(no|nope|not really|never|nothing)$", ("Why not?", "As you like. What then?", "All right. What else?")),
)  # fmt: skip
_RULES = tuple((re.compile(pattern), reply) for pattern, reply in _TABLE)
