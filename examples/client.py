"""Speak a recording into a conversation and record the answer: python examples/client.py question.wav answer.wav

Needs a running Parley (`make run`) and the package `websockets`. The question is a 16-bit mono WAV file of any rate.
"""

import argparse
import asyncio
import json
import sys
import wave

import websockets

URL = "ws://localhost:8000/ws"
FRAME_S = 0.02


async def microphone(socket, question: wave.Wave_read) -> None:
    """The recording in real time, then silence, as a microphone would go on."""
    rate = question.getframerate()
    await socket.send(json.dumps({"type": "session.update", "input_rate": rate}))
    frame = int(rate * FRAME_S)
    while True:
        pcm = question.readframes(frame) or bytes(frame * 2)
        await socket.send(pcm)
        await asyncio.sleep(FRAME_S)


async def ears(socket, answer: wave.Wave_write) -> None:
    """What is told is printed, what is said is recorded, until one reply is over."""
    async for message in socket:
        if isinstance(message, bytes):
            answer.writeframes(message)
            continue
        event = json.loads(message)
        match event["type"]:
            case "transcript.final":
                print("you: ", event["text"] or "(nothing understood)")
            case "session.created":
                answer.setparams((1, 2, event["output_rate"], 0, "NONE", ""))
            case "reply.sentence":
                print("them:", event["text"])
            case "error":
                print("error:", event["message"], file=sys.stderr)
            case "reply.done":
                return


async def main(question: str, answer: str) -> None:
    async with websockets.connect(URL) as socket:
        with wave.open(question) as source, wave.open(answer, "wb") as target:
            speaking = asyncio.create_task(microphone(socket, source))
            await ears(socket, target)
            speaking.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", help="what you say: a 16-bit mono WAV file")
    parser.add_argument("answer", help="where the answer is written")
    asyncio.run(main(**vars(parser.parse_args())))
