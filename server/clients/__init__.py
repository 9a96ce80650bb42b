"""Async clients of a Parley server: the conversation, text to speech, and the language model in chunks.

from server.clients import Conversation, Speech, Answers, HTTPSpeech
"""

from server.clients.answers import Answer, Answers
from server.clients.conversation import Conversation
from server.clients.http_speech import HTTPSpeech
from server.clients.link import ConnectionLost, Refused
from server.clients.speech import Speech

__all__ = ["Answer", "Answers", "ConnectionLost", "Conversation", "HTTPSpeech", "Refused", "Speech"]
