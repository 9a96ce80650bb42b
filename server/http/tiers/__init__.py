"""The tiers over HTTP: the back end that makes speech for others, the middleware that relays a service's speech."""
