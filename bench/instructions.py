#!/usr/bin/env python3
"""Instructions a request in user space, thread by thread and function by function, as valgrind's callgrind counts them:
a figure that no other load on the machine moves. The kernel's share is not in it, and what is done in batches is
done in smaller ones than at full speed, since everything runs some fifty times slower.
usage: instructions.py [NAME...] (of gateways.conf; usually tollgate). REQUEST=blast or paced counts events; LENGTH=seconds
of load, TOP=functions shown, KEEP=folder for the raw files (callgrind_annotate reads them). Build with PROFILE=quick to
see names. Needs valgrind."""
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import harness
from harness import Failed
from prof import load

LENGTH, WARMUP = int(os.environ.get('LENGTH', 6)), 3
TOP = int(os.environ.get('TOP', 40))
# What follows a name tells one instance from another: no two builds have the same.
NOISE = re.compile(r"'\d+$|::h[0-9a-f]{16}")


def under_callgrind(gateway, folder):
    """The same gateway, started by callgrind, which counts nothing until it is told to."""
    gateway.command = ('valgrind --tool=callgrind --instr-atstart=no --separate-threads=yes --compress-strings=no '
                       f'--compress-pos=no --callgrind-out-file={folder}/counted {gateway.command}')
    gateway.options['start_limit'] = '120'
    return gateway


def control(pid, *arguments):
    done = subprocess.run(['callgrind_control', *arguments, str(pid)], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f'callgrind_control: {(done.stderr or done.stdout).strip()}')


def costs_of(path):
    """Instructions by function in one thread's file; what a function calls is not its own."""
    costs, function, is_call = collections.Counter(), '', False
    with open(path, errors='replace') as file:
        for line in file:
            if line.startswith('fn='):
                function = NOISE.sub('', line[3:].strip())
            elif line.startswith('calls='):
                is_call = True
            elif line[:1].isdigit():
                if not is_call:
                    costs[function] += int(line.split()[1])
                is_call = False
    return costs


def counted(gateway, folder):
    """Requests (or events) of one load, and the costs of each thread meanwhile."""
    with under_callgrind(gateway, folder).running() as (pid, _, _):
        load(gateway, folder, WARMUP).communicate()
        control(pid, '--instr=on')
        # The code is translated anew once it is counted: that second warm-up counts as nothing.
        load(gateway, folder, WARMUP).communicate()
        control(pid, '--zero')
        seen = json.loads(load(gateway, folder, LENGTH).communicate()[0])
        control(pid, '--dump')
    files = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.startswith('counted.1-')]
    return seen['total_events'] or seen['total'], {path.rsplit('-', 1)[1]: costs_of(path) for path in files}


def main():
    for program in ('valgrind', 'callgrind_control'):
        if shutil.which(program) is None:
            raise Failed(f'{program} is not installed; on Debian: apt-get install valgrind')
    chosen = harness.gateways(sys.argv[1:] or ['tollgate'])
    harness.take_priority()
    with harness.mock_upstream():
        for gateway in chosen:
            with tempfile.TemporaryDirectory(prefix='instructions-') as folder:
                units, threads = counted(gateway, folder)
                print(f'## {gateway}: {units} requests or events')
                everything = collections.Counter()
                for thread, costs in threads.items():
                    everything.update(costs)
                    if costs.total() > units * 100:
                        print(f'thread {thread}: {costs.total() / units:,.0f} a unit')
                print(f'all threads: {everything.total() / units:,.0f} a unit')
                for function, cost in everything.most_common(TOP):
                    print(f'{cost / units:9,.0f} {100 * cost / everything.total():5.1f} %  {function[:120]}')
                if keep := os.environ.get('KEEP'):
                    shutil.copytree(folder, os.path.join(keep, gateway.name), dirs_exist_ok=True)


if __name__ == '__main__':
    try:
        main()
    except Failed as reason:
        sys.exit(f'instructions: {reason}')
