"""The services under measurement, in a process of their own: the real embedded voices, and whatever language model
OPENAI_BASE_URL names. `python -m bench.speech_house` prints its address."""

from bench.engines import Delays, Listener, Loudness
from server.app import create_app
from server.pipelines.llm import openai
from server.pipelines.tts import espeak, flite
from server.rack import Rack
from server.serve import build
from server.settings import ROOT, Settings, read
from server.telemetry import set_up


def main() -> None:
    configured = read()
    settings = Settings(
        server={"port": 0}, characters={"directory": ROOT / "configs" / "characters"}, services={"answers": 64}
    )
    rack = Rack(
        vad=Loudness(),
        stt=Listener(Delays().stt),
        llm=openai.create(**configured.llm.options),
        tts=espeak.create(),
        voices={"flite": flite.create()},
    )
    set_up(settings.server.log)
    server = build(settings, create_app(settings, rack))
    server.alone = True
    server.run()


if __name__ == "__main__":
    main()
