"""Evaluating many adapters of one base on one vLLM server, each checked before it is evaluated. See `server.served`."""
