"""The prediction server's figures, in Prometheus form."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from slm_registry.runtime.text_classification import Prediction
from slm_registry.runtime.token_classification import Span
from slm_registry.serving.livemodel import LiveModel

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counts of one server. Every name begins with `slm_`."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = registry = CollectorRegistry()
        self._requests = Counter("slm_requests", "HTTP requests", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "slm_request_seconds", "Time of /predict and /generate requests", buckets=_SECONDS, registry=registry
        )
        self._in_flight = Gauge("slm_requests_in_flight", "Requests being answered", registry=registry)
        self._predictions = Counter("slm_predictions", "Texts labelled", ["label"], registry=registry)
        self._spans = Counter("slm_spans", "Spans found", ["label"], registry=registry)
        self._generated = Counter("slm_generated_tokens", "Tokens written", registry=registry)
        self._unlogged = Counter("slm_prediction_log_failures", "Predictions that were not logged", registry=registry)

    def watch(self, live: LiveModel, problem: Callable[[], str | None]) -> None:
        """Add what the model's exchange has to tell."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
        from prometheus_client.registry import Collector

        class _Live(Collector):
            def collect(self) -> list[Metric]:
                """The figures at this moment."""
                resolved, status = live.resolved, live.status
                named = {"model": resolved.model, "version": resolved.version, "digest": resolved.digest}
                age = time.time() - status.as_of.timestamp()
                return [
                    InfoMetricFamily("slm_model", "What serves", named),
                    GaugeMetricFamily("slm_degraded", "1 where /health names a problem", value=int(bool(problem()))),
                    GaugeMetricFamily("slm_alias_age_seconds", "Since the reference was looked up", value=age),
                    CounterMetricFamily("slm_reloads", "Exchanges of the model", value=status.reloads),
                    CounterMetricFamily("slm_reload_failures", "Looks or loads that failed", value=status.failures),
                ]

        self._registry.register(_Live())

    def begin(self) -> Callable[[str, int], None]:
        """Note that a request begins; the answer notes its end, with its path and status."""
        self._in_flight.inc()
        start = time.perf_counter()

        def end(path: str, status: int) -> None:
            self._in_flight.dec()
            self._requests.labels(path, status).inc()
            if path in ("/predict", "/generate"):
                self._seconds.observe(time.perf_counter() - start)

        return end

    def predicted(self, predictions: Sequence[Prediction]) -> None:
        """Note what was answered."""
        for prediction in predictions:
            self._predictions.labels(prediction.label).inc()

    def spotted(self, rows: Sequence[Sequence[Span]]) -> None:
        """Note the spans that were found."""
        for row in rows:
            for span in row:
                self._spans.labels(span.label).inc()

    def generated(self, tokens: int) -> None:
        """Note what was written."""
        self._generated.inc(tokens)

    def unlogged(self, count: int) -> None:
        """Note predictions that the log did not take."""
        self._unlogged.inc(count)

    def page(self) -> tuple[bytes, str]:
        """The page, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._registry), CONTENT_TYPE_LATEST
