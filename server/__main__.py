"""The command line: `python -m server serve|doctor|say|bench`."""

import argparse
import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server import linacodec_cli
from server.errors import ConfigError, ParleyError
from server.settings import ROOT, Settings, read


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status. What is wrong with the settings is said in one line."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.run is not _bench:
        parser.error(f"unknown: {' '.join(rest)}")
    options.rest = rest
    try:
        return int(options.run(options) or 0)
    except ParleyError as error:
        print(f"parley: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has read enough; nor is what is left of the output to be tried at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m server", description="Parley, a full-duplex voice-agent server.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = _command(commands, "serve", "serve the page and the protocols", _serve)
    doctor = _command(commands, "doctor", "check that everything is here, and say how to mend what is not", _doctor)
    for listening in (serve, doctor):
        listening.add_argument("--host", help="address to listen on (server.host)")
        listening.add_argument("--port", type=_port, help="port to listen on (server.port)")
    say = _command(commands, "say", "speak a text, aloud or into a WAV file", _say)
    say.add_argument("text")
    say.add_argument("--character", default="", help="who says it (default: the first one)")
    say.add_argument("--engine", default="", help="a TTS engine in place of the character's own")
    say.add_argument("--voice", default="", help="one of the engine's voices, in place of the character's own")
    say.add_argument("--out", default="", metavar="FILE", help="write a WAV file (-: to standard output)")
    _command(commands, "bench", "measure it (its options: python -m server bench --help)", _bench, add_help=False)
    linacodec_cli.add(commands)
    return parser


def _port(text: str) -> int:
    if text.isdecimal() and int(text) < 65_536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is no port: 0 to 65535")


def _command(commands: Any, name: str, text: str, run: Callable[[Any], int | None], **more: Any) -> Any:
    """A command's own parser. Each takes the configuration, but for those that say otherwise."""
    parser = commands.add_parser(name, help=text, description=text, **more)
    if not more:
        parser.add_argument("--config", type=Path, help="a TOML file (default: configs/embedded.toml)")
    parser.set_defaults(run=run)
    return parser


def _serve(options: argparse.Namespace) -> None:
    from server.serve import serve

    serve(_settings(options))


def _doctor(options: argparse.Namespace) -> int:
    from server.doctor import report

    logging.basicConfig(level=logging.ERROR)  # what an engine has to say is in the report
    return asyncio.run(report(options.config, options.host, options.port))


def _say(options: argparse.Namespace) -> int:
    from server.say import say

    return say(read(options.config), options.text, options.character, options.engine, options.voice, options.out)


def _bench(options: argparse.Namespace) -> int:
    if not (ROOT / "bench" / "__main__.py").is_file():
        raise ConfigError("the bench is part of the source tree: run it in a clone of the repository (make bench)")
    command = [sys.executable, "-m", "bench", *options.rest]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _settings(options: argparse.Namespace) -> Settings:
    settings = read(options.config)
    given = {"host": getattr(options, "host", None), "port": getattr(options, "port", None)}
    server = settings.server.model_copy(update={k: v for k, v in given.items() if v is not None})
    return settings.model_copy(update={"server": server})


if __name__ == "__main__":
    sys.exit(main())
