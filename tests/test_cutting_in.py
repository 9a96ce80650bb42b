"""What listeners say over a reply, to a whole session with the real ears, on the virtual clock."""

import dataclasses

import pytest

from bench.cutting_in import Inline, Outcome, measured, table
from bench.sayings import INTERRUPTION, Speaker, speakers
from server.pipelines.stt.pocketsphinx import PocketSphinx
from tests import speech
from tests.virtual_time import run

SAID = ("right", "okay", "(mm)", "(mm hmm)", "(cough)", "(knock)", "stop", "wait", "no", "hold on")


def one() -> Speaker:
    speech.say("Hello.")  # skips where flite is not installed
    speaker = next(speakers())
    return dataclasses.replace(speaker, sayings=tuple(s for s in speaker.sayings if s.text in SAID))


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return run(measured([one()], PocketSphinx(Inline(), english=True), 1, ""))  # type: ignore[no-any-return]


def test_the_reply_goes_on_or_is_lost_as_it_should(outcomes: list[Outcome]):
    assert [x.saying.text for x in outcomes if not x.right] == []
    assert {x.saying.text for x in outcomes} == set(SAID)


def test_it_is_decided_in_the_lull_after_it(outcomes: list[Outcome]):
    late = [x.decided_ms for x in outcomes if x.decided_ms is not None]
    assert max(late) <= 330


def test_the_table_counts_them(outcomes: list[Outcome]):
    lost = [line.split()[-2] for line in table(outcomes).split("\n") if "was lost" in line]
    assert lost == ["0", "0", str(sum(x.saying.kind == INTERRUPTION for x in outcomes))]
