"""A response whose body is made while it is sent, and that does not lie about how it went.

Nothing is sent before the first piece is there, so what fails until then is answered with a status and JSON. What
fails later cuts the connection: a listener can tell that from the end. A listener who leaves stops whoever makes it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.errors import ParleyError
from server.http.streams import unforeseen

Refuse = Callable[[ParleyError], Response]
Over = Callable[[str, str], None]
"""(how it ended: ok, left, or the code of an error; what there is to say about it)"""


class Delivery(Response):
    """`source` is closed however it ends; `refuse` answers an error before the first piece; `over` is told the end."""

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        media_type: str,
        headers: Mapping[str, str],
        refuse: Refuse,
        over: Over,
    ) -> None:
        super().__init__(media_type=media_type, headers=headers)
        del self.headers["content-length"]
        self._source, self._refuse, self._over = source, refuse, over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(scope, receive, send), name="delivery")
        leaving = asyncio.create_task(_left(receive), name="delivery-left")
        end, told = "left", ""
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.wait({sending, leaving})
            if not sending.cancelled():
                broken = sending.exception()
                end, told = ("internal", repr(broken)) if broken else sending.result()
            self._over(end, told)
        if not sending.cancelled():
            sending.result()

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> tuple[str, str]:
        begun = False
        try:
            async with aclosing(self._source) as source:
                async for piece in source:
                    if not piece:
                        continue
                    if not begun:
                        begun = True
                        await self._start(send)
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except ParleyError as error:
            if not begun:
                await self._refuse(error)(scope, receive, send)
            return error.code, str(error)  # a body without its end: the server closes the connection
        except Exception as error:
            if begun:
                raise
            told = unforeseen(error)
            await self._refuse(told)(scope, receive, send)
            return told.code, repr(error)
        if not begun:
            await self._start(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return "ok", ""

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
