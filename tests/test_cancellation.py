"""Leaving, cutting off and going slowly, at every moment: nothing stays open, nothing follows an interruption."""

import asyncio
import random
from contextlib import suppress

import pytest

from server import events as e
from server import outbox
from server.errors import LimitError, LLMError
from server.turns import WAITING
from tests import fakes
from tests.talk import COUNT, Talk, Told


def closed(llm: fakes.FakeLLM, tts: fakes.FakeTTS, stt: fakes.FakeSTT) -> None:
    """Whatever was opened has been closed."""
    assert (llm.open_now, tts.speaking, tts.open_now, stt.open_now) == (0, 0, 0, 0)


def check_promises(told: Told) -> None:
    """After `reply.interrupted` or `reply.done` nothing of that reply follows, and no frame comes before its start."""
    over: set[int] = set()
    started: set[int] = set()
    for _, event in told.events:
        reply = getattr(event, "reply", None)
        if reply is None or isinstance(event, e.TurnMetrics):
            continue
        assert reply not in over, f"{type(event).__name__} after the end of reply {reply}"
        if isinstance(event, e.ReplyStarted):
            started.add(reply)
        assert reply in started
        if isinstance(event, e.ReplyInterrupted | e.ReplyDone):
            over.add(reply)


def check_turns(told: Told, typed: str) -> None:
    """Whoever was said to speak has stopped, and what came of it was told, if nothing else then that nothing did."""
    voice = [type(x) for x in told.of(e.UserStarted, e.UserStopped)]
    assert voice == [e.UserStarted, e.UserStopped] * (len(voice) // 2)
    assert len([x for x in told.of(e.TranscriptFinal) if x.text != typed]) >= len(voice) // 2


def engines(*replies: str | Exception) -> tuple[fakes.FakeLLM, fakes.FakeTTS, fakes.FakeSTT]:
    return fakes.FakeLLM(*replies), fakes.FakeTTS(), fakes.FakeSTT()


@pytest.mark.parametrize("after", [0.01 * i for i in range(0, 300, 7)])
def test_a_client_may_leave_at_any_moment(after: float):
    llm, tts, stt = engines(COUNT)
    it = Talk(fakes.rack(llm, tts, stt)).say("hello there")
    it.quiet(max(0.0, after - 0.4)) if after > 0.4 else None
    it._script = [step for step in it._script if step[0] <= after]
    it._now = after
    it.go()  # fails if a task outlives the session
    closed(llm, tts, stt)


@pytest.mark.parametrize("after", [0.01 * i for i in range(0, 250, 7)])
@pytest.mark.parametrize("how", ["reply.interrupt", "user.text", "say"])
def test_it_may_be_cut_off_at_any_moment(after: float, how: str):
    llm, tts, stt = engines(COUNT, "Fine.")
    it = Talk(fakes.rack(llm, tts, stt)).say("hello there").quiet(0.5 + after)
    it.send(how, **({"text": "Enough."} if how != "reply.interrupt" else {}))
    _, told = it.quiet(3).go()
    check_promises(told)
    closed(llm, tts, stt)
    if how == "user.text":
        assert fakes.words(told.audio())[-1] == "fine"


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_user_does_the_promises_hold(seed: int):
    chance = random.Random(seed)
    llm, tts, stt = engines(COUNT, LLMError("no"), "Two words. Then BOOM here.", "Say EXPLODE now. Not this.", COUNT)
    llm.first = chance.choice([0.0, 0.05, 0.6])
    stt.delay = chance.choice([0.0, 0.1, 0.7])
    it = Talk(fakes.rack(llm, tts, stt), turn={"speculative": chance.random() < 0.7})
    it.active = ["ada", "ben"]
    it.write_delay = chance.choice([0.0, 0.0, 0.03])
    for _ in range(12):
        match chance.randrange(11):
            case 0 | 1 | 2:
                it.say(chance.choice(["hello there", "stop that now", "ada and ben please", "yeah", "no"]))
            case 3:
                it.pcm(fakes.hum(chance.choice([40, 200, 900])))
            case 4:
                it.send("user.text", text="Ben, really?")
            case 5:
                it.send(chance.choice(["reply.interrupt", "user.commit", "user.clear"]))
            case 6:
                it.send(chance.choice(["reply.pause", "reply.resume"]))
            case 7:
                it.send("say", text="One more thing.")
            case 8:
                it.send("playback", reply=chance.randrange(1, 6), ms=chance.uniform(0, 3000))
            case 9:
                it.send("session.update", turn={"mode": chance.choice(["auto", "manual", "auto"])})
            case 10:
                it.wait(chance.uniform(0, 1.5))
        it.quiet(chance.uniform(0, 1.5))
    session, told = it.send("session.update", turn={"mode": "auto"}).send("reply.resume").quiet(8).go()
    check_promises(told)
    check_turns(told, "Ben, really?")
    closed(llm, tts, stt)
    assert [x.role for x in session.history.entries].count("user") == len(
        [x for x in told.of(e.TranscriptFinal) if x.text]
    )


def test_a_slow_client_still_hears_of_the_interruption_at_once():
    it = Talk(fakes.rack(fakes.FakeLLM(COUNT, "Fine.")))
    it.write_delay = 0.05  # two and a half times too slow
    it.say("count").quiet(3)
    began = it._now
    _, told = it.send("reply.interrupt").quiet(3).go()
    assert told.at(e.ReplyInterrupted) - began <= 2 * 0.05 + 0.01
    check_promises(told)


def test_what_has_not_left_for_a_slow_client_can_be_cut_off_though_its_time_is_over():
    it = Talk(fakes.rack(fakes.FakeLLM(COUNT, "Fine.")))
    it.write_delay = 0.04  # 2.4 s of audio take twice as long to leave, and nobody tells what has sounded
    it.send("user.text", text="count").wait(5.2).send("reply.interrupt").wait(0.1)
    _, told = it.send("user.text", text="go on").wait(3).go()
    assert [(x.reply, x.unheard) for x in told.of(e.ReplyInterrupted)] == [(1, "")]
    assert [x.reply for x in told.of(e.ReplyDone)] == [2]
    check_promises(told)


def test_a_slow_client_is_paused_at_once():
    it = Talk(fakes.rack(fakes.FakeLLM(COUNT, "Fine.")))
    it.write_delay = 0.05
    it.say("count").quiet(3)
    began = it._now
    _, told = it.send("reply.pause").quiet(3).go()
    assert told.at(e.ReplyPaused) - began <= 2 * 0.05 + 0.01


def test_a_client_that_never_reads_is_let_go():
    it = Talk(fakes.rack(fakes.FakeLLM(COUNT)))
    for _ in range(2_100):
        it.send("ping")
    it.write_delay = 10.0
    with pytest.raises(LimitError, match="does not read"):
        it.quiet(1).go()


def test_a_client_that_never_reads_is_let_go_wherever_that_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outbox, "CONTROL", 5)
    it = Talk(fakes.rack())
    it.write_delay = 1e6
    for _ in range(6):  # events of the recogniser's, deep within the session's tasks
        it.say("hello there you").quiet(0.3)
    with pytest.raises(LimitError, match="does not read"):
        it.go()


