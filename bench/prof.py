#!/usr/bin/env python3
"""Where a gateway's CPU goes: syscalls and context switches a request, then self time by object and by symbol.
usage: prof.py [NAME...] (of gateways.conf; usually tollgate). REQUEST=blast or paced profiles streams; build with
PROFILE=quick to see symbols. Needs perf, on Debian from linux-perf, and the rights to use it."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import harness
from harness import Failed

REQUEST = os.environ.get('REQUEST', 'chat')
WARMUP_S, SAMPLE_S = 3, 3


def load(gateway, folder, seconds):
    """Starts 64 connections in a closed loop for that long."""
    body = os.path.join(folder, 'request.json')
    with open(body, 'w') as file:
        json.dump(gateway.body(REQUEST), file, separators=(',', ':'))
    command = [os.path.join(harness.TOOLS, 'bench-load'), '--url', gateway.target, '--body', body,
               '--conns', '64', '--warmup', '0', '--duration', str(seconds)]
    command += [] if REQUEST == 'chat' else ['--stream']
    command += gateway.header_arguments()
    return subprocess.Popen(harness.pinned(harness.CLIENT_CORE, command), stdout=subprocess.PIPE, text=True)


def counts(gateway, folder, pids):
    """Prints what perf stat counts, divided by requests (or events, where answers are streams)."""
    running = load(gateway, folder, SAMPLE_S)
    stat = subprocess.run(
        ['perf', 'stat', '-x,', '-e', 'raw_syscalls:sys_enter,context-switches,task-clock', '-p', pids, 'sleep', str(SAMPLE_S - 0.5)],
        capture_output=True, text=True)
    seen = json.loads(running.communicate()[0])
    lines = [line.split(',') for line in stat.stderr.splitlines() if re.match(r'^[\d.]+,', line)]
    if not lines:
        raise Failed(f'perf counts nothing here: {stat.stderr.strip()}')
    units = (seen['events_ps'] or seen['rps']) * (SAMPLE_S - 0.5)
    unit = 'event' if seen['events_ps'] else 'request'
    print(f'## {gateway}: {seen["rps"]} requests/s, {seen["events_ps"]} events/s')
    for value, _, name, *_ in lines:
        scale, label = (1e3, 'µs') if name.startswith('task-clock') else (1, '')
        print(f'{name}: {float(value) * scale / max(units, 1):.3f} {label} a {unit}')


def samples(gateway, folder, pids):
    """Prints the objects and symbols that perf record found on the CPU most often."""
    running = load(gateway, folder, SAMPLE_S)
    data = os.path.join(folder, 'perf.data')
    record = subprocess.run(
        ['perf', 'record', '-q', '-F', '1999', '-e', 'cpu-clock', '-g', '-o', data, '-p', pids, 'sleep', str(SAMPLE_S - 0.5)],
        capture_output=True, text=True)
    running.communicate()
    if record.returncode != 0:
        raise Failed(f'perf record: {record.stderr.strip()}')
    for order, count in (('dso', 6), ('dso,symbol', 40)):
        report = subprocess.run(
            ['perf', 'report', '-q', '--no-children', '-g', 'none', '--percent-limit', '0.3', '--sort', order, '-i', data],
            capture_output=True, text=True, errors='replace')
        lines = [line.rstrip()[:130] for line in report.stdout.splitlines() if line.strip()]
        print('\n'.join(lines[:count]) + '\n--', flush=True)


def main():
    if shutil.which('perf') is None:
        raise Failed('perf is not installed; on Debian: apt-get install linux-perf')
    chosen = harness.gateways(sys.argv[1:] or ['tollgate'])
    harness.take_priority()
    with harness.mock_upstream(), tempfile.TemporaryDirectory(prefix='prof-') as folder:
        for gateway in chosen:
            with gateway.running() as (pid, _, _):
                load(gateway, folder, WARMUP_S).communicate()
                pids = ','.join(str(member) for member in harness.family(pid))
                counts(gateway, folder, pids)
                samples(gateway, folder, pids)


if __name__ == '__main__':
    try:
        main()
    except Failed as reason:
        sys.exit(f'prof: {reason}')
