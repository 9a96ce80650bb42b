"""The RunPod worker with tones and the fake codec, run as a process of its own by its tests."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
sys.path += sys.argv.pop(1).split(":")  # where the package runpod is, after everything else

from server.pipelines.tiers.backend import Backend  # noqa: E402
from tests.fake_codec import fake_codec  # noqa: E402
from tests.tiers_app import pick_of  # noqa: E402
from tests.tones import ToneTTS  # noqa: E402


async def opened() -> Backend:
    return Backend(pick_of(ToneTTS()), fake_codec())


if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("handler", ROOT / "deploy" / "runpod" / "handler.py")
    handler = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(handler)
    handler.start(opened, 4)
