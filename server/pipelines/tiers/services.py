"""Where speech can be asked of: the configured services, and how long to wait for them. Values, from the settings."""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from server.errors import ConfigError

_RUNPOD = re.compile(r"/v2/[^/]+(/run|/runsync)?/?$")
_ENDPOINT = "_STREAMING_ENDPOINT"


class Service(BaseModel):
    """One back end.

    `kind` is how it is spoken to: `parley` (another Parley), `ndjson` (a URL that answers with a JSON object a line,
    or with audio), `runpod` (an endpoint of RunPod's, `https://api.runpod.ai/v2/ID`), `local` (this very process).
    `format` is what it is asked for: tokens are decoded here, audio is forwarded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["parley", "ndjson", "runpod", "local"] = "parley"
    url: str = ""
    key: str = Field("", repr=False)  # sent as a bearer token
    format: Literal["linacodec_tokens", "pcm_16"] = "linacodec_tokens"
    engine: str = ""  # of the other Parley; empty: its default
    rate: int = Field(48_000, ge=8_000, le=192_000)  # of audio that comes bare and does not say
    chunk_timeout_s: float | None = Field(None, gt=0)  # None: as for all
    first_timeout_s: float | None = Field(None, gt=0)  # until the first chunk; RunPod's workers start cold
    total_timeout_s: float | None = Field(None, gt=0)
    poll_s: float = Field(0.1, gt=0)  # between two looks at RunPod's stream that found nothing

    @model_validator(mode="after")
    def _reachable(self) -> "Service":
        if self.kind != "local" and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url is missing: a service of kind {self.kind!r} is spoken to at http:// or https://")
        return self


class TierRules(BaseModel):
    """`[tiers]`. Time-outs count waiting for a service and decoding, not a listener who reads slowly."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    streaming: bool = True  # ENABLE_STREAMING
    serve: bool = True  # whether others may ask this server for speech (the back end)
    chunk_timeout_s: float = Field(5, gt=0)
    total_timeout_s: float = Field(30, gt=0)
    max_chars: int = Field(500, ge=20, le=5_000)  # of a chunk
    first_chars: int = Field(120, ge=20, le=5_000)  # of the first one, so that it sounds soon
    longest: int = Field(20_000, ge=1)  # characters of a text
    streams: int = Field(16, ge=1)  # at once, of the middleware and of the back end; the one beyond is answered 503
    origins: tuple[str, ...] = ()  # further pages that may ask; "*" for all
    services: dict[str, Service] = {"local": Service(kind="local", format="pcm_16")}


def customary(rules: TierRules, environment: Mapping[str, str]) -> TierRules:
    """`rules` under the customary variables: ENABLE_STREAMING, RUNPOD_API_KEY for services of RunPod's that have no
    key of their own, and NAME_STREAMING_ENDPOINT for the address of the service `name`. Raises `ConfigError`."""
    changed: dict[str, object] = {}
    if streaming := environment.get("ENABLE_STREAMING", "").strip().lower():
        if streaming not in ("true", "false", "1", "0"):
            raise ConfigError(f"ENABLE_STREAMING={streaming}: true or false")
        changed["streaming"] = streaming in ("true", "1")
    services = dict(rules.services)
    for variable, url in environment.items():
        if variable.endswith(_ENDPOINT) and url:
            name = variable.removesuffix(_ENDPOINT).lower()
            services[name] = _at(services.get(name), name, url)
    if key := environment.get("RUNPOD_API_KEY"):
        for name, service in services.items():
            if service.kind == "runpod" and not service.key:
                services[name] = service.model_copy(update={"key": key})
    return rules.model_copy(update=changed | {"services": services})


def _at(service: Service | None, name: str, url: str) -> Service:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{name.upper()}{_ENDPOINT}={url}: an address beginning with http:// or https:// is needed")
    if service:
        return service.model_copy(update={"url": url})
    return Service(kind="runpod" if _RUNPOD.search(url) else "ndjson", url=url)
