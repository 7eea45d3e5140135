#!/usr/bin/env python3
"""Turns results/last.jsonl into one table in Markdown and compares it with baseline.json.
Each ratio is taken inside one run, then the median over the runs counts. `--accept` makes what was measured the
new baseline. Exit code 1: a guarded figure got more than 15 % worse than the baseline, or could not be measured."""
import json
import os
import statistics
import sys

import harness

BASELINE = os.path.join(harness.HERE, 'baseline.json')
WORSE = 1.15
GATEWAY = 'tollgate'


class Row:
    """One line of the table: a figure of the gateway, set against a peer's or standing alone."""

    def __init__(self, key, title, unit, limit, figure, peer=None, guarded=True, gateway=GATEWAY):
        self.key, self.title, self.unit, self.limit = key, title, unit, limit
        self.figure, self.peer, self.guarded, self.gateway = figure, peer, guarded, gateway


def at(*path):
    def figure(run, name):
        value = run[name]
        for step in path:
            value = value[step]
        return value
    return figure


def added_p50(run, name):
    """Median latency over that of the upstream asked directly, in the same run."""
    latency = at('r300', 'lat_us', 'p50')
    return latency(run, name) - latency(run, 'direct')


def added_by_module(run, name):
    """CPU a request over that of the same gateway without the module, in the same run."""
    cpu = at('max', 'us_per_request')
    return cpu(run, name) - cpu(run, name.removesuffix('-wasm'))


def stream_kb(run, name):
    held = run[name]['hold']
    return (held['rss_mb'] - run[name]['idle_mb']) * 1024 / held['open_streams']


def ready_ms(run, name):
    return run[name]['ready_s'] * 1000


def binary_mb(run, name):
    """Not measured in the run, but a figure that grows unnoticed like the others."""
    return os.path.getsize(os.path.join(harness.ROOT, 'target', harness.PROFILE, name)) / 1048576


ROWS = [
    Row('cpu_request_envoy', 'CPU a request', 'µs', 0.8, at('max', 'us_per_request'), 'envoy'),
    Row('cpu_request_hyper_json', 'CPU a request', 'µs', 1.5, at('max', 'us_per_request'), 'hyper-json'),
    Row('cpu_event_envoy', 'CPU a streamed event, paced', 'µs', 1.0, at('paced', 'us_per_event'), 'envoy'),
    Row('transit_hyper_stream', 'transit of an event, p50', 'µs', 1.3, at('paced', 'hop_us', 'p50'), 'hyper-stream'),
    Row('first_event_hyper_stream', 'time to first event, p50', 'µs', 1.3, at('paced', 'ttft_us', 'p50'), 'hyper-stream'),
    Row('added_p50_envoy', 'added latency at 300 requests/s, p50', 'µs', 1.0, added_p50, 'envoy'),
    Row('told_request', 'CPU a request, with ai-statistics, ledger and JSON log', 'µs', 1.15, at('max', 'us_per_request'),
        'tollgate-bare', gateway='tollgate-told'),
    Row('told_event', 'CPU a streamed event, the same', 'µs', 1.2, at('paced', 'us_per_event'),
        'tollgate-bare', gateway='tollgate-told'),
    Row('access_request', 'CPU a request, with key-auth, request-block and key-rate-limit', 'µs', 1.15, at('max', 'us_per_request'),
        'tollgate', gateway='tollgate-access'),
    Row('module_request', 'CPU a request, with a Go module that looks at headers', 'µs', 1.2, at('max', 'us_per_request'),
        'tollgate', gateway='tollgate-wasm'),
    # A difference of two figures: too unsteady to hold a 15 % line.
    Row('module_added', 'CPU that this module adds to a request', 'µs', 1.0, added_by_module, 'envoy-wasm',
        gateway='tollgate-wasm', guarded=False),
    Row('idle_mb', 'memory idle, 100 routes', 'MB', 25, at('idle_mb')),
    Row('load_mb', 'memory under 64 connections', 'MB', 40, at('max', 'rss_mb')),
    Row('stream_kb', 'memory of an open stream', 'KB', 30, stream_kb),
    # A few milliseconds of process start: too short to hold a 15 % line on a busy machine.
    Row('ready_ms', 'ready after start, 100 routes', 'ms', 100, ready_ms, guarded=False),
    Row('binary_mb', 'binary', 'MB', 40, binary_mb),
]


