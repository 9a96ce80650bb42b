"""Opening an ONNX model on one thread, with errors that say what is missing."""

from pathlib import Path
from typing import TYPE_CHECKING

from server.errors import EngineUnavailable

if TYPE_CHECKING:
    import onnxruntime

QUIET = 3  # onnxruntime's log level "error": its graph warnings mean nothing to who runs the server


def open_model(path: Path, setting: str, needs: set[str]) -> "onnxruntime.InferenceSession":
    """The model at `path`, on the CPU and one thread: these models are too small to gain from more.

    `setting` is the configuration key that names the file, `needs` the inputs it must have. Blocks; call it in a
    thread. Raises `EngineUnavailable`."""
    import onnxruntime

    if not path.is_file():
        raise EngineUnavailable(f"{setting} = {str(path)!r}: there is no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    try:
        model = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base
        reason = str(error).splitlines()[0]
        raise EngineUnavailable(f"{setting} = {str(path)!r} cannot be opened as an ONNX model: {reason}") from error
    have = {value.name for value in model.get_inputs()}
    if not needs <= have:
        raise EngineUnavailable(f"{setting} = {str(path)!r} is another kind of model: its inputs are {sorted(have)}")
    return model