def test_a_client_that_never_reads_does_not_hold_up_the_shutdown_of_the_others():
    it = Talk(fakes.rack(fakes.FakeLLM(COUNT)))
    it.write_delay = 1e6
    drained: list[asyncio.Task[None]] = []

    def drain() -> bytes:
        with suppress(LimitError):
            while True:
                it.session.outbox.tell(e.Pong())
        drained.append(asyncio.create_task(it.session.drain(0)))
        return fakes.silence(20)

    it.send("user.text", text="count").quiet(0.5).raw(drain).quiet(5)
    with pytest.raises(LimitError, match="does not read"):
        it.go()
    assert drained[0].exception() is None


def test_a_shutdown_lets_the_sentence_end():
    llm, tts, stt = engines(COUNT)
    it = Talk(fakes.rack(llm, tts, stt)).send("user.text", text="count").quiet(0.5)
    it.raw(lambda: it.session.hearing._group.create_task(shutdown()) and fakes.silence(20)).quiet(5)

    async def shutdown() -> None:
        await it.session.drain(10)
        it.session.end(LimitError("restarting", code="restart", close=1012))

    with pytest.raises(LimitError) as ended:
        it.go()
    assert ended.value.close == 1012
    assert it.session.history.entries[-1].text == "One two three four."
    closed(llm, tts, stt)


def test_a_shutdown_waits_for_no_reply_that_is_paused():
    took: list[float] = []

    async def shutdown() -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        await it.session.drain(10)
        took.append(clock() - began)

    it = Talk(fakes.rack(*engines(COUNT)[:2])).send("user.text", text="count").quiet(0.5).send("reply.pause").quiet(0.2)
    it.raw(lambda: it.session.hearing._group.create_task(shutdown()) and fakes.silence(20)).quiet(1).go()
    assert took == pytest.approx([0], abs=0.05)


def test_who_leaves_finds_what_was_heard_in_the_history():
    session, told = Talk(fakes.rack(*engines(COUNT)[:2])).send("user.text", text="count").quiet(1.2).go()
    entry = session.history.entries[-1]
    assert (entry.role, entry.text, entry.cut) == ("assistant", "One two three four. Five", True)
    assert told.of(e.ReplyDone) == []


def test_more_turns_than_can_wait_are_told_to_be_too_many():
    it = Talk(fakes.rack(*engines(COUNT)[:2], fakes.FakeSTT(delay=5)))
    it.say("hello").quiet(1)
    for number in range(WAITING + 2):
        it.send("user.text", text=f"And {number}?")
    _, told = it.quiet(1).go()
    assert [x.code for x in told.of(e.Error)] == ["busy"] * 2


def test_a_stop_finds_room_where_turns_find_none():
    it = Talk(fakes.rack(*engines(COUNT)[:2], fakes.FakeSTT(delay=5)))
    it.say("hello").quiet(1)
    for number in range(WAITING + 2):
        it.send("user.text", text=f"And {number}?")
    for _ in range(5):
        it.send("reply.interrupt")
    _, told = it.quiet(30).go()
    assert [x.code for x in told.of(e.Error)] == ["busy"] * 2
    assert told.of(e.ReplyDone) == []


def test_whoever_asks_for_something_now_and_then_is_not_idle():
    it = Talk(fakes.rack(*engines(COUNT)[:2]), server={"idle_s": 5})
    for _ in range(5):
        it.wait(3).send("history.get")
    _, told = it.go()
    assert len(told.of(e.History)) == 5


def test_the_first_reason_to_end_is_the_one_that_is_told():
    it = Talk(fakes.rack(*engines(COUNT)[:2])).quiet(0.2)
    it.raw(lambda: [it.session.end(LimitError(why)) for why in ("first", "second")] and fakes.silence(20))
    with pytest.raises(LimitError, match="first"):
        it.quiet(3).go()
