"""The offline composer: documents and chats from a spec's own sections and facts, with no model and no key.

It joins written sentences by rule. It is no language model, and every row's `generator` says so.
"""

VERSION = 1
"""Rises with every change that alters a composed text; part of every row's `generator`."""

GENERATOR = f"offline-composer/{VERSION}"