def by_run(records):
    """[{gateway: record}], one entry a run."""
    runs = {}
    for record in records:
        runs.setdefault(record['run'], {})[record['name']] = record
    return [runs[number] for number in sorted(runs)]


def summary(row, runs):
    """What the row shows: medians of the gateway's and the peer's figure, and what is held against the limit."""
    own = [row.figure(run, row.gateway) for run in runs]
    if row.peer is None:
        return {'own': statistics.median(own), 'peer': None, 'judged': statistics.median(own)}
    peers = [row.figure(run, row.peer) for run in runs]
    ratios = [mine / theirs for mine, theirs in zip(own, peers)]
    return {'own': statistics.median(own), 'peer': statistics.median(peers), 'judged': statistics.median(ratios),
            'low': min(ratios), 'high': max(ratios)}


def short(value):
    return f'{value:.1f}' if value < 100 else f'{value:.0f}'


def table_line(row, seen, before):
    peer = f'{row.peer} {short(seen["peer"])} {row.unit}' if row.peer else ''
    ratio = f'**{seen["judged"]:.2f}** ({seen["low"]:.2f}–{seen["high"]:.2f})' if row.peer else ''
    limit = f'{row.limit:.2f}' if row.peer else f'{row.limit} {row.unit}'
    verdict = 'yes' if seen['judged'] <= row.limit else 'NO'
    accepted = '' if before is None else f'{before:.2f}'
    return f'| {row.title} | {short(seen["own"])} {row.unit} | {peer} | {ratio} | {limit} | {verdict} | {accepted} |'


def table(runs, baseline):
    """(Markdown lines, {key: judged figure}, complaints)."""
    lines = ['| what | Tollgate | beside | ratio, median (range) | limit | met | last accepted |', '|---|---|---|---|---|---|---|']
    judged, complaints = {}, []
    for row in ROWS:
        try:
            seen = summary(row, runs)
        except (KeyError, TypeError, ZeroDivisionError, statistics.StatisticsError, OSError) as gap:
            lines.append(f'| {row.title} | not measured | {row.peer or ""} | | | | |')
            complaints.append(f'{row.title}: not measured ({gap!r})')
            continue
        before = baseline.get(row.key)
        judged[row.key] = round(seen['judged'], 3)
        lines.append(table_line(row, seen, before))
        if row.guarded and before is not None and seen['judged'] > before * WORSE:
            against = f' beside {row.peer}' if row.peer else ''
            complaints.append(f'{row.title}{against}: {seen["judged"]:.2f}, accepted was {before:.2f}')
    return lines, judged, complaints


def noise(runs):
    """How much of the gateway's core other programs used, at worst: above a tenth, look at the ranges first."""
    shares = [phase['foreign_gateway_core'] for run in runs for record in run.values() if record['name'] != 'direct'
              for phase in record.values() if isinstance(phase, dict)]
    return max(shares, default=0)


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != '--accept']
    results = arguments[0] if arguments else os.path.join(harness.RESULTS, 'last.jsonl')
    try:
        with open(results) as file:
            runs = by_run([json.loads(line) for line in file])
    except OSError as missing:
        sys.exit(f'bench: {missing}: run make bench first')
    baseline = {}
    if os.path.exists(BASELINE):
        with open(BASELINE) as file:
            baseline = json.load(file)
    lines, judged, complaints = table(runs, baseline)
    streams = [run[GATEWAY]['hold']['open_streams'] for run in runs if 'hold' in run.get(GATEWAY, {})]
    held = f'; {min(streams)} streams held open' if streams else ''
    lines += ['', f'{len(runs)} runs, cargo profile `{harness.PROFILE}`{held}; '
                  f'others used at most {noise(runs):.0%} of the gateway\'s core.']
    print('\n'.join(lines))
    with open(os.path.join(harness.RESULTS, 'table.md'), 'w') as file:
        file.write('\n'.join(lines) + '\n')
    if '--accept' in sys.argv:
        if len(judged) < len(ROWS):
            sys.exit('bench: not accepted, some rows were not measured')
        with open(BASELINE, 'w') as file:
            json.dump(judged, file, indent=2)
            file.write('\n')
        print(f'\naccepted: {os.path.relpath(BASELINE, harness.ROOT)}')
        return
    if not baseline:
        print('\nno baseline yet: make bench-accept takes this one')
    if complaints:
        sys.exit('\n'.join(['', 'bench: worse than the baseline by more than 15 %, or missing:'] + complaints))


if __name__ == '__main__':
    main()
