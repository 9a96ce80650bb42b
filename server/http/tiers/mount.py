"""The tiers of one application: its voices as a back end, its services as a middleware."""

from collections.abc import Mapping
from typing import Any

import httpx
from starlette.routing import Mount

from server.access import origin_fits, token_fits
from server.characters import Character
from server.http.tiers.measures import stage
from server.http.tiers.routes import routes
from server.pipelines.engines import TTS, Voice
from server.pipelines.tiers.backend import Backend, Pick
from server.pipelines.tiers.clients import client
from server.pipelines.tiers.relay import Relay
from server.pipelines.tiers.voices import described
from server.rack import Rack
from server.settings import Settings


def mount(settings: Settings, rack: Rack, characters: Mapping[str, Character]) -> tuple[list[Mount], httpx.AsyncClient]:
    """The routes, and the connections to open with the application."""
    rules, http = settings.tiers, client()
    backend = Backend(
        picker(rack, characters),
        rack.codec,
        max_chars=rules.max_chars,
        first_chars=rules.first_chars,
        observe=stage,
        queue=rack.admission,
    )
    mounted = routes(
        rules,
        Relay(rules, http, rack.codec, backend),
        backend,
        lambda connection: origin_fits(connection, settings.server),
        lambda connection: token_fits(connection, settings.server),
    )
    return mounted, http


def picker(rack: Rack, characters: Mapping[str, Character]) -> Pick:
    """A voice by the id of a character, else by the engine's own name; `default` is the engine's choice."""

    def pick(name: str, engine: str, options: Mapping[str, Any]) -> tuple[TTS, Voice]:
        if name in characters and not engine:
            voice = characters[name].voice
        else:
            voice = Voice(name="" if name == "default" else name, engine=engine)
        voice = described(voice, options)
        return rack.voiced(voice), voice

    return pick
