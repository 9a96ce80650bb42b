"""The offline conversationalist: what it can do, that it needs nothing, that nothing upsets it."""

import asyncio
import re
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import ConfigError
from server.pipelines.engines import LLMSettings, Message
from server.pipelines.llm._numbers import said, summed, value
from server.pipelines.llm._parts import JOKES, STORIES
from server.pipelines.llm.eliza import Eliza
from server.pipelines.loading import load

NONE = LLMSettings()


class Chat:
    def __init__(self, system: str = "You are Ada. An engineer.", **options: object) -> None:
        self.llm = Eliza(now=lambda: datetime(2031, 5, 4, 16, 30), **options)
        self.messages = [Message("system", system)]

    async def ask(self, text: str, limits: LLMSettings = NONE) -> str:
        self.messages.append(Message("user", text))
        words = [word async for word in self.llm.stream(self.messages, limits)]
        self.messages.append(Message("assistant", "".join(words)))
        return "".join(words)


async def test_it_greets_as_its_character() -> None:
    assert "Ada" in await Chat().ask("Hello there!")
    assert "Captain Finn" in await Chat("Be kind.\nYou are Captain Finn. An old sailor.").ask("good evening")
    assert "Ada" in await Chat().ask("who are you")
    assert await Chat("").ask("what is your name")


async def test_it_remembers_the_users_name_from_the_conversation() -> None:
    chat = Chat()
    assert "not told me" in await chat.ask("do you remember my name")
    assert "Anna" in await chat.ask("well my name is anna")
    await chat.ask("tell me a joke")
    assert "Anna" in await chat.ask("What's my name?")
    assert "Anna" not in await Chat().ask("What's my name?")
    assert "not told me" in await Chat().ask("who am i\nPip: My name is Pip.")  # another character's line


async def test_it_tells_the_time_and_the_date() -> None:
    assert await Chat().ask("what time is it") == "It is 16:30."
    assert await Chat().ask("What's the date today?") == "Today is Sunday, May 4, 2031."


async def test_long_answers_are_there_to_be_interrupted() -> None:
    count = await Chat().ask("please count to twenty")
    assert count.split(". ")[0] == "One"
    assert count.endswith("Nineteen. Twenty.")
    assert count.count(".") == 20
    assert (await Chat().ask("can you count down from five")) == "Five. Four. Three. Two. One."
    assert (await Chat().ask("tell me a story")).count(". ") >= 5
    assert "Ninety-nine. One hundred." in await Chat().ask("count to a million")


async def test_jokes_and_stories_are_not_told_twice() -> None:
    chat = Chat("You are Tom.")
    jokes = [await chat.ask("tell me another joke") for _ in JOKES]
    assert sorted(jokes) == sorted(JOKES)
    stories = [await chat.ask("tell me a story") for _ in STORIES]
    assert sorted(stories) == sorted(STORIES)


async def test_it_goes_on_where_it_was_cut_off() -> None:
    chat = Chat()
    cut = STORIES[0][:120].rsplit(" ", 1)[0] + "—"
    chat.messages += [Message("user", "a story"), Message("assistant", cut)]
    went_on = await chat.ask("please go on")
    assert went_on.endswith(STORIES[0][-80:])
    assert "Every evening he lit" in went_on
    assert "Once there was" not in went_on


async def test_it_says_what_it_is_and_how_to_plug_in_a_real_model() -> None:
    llm = load("llm", "eliza", {})
    for text in (llm.notice, await Chat().ask("How do I plug in a real model?")):
        assert "PARLEY_LLM_BASE_URL" in text
        assert "OPENAI_API_KEY" in text
    assert "no language model" in llm.notice.lower()
    assert "no language model" in await Chat().ask("are you a robot")
    assert "joke" in await Chat().ask("what can you do")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("what is three plus four", "That makes seven."),
        ("what's twenty one times two", "That makes forty-two."),
        ("2 - 5", "That makes minus three."),
        ("ten divided by four", "That makes 2.5."),
        ("ten divided by zero", "Nothing can be divided by zero, not even by me."),
        ("say that again", "I have not said anything yet."),
        ("你好", "I am sorry, I only know English."),
    ],
)
async def test_small_answers(asked: str, expected: str) -> None:
    assert await Chat().ask(asked) == expected


async def test_the_users_words_are_turned_around() -> None:
    assert "your sister" in await Chat().ask("I miss my sister")
    assert "tired of me" in await Chat().ask("I am tired of you")


async def test_other_characters_lines_are_not_the_users() -> None:
    assert "16:30" in await Chat().ask("What time is it?\nFinn: Sorry, my watch is at the bottom of the sea.")


async def test_each_sort_of_character_talks_its_own_way() -> None:
    told = {
        await Chat(f"You are X. {who}").ask("tell me a story") for who in ("A captain.", "A robot.", "A detective.")
    }
    assert len(told) == 3


async def test_the_same_conversation_earns_the_same_answer() -> None:
    async def talk(seed: int) -> list[str]:
        chat = Chat(seed=seed)
        return [await chat.ask(text) for text in ("hi", "I walk", "tell me a joke", "what is love", "hm", "so it goes")]

    assert await talk(1) == await talk(1)
    assert await talk(1) != await talk(2)


async def test_it_streams_word_by_word_and_keeps_to_limits() -> None:
    chat = Chat()
    chat.messages.append(Message("user", "count to ten"))
    words = [word async for word in chat.llm.stream(chat.messages, NONE)]
    assert words[:3] == ["One.", " Two.", " Three."]
    assert await Chat().ask("count to ten", LLMSettings(max_tokens=2)) == "One. Two."
    assert await Chat().ask("count to ten", LLMSettings(stop=("Four",))) == "One. Two. Three."


async def test_the_delay_is_before_each_word() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async for _ in Eliza(delay_s=0.01).stream([Message("user", "count to ten")], NONE):
        pass
    assert loop.time() - begun >= 0.09


PHRASES = """i am|my name is|count to|tell me a story|go on|what is|plus|times|divided by|zero|you are|i want|because|.
|!|—|Finn: |hello|again|two|hundred|x"""
said_before = st.lists(st.sampled_from(PHRASES.split("|")), max_size=8).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(
            Message,
            st.sampled_from(["system", "user", "assistant"]),
            st.one_of(st.text(max_size=40), said_before),
        ),
        max_size=6,
    )
)
def test_nothing_upsets_it(messages: list[Message]) -> None:
    async def read() -> str:
        return "".join([word async for word in Eliza().stream(messages, NONE)])

    assert re.search(r"\w", asyncio.run(read()))


@given(st.integers(0, 99))
def test_numbers_there_and_back(number: int) -> None:
    assert value(said(number)) == value(str(number)) == number
    assert summed(said(number), "plus", "one") == f"That makes {said(number + 1)}."


@pytest.mark.parametrize(("name", "value"), [("seed", "x"), ("delay_s", "slow"), ("delay_s", -1)])
def test_what_is_no_number_is_a_mistake_in_the_configuration(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"\[llm\] {name}"):
        load("llm", "eliza", {name: value})
    with pytest.raises(ConfigError, match=r"\[llm\] seed"):
        load("llm", "auto", {"seed": "x"})
