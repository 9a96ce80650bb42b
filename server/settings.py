"""Settings: one TOML file and PARLEY_* variables, read once and validated. The sole reader of the environment.

A variable names a table and a key: PARLEY_LLM_BASE_URL is `base_url` of `[llm]`. Variables win over the file.
OPENAI_API_KEY and OPENAI_BASE_URL are taken where an `openai` engine (or the LLM) has no setting of its own.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from server.errors import ConfigError
from server.pipelines.barge_in import InterruptRules
from server.pipelines.tiers.services import TierRules, customary
from server.pipelines.turn import TurnRules

ROOT = Path(__file__).resolve().parent.parent


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineSettings(BaseModel):
    """`engine` names the module; every other key is an option of its `create`. Empty: no such engine."""

    model_config = ConfigDict(extra="allow", frozen=True)
    engine: str = ""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class ServerSettings(Table):
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    token: str = ""  # empty: none is asked for
    origins: tuple[str, ...] = ()  # besides the server's own; "*" allows all
    sessions: int = Field(64, ge=1)  # at once; the one beyond is told 1013
    idle_s: float = Field(600, gt=0)  # without a word or a message from the client
    resume_s: float = Field(120, ge=0)  # how long a lost conversation can be taken up again
    message_bytes: int = Field(1_048_576, ge=4_096)
    flood: float = Field(2.0, ge=1.1)  # audio faster than this times real time is throttled, then closed
    drain_s: float = Field(15, ge=0)  # how long a shutdown lets sentences end
    log: Literal["text", "json"] = "text"


class AudioSettings(Table):
    input_rate: int = Field(16_000, ge=8_000, le=48_000)
    output_rate: int = Field(0, ge=0, le=48_000)  # 0: the voice engine's own
    lead_ms: float = Field(300, ge=60, le=5_000)
    ahead_ms: float = Field(4_000, ge=200)  # synthesised beyond what has left, before the model is paused
    clause_ms: float = Field(400, ge=0)  # a first sentence that takes the model longer is begun at a clause; 0: never

    @field_validator("output_rate")
    @classmethod
    def _sounds(cls, rate: int) -> int:
        if 0 < rate < 8_000:
            raise ValueError("Input should be 0, or at least 8000")
        return rate


class CharacterSettings(Table):
    directory: Path = Path("characters")  # relative to the configuration file
    active: tuple[str, ...] = ()  # empty: the first one
    answer: Literal["last", "all"] = "last"  # who answers when nobody is named
    instructions: str = (
        "You are in a spoken conversation. Answer in one to three short sentences of plain speech: "
        "no lists, no markdown, no emoji, no stage directions."
    )


class ServiceSettings(Table):
    """The speech and language services: `/v1/audio`, `/v1/tts/stream`, `/ws/tts/stream`, `/ws/llm`."""

    waiting: int = Field(32, ge=0)  # requests that may wait for a voice engine; the one beyond is told 429 or 1013
    patience_s: float = Field(10, gt=0)  # how long each may
    idle_s: float = Field(30, gt=0)  # a stream that nobody touches for so long ends
    sockets: int = Field(256, ge=1)  # on /ws/tts/stream at once
    answers: int = Field(8, ge=1)  # open on /ws/llm at once


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="PARLEY_", env_nested_delimiter="_", env_nested_max_split=1, extra="forbid", frozen=True
    )

    server: ServerSettings = ServerSettings()
    audio: AudioSettings = AudioSettings()
    language: str = "en"
    characters: CharacterSettings = CharacterSettings()
    turn: TurnRules = TurnRules()
    interrupt: InterruptRules = InterruptRules()
    vad: EngineSettings = EngineSettings(engine="silero")
    turnend: EngineSettings = EngineSettings()
    stt: EngineSettings = EngineSettings(engine="pocketsphinx")
    llm: EngineSettings = EngineSettings(engine="auto")
    tts: EngineSettings = EngineSettings(engine="espeak")
    codec: EngineSettings = EngineSettings()
    tiers: TierRules = TierRules()
    services: ServiceSettings = ServiceSettings()
    voices: dict[str, EngineSettings] = {}  # further TTS engines, by the name a character's voice gives as its engine

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def read(path: Path | None = None) -> Settings:
    """The settings of the file at `path` (None: `configs/embedded.toml`) under the environment's.

    Raises `ConfigError`, naming the file and the setting."""
    path = path or ROOT / "configs" / "embedded.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration at {path}; the ones that ship are in configs/") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        settings = Settings(**table)
    except SettingsError as error:
        raise ConfigError(f"{_suspects(error)}: lists and tables are written as JSON") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path} (or PARLEY_{where.upper().replace('.', '_')}): {where}: {first['msg']}") from None
    directory = path.parent / settings.characters.directory
    characters = settings.characters.model_copy(update={"directory": directory})
    return settings.model_copy(update={"characters": characters} | _openai(settings) | _tiers(settings))


def _suspects(error: SettingsError) -> str:
    """The variables one of which is no JSON; the library names their table only."""
    table = found[1].upper() if (found := re.search(r'field "(\w+)"', str(error))) else ""
    return " or ".join(name for name in os.environ if name.startswith(f"PARLEY_{table}"))


def strangers() -> list[str]:
    """The PARLEY_* variables that name no table of the settings, and so do nothing."""
    given = [name for name in os.environ if name.startswith("PARLEY_")]
    return [name for name in given if name.split("_")[1].lower() not in Settings.model_fields]


def _openai(settings: Settings) -> dict[str, Any]:
    """The engines that speak to such an endpoint, with the customary OpenAI variables."""
    return {
        "llm": _with_key(settings.llm, "openai", "auto"),
        "stt": _with_key(settings.stt),
        "tts": _with_key(settings.tts),
        "voices": {name: _with_key(voice) for name, voice in settings.voices.items()},
    }


def _with_key(engine: EngineSettings, *speak: str) -> EngineSettings:
    """`engine`, if it is one of those that `speak` to OpenAI's API, with what it leaves open of key and address."""
    if engine.engine not in (speak or ("openai",)):
        return engine
    customary = {"api_key": os.environ.get("OPENAI_API_KEY"), "base_url": os.environ.get("OPENAI_BASE_URL")}
    return EngineSettings(**{key: value for key, value in customary.items() if value} | engine.model_dump())


def engine_for(settings: Settings, name: str) -> EngineSettings:
    """The settings of the TTS engine called `name`: under [voices], or a module; empty: the default's."""
    if name in settings.voices:
        return settings.voices[name]
    return settings.tts if name in ("", settings.tts.engine) else _with_key(EngineSettings(engine=name))


def _tiers(settings: Settings) -> dict[str, TierRules]:
    """ENABLE_STREAMING, RUNPOD_API_KEY and NAME_STREAMING_ENDPOINT, as the tiers know them."""
    return {"tiers": customary(settings.tiers, os.environ)}
