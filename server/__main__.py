"""The command line: `python -m server serve|doctor|say|bench`."""

import argparse
import sys
from pathlib import Path

from server.errors import ParleyError
from server.settings import Settings, read


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status. What is wrong with the settings is said in one line."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except ParleyError as error:
        print(f"parley: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m server", description="Parley, a full-duplex voice-agent server.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the page and the protocols")
    serve.add_argument("--config", type=Path, help="a TOML file (default: configs/embedded.toml)")
    serve.add_argument("--host", help="address to listen on (server.host)")
    serve.add_argument("--port", type=int, help="port to listen on (server.port)")
    serve.set_defaults(run=_serve)
    return parser


def _serve(options: argparse.Namespace) -> None:
    from server.serve import serve

    serve(_settings(options))


def _settings(options: argparse.Namespace) -> Settings:
    settings = read(options.config)
    given = {"host": getattr(options, "host", None), "port": getattr(options, "port", None)}
    server = settings.server.model_copy(update={k: v for k, v in given.items() if v is not None})
    return settings.model_copy(update={"server": server})


if __name__ == "__main__":
    sys.exit(main())
