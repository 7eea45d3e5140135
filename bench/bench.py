#!/usr/bin/env python3
"""Runs every gateway through every phase, run after run, and writes one JSON line for each to results/.
A run starts all gateways, and they take turns inside a phase, round after round: what is compared is measured seconds
apart, so that a slow minute of the machine hits all of it. See README.md."""
import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

import harness
from harness import Failed, cpu_seconds, memory_mb

# name: (request of conf/, arguments of the load generator, seconds of warm-up)
PHASES = {
    'max': ('chat', ['--conns', '64'], 1),
    'r100': ('chat', ['--conns', '128', '--rate', '100'], 0.5),
    'r300': ('chat', ['--conns', '128', '--rate', '300'], 0.5),
    'r1000': ('chat', ['--conns', '256', '--rate', '1000'], 0.5),
    'blast': ('blast', ['--conns', '64', '--stream'], 1),
    'paced': ('paced', ['--conns', '200', '--stream', '--ramp-ms', '2000'], 2.5),
    'hold': ('hold', ['--conns', str(harness.most_streams()), '--stream', '--ramp-ms', '5000'], 7),
}
USUAL_GATEWAYS = 'direct,hyper-stream,hyper-json,envoy,tollgate,tollgate-bare,tollgate-told,tollgate-access,tollgate-wasm,envoy-wasm'
USUAL_PHASES = 'max,r300,paced,hold'


def measure(gateway, pid, mock, phase, seconds):
    """One phase: what the load generator saw, and what the gateway used meanwhile."""
    body, arguments, warmup = PHASES[phase]
    request_file = os.path.join(harness.RESULTS, 'request.json')
    with open(request_file, 'w') as file:
        json.dump(gateway.body(body), file, separators=(',', ':'))
    command = [os.path.join(harness.TOOLS, 'bench-load'), '--url', gateway.target, '--body', request_file,
               '--duration', str(seconds), '--warmup', str(warmup)] + arguments
    command += gateway.header_arguments()
    cpu, busy, mock_cpu = cpu_seconds(pid), harness.busy_seconds(), cpu_seconds(mock)
    began = time.monotonic()
    load = subprocess.Popen(harness.pinned(harness.CLIENT_CORE, command), stdout=subprocess.PIPE, text=True)
    peak = load_cpu = 0
    while load.poll() is None:
        peak = max(peak, memory_mb(pid))
        load_cpu = max(load_cpu, cpu_seconds(load.pid))
        time.sleep(0.1)
    wall = time.monotonic() - began
    if load.returncode != 0:
        raise Failed(f'{gateway} {phase}: the load generator ended with {load.returncode}')
    seen = json.loads(load.stdout.read())
    cpu = cpu_seconds(pid) - cpu
    client_cpu = cpu_seconds(mock) - mock_cpu + load_cpu
    used = {core: seconds - busy[core] for core, seconds in harness.busy_seconds().items()}
    seen['rss_mb'] = round(peak, 1)
    seen['gateway_busy'] = round(cpu / wall, 3)
    seen['client_busy'] = round(client_cpu / wall, 3)
    # Share of a core that others used while we measured, interrupts included.
    seen['foreign_gateway_core'] = round(max(0, used[harness.GATEWAY_CORE] - cpu) / wall, 3)
    seen['foreign_client_core'] = round(max(0, used[harness.CLIENT_CORE] - client_cpu) / wall, 3)
    requests = seen['total'] or seen['sent']
    seen['us_per_request'] = round(cpu * 1e6 / requests, 2) if requests else None
    seen['us_per_event'] = round(cpu * 1e6 / seen['total_events'], 3) if seen['total_events'] else None
    return seen


def check_work(gateway):
    """Sends one request that the mock echoes: a figure counts only if the gateway does its work."""
    request = gateway.body('chat')
    request['messages'][-1]['content'] = '[[echo=1]]'
    status, body = harness.fetch(gateway.target, json.dumps(request).encode(), gateway.headers)
    if status != 200:
        raise Failed(f'{gateway} answers {status}: {body[:300]!r}')
    arrived = json.loads(body)['choices'][0]['message']['content'].replace('": ', '":')
    for text in gateway.values('expect', ';;'):
        if text.lower() not in arrived.lower():
            raise Failed(f'{gateway} sends no {text!r} upstream but: {arrived[:1500]}')


def check_errors(gateway, phase, seen):
    """What went wrong on the way is a failure of the run, not a footnote."""
    wrong = {name: seen[name] for name in ('errors', 'resets', 'truncated') if seen[name]}
    if phase == 'hold' and seen['open_streams'] != harness.most_streams():
        wrong['open_streams'] = seen['open_streams']
    if wrong:
        raise Failed(f'{gateway} {phase}: {wrong}, statuses {seen["status"]}')


