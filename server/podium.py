"""The podium: at most one answer sounds, at most one is drafted; each is begun, cut and thrown away here."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from server import events as e
from server.answer import Answer
from server.bill import Bill
from server.cast import Cast
from server.characters import Character
from server.errors import EngineError, ParleyError, leaves
from server.history import History
from server.pipelines.barge_in import plain
from server.pipelines.engines import LLMSettings
from server.pipelines.opening import Opening
from server.rack import Rack
from server.reply import Phase, Reply, Stage
from server.telemetry import DRAFTS, ERRORS, INTERRUPTIONS, TURNS, log, turn_over
from server.timeline import Timeline


@dataclass
class Performance:
    """An answer, its timeline, its bill, and the task that performs it."""

    answer: Answer
    timeline: Timeline
    bill: Bill
    kind: str
    task: asyncio.Task[None]


class Podium:
    """`group` is the session's; `instructions` and `llm` hold for the answers begun from now on."""

    def __init__(self, rack: Rack, cast: Cast, history: History, stage: Stage, instructions: str) -> None:
        self._rack, self._cast, self._history = rack, cast, history
        self.stage = replace(stage, on_error=self._count_error)
        self.instructions = instructions
        self.llm = LLMSettings()
        self.group: asyncio.TaskGroup
        self._now: Performance | None = None
        self._draft: Performance | None = None
        self.lead(stage.lead_ms)
        cast.last = cast.everybody.get(history.speaker)  # a conversation that is taken up again goes on with them

    @property
    def turn(self) -> int:
        """The last that was answered."""
        return self._history.turn

    @property
    def answering(self) -> Phase | None:
        """The phase of the answer under way, None when there is none."""
        return self._now.answer.phase if self._now else None

    @property
    def performing(self) -> bool:
        """Whether an answer is under way, and not paused."""
        return self._now is not None and not (self.reply and self.reply.paused)

    @property
    def reply(self) -> Reply | None:
        """The reply that sounds, or is thought."""
        return self._now.answer.reply if self._now else None

    def lead(self, ms: float) -> None:
        """From now on audio may be so far ahead of the listener, that of the reply under way, too."""
        self.stage = replace(self.stage, lead_ms=max(ms, self.stage.least_lead_ms))
        if self.reply:
            self.reply.pacer.lead(self.stage.lead_ms)

    def played(self, id: int, ms: float) -> None:
        """The client's word on how much of reply `id` has sounded."""
        if self.reply and self.reply.id == id:
            self.reply.played(ms)

    def pause(self, reason: str) -> None:
        if self._now:
            self._now.answer.pause(reason)

    def resume(self, reason: str, told: str | None = None) -> None:
        if self._now:
            self._now.answer.resume(reason, told)

    def prepare(self, text: str, cast: Sequence[Character], timeline: Timeline) -> None:
        """Draft an answer to `text`, for a turn that may not be over."""
        self._draft = self._perform(self._history.turn + 1, text, cast, timeline, "speech")

    async def discard(self) -> None:
        """Throw the draft away, without a trace."""
        draft, self._draft = self._draft, None
        if draft:
            DRAFTS.labels("discarded").inc()
            await _cancelled(draft.task)

    async def answer(self, text: str, cast: Sequence[Character], timeline: Timeline, kind: str) -> None:
        """Answer `text`, with the draft if it was made for the same words. What sounds is interrupted."""
        await self.interrupt("text" if kind == "text" else "speech")
        draft, self._draft = self._draft, None
        if draft and plain(draft.answer.text) != plain(text):
            self._draft = draft
            await self.discard()
            draft = None
        self._history.turn += 1
        if draft is None:
            draft = self._perform(self._history.turn, text, cast, timeline, kind)
        else:
            DRAFTS.labels("used").inc()
            draft.timeline.absorb(timeline)
        self._now = draft
        TURNS.labels(kind).inc()
        draft.answer.release()

    async def say(self, text: str, character: Character, timeline: Timeline) -> None:
        """Let `character` speak `text` as it stands. What sounds is interrupted."""
        await self.discard()
        await self.interrupt("client")
        self._history.turn += 1
        self._now = self._perform(self._history.turn, "", [character], timeline, "say", say=text)
        TURNS.labels("say").inc()
        self._now.answer.release()

    async def end_sentence(self, patience_s: float) -> None:
        """Wait until the sentence that sounds has come to its end, `patience_s` at most."""
        deadline = self.stage.clock() + patience_s
        reply, sentence = self.reply, self.reply and self.reply.sounding()
        while sentence and self.reply is reply and self.stage.clock() < deadline:
            if reply and sentence.end_ms is not None and reply.heard_ms >= sentence.end_ms:
                break
            await asyncio.sleep(0.02)

    async def interrupt(self, reason: str) -> None:
        """The one way an answer ends early. The draft goes with it unless it is about to be used."""
        now, self._now = self._now, None
        if now is None:
            return
        now.task.cancel()
        self._cut(now.answer, reason)
        await asyncio.wait([now.task])
        self._close(now, f"interrupted:{reason}")

    def _cut(self, answer: Answer, reason: str) -> None:
        """Nothing more of `answer` is heard; what was heard is told, and kept."""
        if cut := answer.cut():
            self.stage.outbox.silence(cut.reply.id)
            told = e.ReplyInterrupted(cut.reply.id, round(cut.heard_ms, 1), cut.heard, cut.unheard, reason)
            self.stage.outbox.tell(told)
            INTERRUPTIONS.labels(reason).inc()

    def _perform(
        self, turn: int, text: str, cast: Sequence[Character], timeline: Timeline, kind: str, *, say: str = ""
    ) -> Performance:
        bill = Bill(self.stage.clock, self.stage.language)
        begin = partial(self._begin, turn=turn, timeline=timeline, bill=bill, say=say)
        answer = Answer(turn, text, cast, self._history, begin)
        task = self.group.create_task(self._run(answer), name=f"answer {turn}")
        return Performance(answer, timeline, bill, kind, task)

    def _begin(
        self, character: Character, history: History, *, turn: int, timeline: Timeline, bill: Bill, say: str
    ) -> Reply:
        """A reply of `character`'s on top of `history`: what the model thinks, or `say` as it stands."""
        speaker, rate = self._cast.speaker(character)
        messages = history.prompt(character, self._cast.present, self.instructions)
        tokens = _once(say) if say else bill.think(self._rack.llm, messages, self.llm)
        ids, names = self._history.replies, [] if say else self._cast.names()
        voice = Opening(speaker, rate)
        return Reply(ids, turn, character.id, tokens, voice, rate, self.stage, timeline, names=names)

    async def _run(self, answer: Answer) -> None:
        failure: ParleyError | None = None
        try:
            await answer.run()
        except* ParleyError as failed:
            failure = next(leaf for leaf in leaves(failed) if isinstance(leaf, ParleyError))
        except* Exception as failed:
            log.error("an answer failed", exc_info=failed)
            failure = EngineError("internal error; the log tells more", code="internal")
        if failure:
            await answer.released.wait()  # a draft fails in silence
            self.fail(failure)
        if self._now and self._now.answer is answer:
            now, self._now = self._now, None
            if failure:
                self._cut(answer, "failed")
            self._close(now, "failed" if failure else "done")

    def _close(self, now: Performance, end: str) -> None:
        self._cast.last = now.answer.last or self._cast.last
        reply = now.answer.reply.id if now.answer.reply else None
        stages = now.timeline.stages | now.bill.told(cut=end != "done")
        self.stage.outbox.tell(e.TurnMetrics(now.answer.turn, reply, stages))
        turn_over(now.answer.turn, now.kind, end, stages)

    def fail(self, error: ParleyError) -> None:
        """Tell the client of `error`."""
        self._count_error(error)
        self.stage.outbox.tell(e.Error.of(error))

    def _count_error(self, error: ParleyError) -> None:
        ERRORS.labels(error.code).inc()


async def _once(text: str) -> AsyncGenerator[str, None]:
    yield text


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
