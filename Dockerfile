FROM python:3.11-slim

RUN apt-get update && apt-get install -y --no-install-recommends libflite1 && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home parley

WORKDIR /parley
COPY pyproject.toml README.md LICENSE ./
COPY server server
RUN pip install --no-cache-dir --editable . && pip install --no-cache-dir --no-deps silero-vad==6.2.3
COPY static static
COPY configs configs

USER parley
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"PARLEY_SERVER_PORT\", 8000)}/health')"]
CMD ["python", "-m", "server", "serve", "--config", "configs/embedded.toml", "--host", "0.0.0.0"]