def start(gateway, run, stack):
    """The gateway, started until the stack is left; (its record, pid, its folder). Where it is to start several times,
    the median time to ready counts: one start tells more about the machine's files and caches."""
    record = {'name': gateway.name, 'run': run, 'time': time.time()}
    ready = []
    for _ in range(int(gateway.options.get('starts', 1)) - 1):
        with gateway.running() as (_, ready_s, _):
            ready.append(ready_s)
    pid, ready_s, folder = stack.enter_context(gateway.running())
    ready.append(ready_s)
    record['ready_s'] = round(statistics.median(ready), 4)
    record['starts_s'] = [round(seconds, 4) for seconds in ready]
    if pid:
        time.sleep(float(gateway.options.get('settle', 0.5)))
        record['idle_mb'] = round(memory_mb(pid), 2)
    check_work(gateway)
    return record, pid, folder


def empty_log(gateway, folder):
    """Empties the access log; its size. At a hundred megabytes a second it would fill the machine's memory, and what it
    costs to find more of that is not the gateway's."""
    if 'access.log' not in gateway.command:
        return 0
    access_log = os.path.join(folder, 'access.log')
    size = os.path.getsize(access_log)
    os.truncate(access_log, 0)
    return size


def one(run, chosen, mock, phases, options):
    """One start of every gateway, and every phase in so many rounds, gateway after gateway in each. Gives a record for
    each gateway and round; a round counts as a run of its own."""
    with contextlib.ExitStack() as stack:
        started = [(gateway, *start(gateway, run, stack)) for gateway in chosen]
        first = (run - 1) * options.rounds + 1
        rounds = [[{**record, 'run': first + number} for _, record, _, _ in started] for number in range(options.rounds)]
        logged = dict.fromkeys((gateway.name for gateway in chosen), 0)
        for phase in phases:
            # Memory does not depend on the moment.
            taken = [rounds] if phase == 'hold' else [[records] for records in rounds]
            for together in taken:
                for index, (gateway, _, pid, folder) in enumerate(started):
                    if phase in gateway.values('skip', ','):
                        continue
                    seen = measure(gateway, pid, mock, phase, options.seconds)
                    print(line(gateway, together[0][index]['run'], phase, seen), flush=True)
                    check_errors(gateway, phase, seen)
                    logged[gateway.name] += empty_log(gateway, folder)
                    for records in together:
                        records[index][phase] = seen
        for gateway in chosen:
            if 'access.log' in gateway.command and logged[gateway.name] == 0:
                raise Failed(f'{gateway} wrote no access log')
    return [record for records in rounds for record in records]


def line(gateway, run, phase, seen):
    return (f'{gateway.name:>13} run {run} {phase:>5}: {seen["rps"]:>8} requests/s {seen["us_per_request"]} µs each, '
            f'{seen["events_ps"]:>8} events/s {seen["us_per_event"]} µs each, p50 {seen["lat_us"]["p50"]} p99 {seen["lat_us"]["p99"]} '
            f'transit {seen["hop_us"]["p50"]} first event {seen["ttft_us"]["p50"]} µs, {seen["rss_mb"]} MB; '
            f'busy: gateway {seen["gateway_busy"]} client {seen["client_busy"]} others {seen["foreign_gateway_core"]}/{seen["foreign_client_core"]}')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', default=USUAL_GATEWAYS, help='gateways of gateways.conf, with commas')
    parser.add_argument('--phases', default=USUAL_PHASES, help=', '.join(PHASES))
    parser.add_argument('--runs', type=int, default=2, help='starts of every gateway')
    parser.add_argument('--rounds', type=int, default=4, help='of each phase, between two starts')
    parser.add_argument('--seconds', type=float, default=2.0, help='length of a phase in a round, after its warm-up')
    parser.add_argument('--out', default=os.path.join(harness.RESULTS, 'last.jsonl'))
    options = parser.parse_args()
    phases = options.phases.split(',')
    unknown = set(phases) - set(PHASES)
    if unknown:
        raise Failed(f'unknown phases: {", ".join(sorted(unknown))}')
    chosen = harness.gateways(options.only.split(','))
    for gateway in chosen:
        if gateway.program() and not os.path.exists(gateway.program()):
            raise Failed(f'{gateway}: {gateway.program()} does not exist')
    harness.take_priority()
    os.makedirs(harness.RESULTS, exist_ok=True)
    with open(options.out, 'w') as out, harness.mock_upstream() as mock:
        for run in range(1, options.runs + 1):
            for record in one(run, chosen, mock, phases, options):
                out.write(json.dumps(record) + '\n')
            out.flush()


if __name__ == '__main__':
    try:
        main()
    except Failed as reason:
        sys.exit(f'bench: {reason}')
