# Parley with voices and recogniser on a GPU. PyPI's torch for Linux brings CUDA along; the host needs the driver and the
# NVIDIA container toolkit.
FROM python:3.11-slim

WORKDIR /parley
RUN pip install --no-cache-dir torch==2.13.0
# CTranslate2 (Whisper) wants cuBLAS 12; torch brings 13.
RUN pip install --no-cache-dir nvidia-cublas-cu12
ENV LD_LIBRARY_PATH=/usr/local/lib/python3.11/site-packages/nvidia/cublas/lib
COPY pyproject.toml README.md ./
COPY server server
COPY static static
COPY configs configs
RUN pip install --no-cache-dir -e '.[higgs,whisper]'
EXPOSE 8000
CMD ["python", "-m", "server", "serve", "--config", "configs/gpu.toml"]
