"""The services for other programs, on the conversation's engines: text to speech, and the language model in chunks."""

from collections.abc import Mapping

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from server.access import origin_fits, token_fits
from server.characters import Character
from server.errors import LimitError
from server.http import adaptive, speech
from server.http.running import Shelf
from server.http.v1 import V1
from server.manner import manner
from server.pipelines.engines import TTS, Voice
from server.pipelines.studio import Studio
from server.pipelines.tts._revoiced import revoiced
from server.rack import Rack
from server.settings import Settings
from server.ws import chunked_llm
from server.ws import speech as speech_socket


def routes(settings: Settings, rack: Rack, characters: Mapping[str, Character]) -> list[BaseRoute]:
    """All their endpoints. The characters are voices like any other, by their id."""
    rules = settings.services
    company = studio(settings, rack, characters)

    def allowed(connection: HTTPConnection) -> bool:
        offered = connection.scope.get("subprotocols", [])
        if not origin_fits(connection, settings.server):
            raise LimitError("this page may not ask; add its origin to server.origins", code="forbidden_origin")
        return token_fits(connection, settings.server, offered)

    def models() -> list[str]:
        return [rack.names()["llm"]]

    http = [
        *speech.routes(company, models=models, allowed=allowed),
        *adaptive.routes(company, Shelf(rules.idle_s), allowed=allowed),
    ]
    return [
        V1(http, settings.server.origins),
        *speech_socket.routes(company, sockets=rules.sockets, idle_s=rules.idle_s, allowed=allowed),
        *chunked_llm.routes(rack.llm, slots=rules.answers, allowed=allowed),
    ]


def studio(settings: Settings, rack: Rack, characters: Mapping[str, Character]) -> Studio:
    """All voices of `rack`, and those of the characters."""

    def voiced(engine: TTS, voice: Voice) -> TTS:
        return revoiced(engine, voice, rack.codec)

    rules = settings.services
    cast = {id: character.voice for id, character in characters.items()}
    abroad = {
        name: {id: manner(settings, character, table.engine) for id, character in characters.items()}
        for name, table in settings.voices.items()
    }
    return Studio(
        rack.voices(),
        cast,
        abroad=abroad,
        voiced=voiced,
        waiting=rules.waiting,
        patience_s=rules.patience_s,
        admissions=rack.admissions,
    )
