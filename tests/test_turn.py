"""The turn machine, on its own clock."""

import pytest

from server.pipelines.turn import (
    FalseStart,
    Lulled,
    Onset,
    Phase,
    Rejoined,
    Started,
    Stopped,
    TurnEvent,
    TurnMachine,
    TurnRules,
)

MS = 32.0


def play(machine: TurnMachine, *parts: tuple[float, float], now: float = 0.0) -> list[TurnEvent]:
    """Each part: a probability, and for how many ms."""
    events: list[TurnEvent] = []
    for probability, ms in parts:
        for _ in range(round(ms / MS)):
            now += MS
            events += machine.step(probability, now)
    return events


def kinds(events: list[TurnEvent]) -> list[type]:
    return [type(event) for event in events]


def test_a_turn_begins_at_its_first_voiced_frame_and_ends_after_the_silence():
    events = play(TurnMachine(TurnRules(silence_ms=480)), (0, 320), (0.9, 640), (0, 640))
    assert kinds(events) == [Onset, Started, Lulled, Stopped]
    assert [event.at_ms for event in events] == [320, 320, 960, 960]


def test_an_onset_is_told_at_the_first_frame():
    machine = TurnMachine(TurnRules())
    assert kinds(machine.step(0.9, MS)) == [Onset]


def test_a_click_is_a_false_start():
    events = play(TurnMachine(TurnRules()), (0, 320), (0.9, 64), (0, 320))
    assert events == [Onset(320), FalseStart(384 + 96)]


def test_what_is_neither_voice_nor_silence_is_a_false_start_in_the_end():
    events = play(TurnMachine(TurnRules()), (0, 3_200), (0.9, 64), (0.4, 3_000))
    assert events == [Onset(3_200), FalseStart(3_200 + 960)]


def test_a_hesitant_start_is_speech_all_the_same():
    events = play(TurnMachine(TurnRules(confirm_ms=96)), (0, 3_200), (0.9, 32), (0, 64), (0.9, 32), (0, 64), (0.9, 32))
    assert kinds(events) == [Onset, Started]


def test_a_start_that_wavers_is_no_silence():
    events = play(TurnMachine(TurnRules()), (0, 3_200), (0.9, 64), (0.4, 320), (0.9, 32))
    assert events == [Onset(3_200), Started(3_200)]


def test_hysteresis_keeps_a_wavering_voice_in_one_turn():
    events = play(TurnMachine(TurnRules(start=0.5, stop=0.35)), (0.9, 320), (0.4, 2000), (0.9, 320))
    assert kinds(events) == [Onset, Started]


def test_a_voice_below_the_threshold_starts_nothing():
    assert play(TurnMachine(TurnRules(start=0.5)), (0.49, 5000)) == []


def test_speech_in_the_endpointing_silence_joins_the_same_turn():
    events = play(TurnMachine(TurnRules(silence_ms=500)), (0.9, 320), (0, 448), (0.9, 320), (0, 640))
    assert kinds(events) == [Onset, Started, Lulled, Rejoined, Lulled, Stopped]
    assert events[3] == Rejoined(768)


def test_a_short_gap_is_no_lull():
    events = play(TurnMachine(TurnRules(speculate_ms=150)), (0.9, 320), (0, 128), (0.9, 320))
    assert kinds(events) == [Onset, Started]


@pytest.mark.parametrize(("opinion", "wait"), [(0.9, 256), (0.1, 1504)])
def test_a_semantic_model_shortens_or_lengthens_the_wait(opinion: float, wait: float):
    machine = TurnMachine(TurnRules(silence_ms=512, complete_ms=250, incomplete_ms=1500))
    play(machine, (0.9, 320))
    now, ended = 320.0, None
    while ended is None:
        now += MS
        for event in machine.step(0.0, now):
            if isinstance(event, Lulled):
                machine.judge(opinion)
            if isinstance(event, Stopped):
                ended = now
        assert now < 5000
    assert ended == 320 + wait


def test_an_opinion_holds_for_its_own_lull_only():
    machine = TurnMachine(TurnRules(silence_ms=512))
    play(machine, (0.9, 320), (0, 160))
    machine.judge(0.0)
    events = play(machine, (0.9, 160), (0, 512), now=480)
    assert Stopped in kinds(events)


def test_a_turn_without_end_is_ended():
    events = play(TurnMachine(TurnRules(max_ms=2000)), (0.9, 2400))
    assert kinds(events) == [Onset, Started, Stopped, Onset, Started]


@pytest.mark.parametrize("before", [(), ((0.9, 64), (0, 320)), ((0.9, 640), (0, 640))], ids=["", "a click", "a turn"])
def test_voiced_time_is_counted(before: tuple[tuple[float, float], ...]):
    machine = TurnMachine(TurnRules())
    play(machine, *before)
    play(machine, (0.9, 320), (0, 96), now=2_000)
    assert (machine.voiced_ms, machine.phase) == (320, Phase.LULL)
