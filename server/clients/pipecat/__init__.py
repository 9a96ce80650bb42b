"""Parley's voices and chunked language model as services of pipecat (extra `pipecat`).

    from server.clients.pipecat import ParleyTTSService, ParleyLLMService

Source: pipecat-ai 1.14, `TTSService`, `LLMService`.
"""

try:
    import pipecat  # noqa: F401
except ImportError as error:
    raise ImportError("the pipecat services need pipecat: pip install -e '.[pipecat]'") from error

from server.clients.pipecat.llm import ParleyLLMService
from server.clients.pipecat.tts import ParleyTTSService
from server.clients.pipecat.tts_http import ParleyAdaptiveTTSService, ParleyHTTPTTSService

__all__ = ["ParleyAdaptiveTTSService", "ParleyHTTPTTSService", "ParleyLLMService", "ParleyTTSService"]
