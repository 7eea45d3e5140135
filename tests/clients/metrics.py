"""Reads /stats/prometheus with Prometheus's own parsers; prints every sample as one JSON object.

usage: metrics.py URL
"""

import json
import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def main(url):
    with urllib.request.urlopen(url) as answer:
        text = answer.read().decode()
    samples = {}
    for family in text_string_to_metric_families(text):
        assert family.type != "unknown", f"{family.name} has no type"
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            series = f"{sample.name}{{{labels}}}"
            assert series not in samples, f"{series} twice"
            samples[series] = sample.value
    print(json.dumps(samples))


main(*sys.argv[1:])
