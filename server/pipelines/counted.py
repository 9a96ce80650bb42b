"""A conversation's speech counts in the load of its engine, and waits for nobody."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.pipelines.admission import Admission
from server.pipelines.engines import Speaker, Speech


class Counted:
    """`speaker`, each of whose pieces takes a turn without asking for it: what asks for speech waits meanwhile."""

    def __init__(self, speaker: Speaker, admission: Admission) -> None:
        self._speaker, self._admission = speaker, admission

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        async with aclosing(self._speaker.speak(text)) as pieces:
            while True:
                with self._admission.unasked():
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                yield piece

    async def close(self) -> None:
        await self._speaker.close()
