"""Speech made in one place and heard in another: a back end makes it, tokens or PCM travel, a listener hears 48 kHz."""
