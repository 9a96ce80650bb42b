"""A feature extractor of WavLM's shape and frame rate, a few thousand weights, nothing to fetch. Needs linacodec."""

from server.pipelines.codec._lina.imports import module

_Extractor = module("linacodec.module.ssl_extractor").SSLFeatureExtractor
_Module = module("torch").nn.Module

CONVOLUTIONS = [(8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2]
DIM = 32


class TinySSL(_Extractor):
    def __init__(self, sample_rate: int = 24_000) -> None:
        _Module.__init__(self)
        self.model = (
            module("torchaudio.models")
            .wavlm_model(
                "group_norm", CONVOLUTIONS, False, DIM, 0.1, 16, 4, 2, 2, 16, 32, 0.1, 64, 0.0, 0.1, False, 0.05, None
            )
            .eval()
        )
        self.output_layer, self.feature_dim, self.ssl_sample_rate = -1, DIM, 16_000
        self.resampler = module("torchaudio").transforms.Resample(sample_rate, 16_000)
