"""The small parts of a conversation: who is addressed, the meter, the outbox, PCM, the wire."""

import asyncio
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server import audio, characters
from server import events as e
from server.characters import Character, addressed
from server.errors import ConfigError, LimitError, ProtocolError
from server.history import History
from server.limits import BURST_MS, Meter
from server.lobby import KEPT, Lobby
from server.outbox import Outbox
from server.packing import FIRST_MS, LATER_MS, Plain, Tokens
from server.settings import ROOT
from server.timeline import Timeline
from server.ws.protocol import MSGPACK, decode

ADA, BEN, EVE = (
    Character("ada", "Ada", ""),
    Character("ben", "Ben", "", aliases=("Benny",)),
    Character("eve", "Eve", ""),
)
CAST = [ADA, BEN, EVE]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Eve and ADA, come here", ["eve", "ada"]),
        ("ben? Ben! BEN.", ["ben"]),
        ("Benny, please", ["ben"]),
        ("Adam knows the evening", ["ben"]),  # parts of words are no names: the last who spoke
        ("(Ada)", ["ada"]),
        ("Ada's book", ["ada"]),
        ("nobody", ["ben"]),
    ],
)
def test_who_is_addressed(text: str, names: list[str]):
    assert [c.id for c in addressed(text, CAST, BEN, "last")] == names


def test_nobody_named():
    assert addressed("hm", CAST, None, "last") == [ADA]
    assert addressed("hm", CAST, BEN, "all") == CAST
    assert addressed("hm", [ADA, EVE], BEN, "last") == [ADA]  # the last has left


def test_the_characters_that_ship_can_be_read_and_have_a_picture():
    everybody = characters.read(ROOT / "configs" / "characters")
    assert len(everybody) >= 4
    for character in everybody.values():
        assert character.prompt
        assert character.greeting
        assert (ROOT / "static" / character.picture).is_file()
    assert len({str(c.voice) for c in everybody.values()}) == len(everybody)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name = 'X'", "prompt"),
        ("name = 'X'\nprompt = 5", "prompt"),
        ("name = 'X'\nprompt = ''\n[voice]\nmethod = 'magic'", "voice.method"),
        ("name = 'X'\nprompt = ''\ngreting = 'Hello.'", "greting"),
        ("name = 'X'\nprompt = ''\nvoice = 'deep'", "voice: "),
        ("name = 'X'\nprompt = ''\nvoices = 'deep'", "voices: "),
        ("name = 'X'\nprompt = ''\n[voice]\nreference = 5", "voice.reference"),
        ("name = 'X'\nprompt = ''\n[voice]\nlangage = 'de'", "voice.langage"),
        ("name = [", "x.toml"),
    ],
)
def test_a_character_that_is_wrong_is_named(tmp_path: Path, text: str, complaint: str):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        characters.read(tmp_path)


def test_a_recording_lies_beside_the_file_that_names_it(tmp_path: Path):
    (tmp_path / "x.toml").write_text("name = 'X'\nprompt = ''\n[voices.higgs]\nreference = 'x.wav'")
    assert characters.read(tmp_path, "higgs")["x"].voice.reference == tmp_path / "x.wav"


def test_the_meter_lets_real_time_through_for_ever():
    meter = Meter(2.0, 0.0)
    assert all(meter.take(20, i * 0.02) == 0 for i in range(10_000))


def test_the_meter_lets_a_burst_through_then_slows_then_refuses():
    meter = Meter(2.0, 0.0)
    assert meter.take(BURST_MS, 0.0) == 0
    assert meter.take(1_000, 0.0) == pytest.approx(0.5)
    with pytest.raises(LimitError, match=r"server\.flood"):
        deque((meter.take(1_000, 0.0) for _ in range(100)), maxlen=0)


def test_the_meter_lets_no_more_through_at_once_however_long_it_was_quiet():
    meter = Meter(2.0, 0.0)
    assert meter.take(BURST_MS, 3_600.0) == 0
    assert meter.take(1_000, 3_600.0) == pytest.approx(0.5)


def test_the_meter_forgives_who_waits():
    meter, now = Meter(2.0, 0.0), 0.0
    for _ in range(200):
        now += max(meter.take(1_000, now), 0.5)


def test_the_meter_forgives_who_behaves_again():
    meter, now = Meter(2.0, 0.0), 0.0
    for _ in range(5):
        meter.take(BURST_MS, now)
        for _ in range(8):
            now += meter.take(2_000, now)  # slowed down for eight seconds
        for _ in range(1_500):
            now += 0.02
            meter.take(20, now)


def frame(reply: int, at: float = 0.0) -> e.Audio:
    return e.Audio(reply, at, b"\0\0")


async def test_control_overtakes_audio_and_audio_keeps_its_order():
    box = Outbox(4)
    for at in range(3):
        await box.put(frame(1, at))
    box.tell(e.Pong())
    assert [type(await box.get()), *[(await box.get()).start_ms for _ in range(3)]] == [e.Pong, 0, 1, 2]  # type: ignore[attr-defined]


