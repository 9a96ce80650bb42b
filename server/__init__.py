"""Parley, a full-duplex voice-agent server."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime from 1.29 on reports to Microsoft; it looks when it is imported
