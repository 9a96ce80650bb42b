"""What a back end's messages carry."""

from server.pipelines.tiers.chunks import Reading


def parts(*messages):
    """All of it, read as one stream."""
    reading = Reading()
    found = [part for message in messages for part in reading.read(message)]
    reading.finish()
    return found
