"""The gauges: what the rooms report, in the form that Prometheus reads."""
