"""The shape of WavLM without its 94 million weights: all that a decoder wants to know of it. Needs linacodec."""

from typing import Any

from server.pipelines.codec._lina.imports import module

_Extractor: Any = module("linacodec.module.ssl_extractor").SSLFeatureExtractor
_Module: Any = module("torch").nn.Module

CONVOLUTIONS = [(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]  # kernel and stride: 20 ms a frame at 16 kHz


class Outline(_Extractor):  # type: ignore[misc]
    """Takes the place of the feature extractor in a decoder. Cannot extract anything."""

    def __init__(self, sample_rate: int = 24_000) -> None:
        _Module.__init__(self)
        self.feature_dim, self.ssl_sample_rate, self.resampler = 768, 16_000, None

    @property
    def conv_config(self) -> list[tuple[int, int]]:
        return CONVOLUTIONS