async def test_a_full_audio_lane_blocks_until_there_is_room():
    box = Outbox(1)
    await box.put(frame(1))
    waiting = asyncio.create_task(box.put(frame(1, 1)))
    await asyncio.sleep(0)
    assert not waiting.done()
    await box.get()
    await asyncio.wait_for(waiting, 1)


async def test_a_reply_that_is_silenced_makes_room_for_who_waits():
    box = Outbox(1)
    await box.put(frame(1))
    waiting = asyncio.create_task(box.put(frame(2)))
    await asyncio.sleep(0)
    box.silence(1)
    await asyncio.wait_for(waiting, 1)
    assert (await box.get()).reply == 2  # type: ignore[attr-defined]


async def test_a_silenced_reply_neither_waits_nor_comes_and_others_do():
    box = Outbox(8)
    await box.put(frame(1))
    await box.put(e.ReplyDone(1, "x", 1))
    await box.put(frame(2))
    box.silence(2)
    await box.put(frame(2))
    box.tell(e.ReplyText(2, "late"))
    box.tell(e.ReplyInterrupted(2, 0, "", "", "client"))
    told = [await box.get() for _ in range(len(box))]
    assert [type(x) for x in told] == [e.ReplyInterrupted, e.Audio, e.ReplyDone]
    assert box.frames_dropped == 1


def test_a_timeline_keeps_the_first_time_of_a_stage_and_takes_over_what_another_counted():
    now = iter([10.1, 10.2, 11.5])
    draft, turn = (Timeline(lambda: next(now), origin) for origin in (10.0, 11.0))
    draft.mark("first_token")
    draft.mark("first_token")
    turn.mark("turn_end")
    draft.absorb(turn)
    assert draft.stages == {"first_token": 100.0, "turn_end": 1_500.0}


def test_what_is_shorter_than_a_frame_waits_for_more_or_leaves_with_the_last():
    whole, rest = Plain().cut(bytes(1_000), 16_000, last=False)
    assert [len(frame) for frame in (*whole, rest)] == [640, 360]
    assert Plain().cut(rest, 16_000, last=True) == ([rest], b"")


def test_tokens_travel_in_a_short_message_first_and_then_in_longer_ones():
    whole, rest = Tokens(None).cut(bytes(32 * 6_000), 16_000, last=False)  # type: ignore[arg-type]
    first, *later = [audio.milliseconds(pcm, 16_000) for pcm in whole]
    assert 400 <= first <= FIRST_MS
    assert later
    assert all(FIRST_MS < ms <= LATER_MS for ms in later)
    assert audio.milliseconds(rest, 16_000) < LATER_MS


def test_pcm_there_and_back():
    samples = np.array([0, 0.5, -1.0, 1.0, 2.0], np.float32)
    assert audio.to_float(audio.to_pcm(samples)).tolist() == pytest.approx([0, 0.5, -1, 1, 1], abs=1e-4)
    assert len(audio.to_float(b"\1\2\3")) == 1


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100, 48_000])
def test_resampling_in_pieces_is_resampling_the_whole(rate: int):
    tone = audio.to_pcm(np.sin(np.arange(16_000) / 20).astype(np.float32) * 0.5)
    pieces = audio.Resampler(16_000, rate)
    out = b"".join(pieces.push(tone[i : i + 640]) for i in range(0, len(tone), 640)) + pieces.push(b"", last=True)
    whole = audio.resample(tone, 16_000, rate)
    assert len(out) == len(whole) == rate * 2
    assert np.abs(audio.to_float(out) - audio.to_float(whole)).max() < 1e-3


def test_wav_there_and_back_and_nonsense():
    pcm = audio.to_pcm(np.linspace(-1, 1, 100, dtype=np.float32))
    assert audio.read_wav(audio.wav(pcm, 22_050)) == (pcm, 22_050)
    with pytest.raises(ValueError, match="not a WAV"):
        audio.read_wav(b"RIFFnope")


def left(id: str) -> Any:
    """A conversation whose client has gone."""
    history = History()
    history.heard_user("hello", 1)
    return SimpleNamespace(id=id, history=history, cast=SimpleNamespace(present={"ada": ADA}))


async def test_a_lost_conversation_is_kept_for_a_while_and_taken_up_once():
    lobby = Lobby(limit=5, resume_s=10)
    lobby.keep(left("one"), 0.0)
    lobby.keep(left("two"), 0.0)
    assert lobby.take_up("two", 11.0) is None
    found = lobby.take_up("one", 9.0)
    assert found
    assert (found.characters, found.history.entries[0].text) == (["ada"], "hello")
    assert lobby.take_up("one", 9.0) is None


async def test_no_more_lost_conversations_are_kept_than_there_is_room_for():
    lobby = Lobby(limit=5, resume_s=10)
    for number in range(KEPT + 1):
        lobby.keep(left(str(number)), 0.0)
    assert lobby.take_up("0", 1.0) is None
    assert lobby.take_up("1", 1.0)


@pytest.mark.parametrize("frame", [b"\xc1", b"\x91" * 2_000, b""])
def test_what_is_no_msgpack_is_said_to_be_wrong_in_some_way(frame: bytes):
    with pytest.raises(ProtocolError, match=r"not msgpack: \w"):
        decode(frame, MSGPACK)
