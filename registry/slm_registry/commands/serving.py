"""Commands that go on until they are stopped: serve, watch."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slm_registry.client import Registry
from slm_registry.errors import UsageError
from slm_registry.log.entries import Entry
from slm_registry.plumbing.files import expanded
from slm_registry.plumbing.printable import clean
from slm_registry.watching.events import Feed, StateFile
from slm_registry.watching.webhooks import Webhook

_SECRET = "SLM_REGISTRY_WEBHOOK_SECRET"


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the commands that serve and watch."""
    _add_serve(
        commands.add_parser(
            "serve", parents=[common], help="answer over HTTP with a classifier, a tagger or a generator"
        )
    )
    _add_watch(commands.add_parser("watch", parents=[common], help="print, or post, what happens to a model"))


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("ref", help="name@alias; the server follows it when it moves")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8000, help="0 picks a free one (default: 8000)")
    serve.add_argument("--threads", type=int, default=1, help="threads of one request")
    serve.add_argument("--workers", type=int, default=1, help="requests that run at once")
    serve.add_argument(
        "--batch-size", type=int, default=32, help="texts of one request that go through the model at a time"
    )
    serve.add_argument("--max-length", type=int, help="cut texts at this many tokens")
    serve.add_argument("--max-texts", type=int, default=256, help="texts in one request")
    serve.add_argument("--max-characters", type=int, default=20_000, help="characters of one text")
    serve.add_argument("--max-new-tokens", type=int, default=512, help="tokens written for one request")
    serve.add_argument("--poll", type=float, default=5.0, help="seconds between looks at the log")
    serve.add_argument("--grace", type=float, default=30.0, help="seconds to finish in after SIGTERM")
    serve.add_argument(
        "--log", metavar="FILE", help="append a classifier's predictions as JSON lines, without their texts"
    )
    serve.add_argument("--log-texts", action="store_true", help="with their texts")
    serve.set_defaults(run=_serve)


def _add_watch(watch: argparse.ArgumentParser) -> None:
    watch.add_argument("name")
    watch.add_argument(
        "--from", dest="start", type=int, metavar="SEQ", help="begin at this entry (default: what is new)"
    )
    watch.add_argument("--state", metavar="FILE", help="keep the position here and resume from it")
    watch.add_argument("--webhook", metavar="URL", help=f"post each event, signed with ${_SECRET}")
    watch.add_argument("--attempts", type=int, help="end with exit code 7 after so many failed posts of one event")
    watch.add_argument("--poll", type=float, default=5.0, help="seconds between looks at the log")
    watch.add_argument("--once", action="store_true", help="end when there is nothing new")
    watch.set_defaults(run=_watch)


def _serve(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"serve needs {', '.join(missing)}; install slm-registry[serve]")
    from slm_registry.serving.server import Options, Service, serve

    if options.log_texts and not options.log:
        raise UsageError("--log-texts says how to log, but nothing is logged; add --log FILE")
    told = Options(
        threads=options.threads,
        workers=options.workers,
        max_length=options.max_length,
        batch_size=options.batch_size,
        texts=options.max_texts,
        characters=options.max_characters,
        new_tokens=options.max_new_tokens,
        poll=options.poll,
        grace=options.grace,
        log=Path(options.log) if options.log else None,
        log_texts=options.log_texts,
    )
    service = Service.start(registry, options.ref, told)
    found = service.live.resolved

    def ready(url: str) -> None:
        value = {"url": url, "model": found.model, "version": found.version, "digest": found.digest}
        text = clean(f"{options.ref} ({found.version}) on {url}")
        print(json.dumps(value) if options.json else text, flush=True)

    serve(service, options.host, options.port, ready)
    return None, ""


def _watch(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    if options.attempts is not None and options.attempts < 1:
        raise UsageError(f"--attempts is {options.attempts}; give a number above 0")
    tell = _teller(options)
    state = _state(registry, options)
    if state is None:
        for entry in _entries(_feed(registry, options), options):
            tell(entry)
        return None, ""
    with state.held():
        saved = state.load()
        feed = _feed(registry, options) if saved is None else Feed(registry.store, options.name, saved)
        feed.confirm()
        # From here on nothing is lost, even if the first event ends in a crash.
        state.save(feed.position)
        for entry in _entries(feed, options):
            tell(entry)
            state.save(feed.position)
    return None, ""


def _entries(feed: Feed, options: argparse.Namespace) -> Iterator[Entry]:
    return feed.read() if options.once else feed.follow(options.poll)


def _feed(registry: Registry, options: argparse.Namespace) -> Feed:
    now = Feed.from_now(registry.store, options.name)
    return now if options.start is None else Feed.starting_at(registry.store, options.name, options.start)


def _state(registry: Registry, options: argparse.Namespace) -> StateFile | None:
    """Where the position is kept: a webhook has a place of its own where none is named."""
    if options.state:
        return StateFile(Path(options.state), registry.store, options.name)
    if not options.webhook:
        return None
    base = expanded(os.environ.get("XDG_STATE_HOME") or "~/.local/state", "name a file with --state")
    what = hashlib.sha256(f"{registry.store.identity}\n{options.webhook}".encode()).hexdigest()[:16]
    return StateFile(base / "slm-registry" / f"watch-{options.name}-{what}.json", registry.store, options.name)


def _teller(options: argparse.Namespace) -> Callable[[Entry], None]:
    """What to do with an event: print it, and where there is a webhook post it first."""
    show = _show_json if options.json else _show
    if not options.webhook:
        return show
    webhook = Webhook(options.webhook, os.environ.get(_SECRET, ""))

    def post(entry: Entry) -> None:
        webhook.deliver(entry, options.attempts)
        show(entry)

    return post


def _show_json(entry: Entry) -> None:
    print(json.dumps(entry.as_dict(), ensure_ascii=False), flush=True)


def _show(entry: Entry) -> None:
    """One line, whatever the operation: its fields as they stand in the log."""
    fields = " ".join(f"{key}={value}" for key, value in entry.details.items() if value is not None)
    why = f" ({entry.reason})" if entry.reason else ""
    print(clean(f"{entry.seq} {entry.at} {entry.actor} {entry.op} {fields}{why}"), flush=True)
