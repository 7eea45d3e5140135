"""What the benchmark and the profiler share: the gateways of gateways.conf, how one is started on its own core,
and what /proc tells about it. Standard library only; measures nothing itself."""
import contextlib
import ctypes
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import plain_abi

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
TOOLS = os.path.join(HERE, 'target', 'release')
RESULTS = os.path.join(HERE, 'results')
MODULES = os.path.join(ROOT, '.cache', 'wasm')
PROFILE = os.environ.get('PROFILE', 'release')
TICKS = os.sysconf('SC_CLK_TCK')
PAGE = os.sysconf('SC_PAGE_SIZE')
# The client and the mock share one core, the gateway owns the other: every figure is for one core of gateway.
GATEWAY_CORE, CLIENT_CORE = '1', '0'
NICE = '-15'
# How long a core without work looks for some before it halts.
HALT_POLL = '/sys/module/haltpoll/parameters/guest_halt_poll_ns'
HALT_AFTER_NS = '1000000'
# Logs and ledgers go to memory where they can: a disk writes back in another's turn.
MEMORY = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None


class Failed(Exception):
    """A gateway or a tool did not do what was asked; the message is for the reader."""


def take_priority():
    """Lifts this whole session over other load, and sees to it that nothing outlives an interrupted run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.suppress(OSError):
        # The kernel's autogroups make nice values count only inside one session.
        os.setsid()
        # Out of the terminal's session, its Ctrl-C does not come any more: follow make instead.
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        with open('/proc/self/autogroup', 'w') as group:
            group.write(NICE)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pinned(core, command):
    """The command on that core, above other processes where that is allowed."""
    raise_priority = ['nice', '-n', NICE] if os.geteuid() == 0 else []
    return raise_priority + ['taskset', '-c', core] + command


def most_streams():
    """How many streams a gateway can hold open here: each is two descriptors to it, ten thousand are asked for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(10_000, (hard - 600) // 2)


class Gateway:
    """One row of gateways.conf."""

    def __init__(self, line):
        fields = [field.strip() for field in line.split('|')]
        self.name, self.command, self.ready_url, self.target = fields[:4]
        self.options = dict(field.split('=', 1) for field in fields[4:] if field)

    def __repr__(self):
        return self.name

    def values(self, option, separator):
        return [value for value in self.options.get(option, '').split(separator) if value]

    @property
    def headers(self):
        return dict(header.split(': ', 1) for header in self.values('headers', ';;'))

    def header_arguments(self):
        """The same for bench-load."""
        return [part for header in self.values('headers', ';;') for part in ('-H', header)]

    def body(self, name):
        """The request of conf/NAME.json as this gateway wants it."""
        with open(os.path.join(HERE, 'conf', f'{name}.json')) as file:
            request = json.load(file)
        request['model'] = self.options.get('model', request['model'])
        return request

    def program(self):
        """Path of what the command runs; None for the upstream itself."""
        return None if self.command == '-' else shlex.split(self.fill(self.command, ''))[0]

    @staticmethod
    def fill(text, folder):
        places = dict(root=ROOT, tools=TOOLS, cache=os.path.join(ROOT, '.cache', 'bench'), profile=PROFILE, tmp=folder)
        for name, value in places.items():
            text = text.replace('{' + name + '}', value)
        return text

    @contextlib.contextmanager
    def running(self):
        """Starts the gateway; gives (pid, seconds until ready, its folder). pid is None for the upstream itself."""
        if self.command == '-':
            yield None, 0.0, None
            return
        with tempfile.TemporaryDirectory(prefix='bench-', dir=MEMORY) as folder:
            os.makedirs(RESULTS, exist_ok=True)
            self.prepare(folder)
            log_name = os.path.join(RESULTS, f'{self.name}.log')
            environment = {key[4:]: value for key, value in self.options.items() if key.startswith('env.')}
            with open(log_name, 'w') as log:
                began = time.monotonic()
                process = subprocess.Popen(
                    pinned(GATEWAY_CORE, shlex.split(self.fill(self.command, folder))),
                    cwd=HERE, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **environment})
            try:
                self.wait_until_ready(process, began, log_name)
                ready = time.monotonic() - began
                self.wait_until_said(process, log_name)
                yield process.pid, ready, folder
            finally:
                end(process)

    def prepare(self, folder):
        for pair in self.values('files', ','):
            name, source = pair.split(':')
            target = os.path.join(folder, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(os.path.join(HERE, 'conf', source), target)
        for pair in self.values('routes', ','):
            name, count = pair.split(':')
            with open(os.path.join(folder, name), 'w') as file:
                file.write('---\n'.join(ROUTE.format(number=number) for number in range(int(count))))
        for pair in self.values('consumers', ','):
            name, count = pair.split(':')
            with open(os.path.join(folder, name), 'w') as file:
                file.write(access(int(count)))

        for pair in self.values('module', ','):
            name, module = pair.split(':')
            with open(os.path.join(folder, name), 'w') as file:
                json.dump({
                    'apiVersion': 'extensions.higress.io/v1alpha1', 'kind': 'WasmPlugin',
                    'metadata': {'name': 'module', 'namespace': 'higress-system'},
                    'spec': {'url': 'file://' + os.path.join(MODULES, module), 'defaultConfig': {}}}, file)
        for module in self.values('plain_module', ','):
            with open(os.path.join(MODULES, module), 'rb') as file, \
                    open(os.path.join(RESULTS, f'{self.name}.wasm'), 'wb') as made:
                made.write(plain_abi.plain(file.read()))

    def wait_until_said(self, process, log_name):
        """Until its log holds what `said=` names: what is measured before that is another program."""
        text, began = self.options.get('said', ''), time.monotonic()
        while text:
            with open(log_name, errors='replace') as log:
                if text in log.read():
                    return
            if process.poll() is not None or time.monotonic() - began > 600:
                raise Failed(f'{self.name} never said {text!r}')
            time.sleep(0.1)

    def wait_until_ready(self, process, began, log_name):
        limit = float(self.options.get('start_limit', 30))
        while True:
            if process.poll() is not None or time.monotonic() - began > limit:
                with open(log_name, errors='replace') as log:
                    last_words = ' / '.join(log.read().strip().splitlines()[-5:])
                raise Failed(f'{self.name} is not ready (exit code {process.poll()}): {last_words}')
            with contextlib.suppress(OSError):
                if fetch(self.ready_url, limit=2)[0] < 300:
                    return
            time.sleep(0.002)


def access(consumers):
    """Who may ask, what and how often: key-auth with so many consumers, request-block with 100 rules, key-rate-limit."""
    def plugin(name, phase, priority, config):
        # Every YAML reader reads JSON.
        return json.dumps({
            'apiVersion': 'extensions.higress.io/v1alpha1', 'kind': 'WasmPlugin',
            'metadata': {'name': name, 'namespace': 'higress-system'},
            'spec': {'phase': phase, 'priority': priority, 'defaultConfig': config,
                     'url': f'oci://higress-registry.cn-hangzhou.cr.aliyuncs.com/plugins/{name}:1.0.0'}})
    keys = [{'name': f'consumer-{number}', 'credential': f'key-{number:08}'} for number in range(consumers)]
    limits = [{'key': f'consumer-{number}', 'query_per_second': 1000000} for number in range(min(consumers, 100))]
    return '\n---\n'.join([
        plugin('key-auth', 'AUTHN', 310, {'consumers': keys, 'keys': ['x-api-key'], 'global_auth': True}),
        plugin('request-block', 'AUTHZ', 320, {
            'block_urls': [f'forbidden-{number}' for number in range(50)],
            'block_headers': [f'bad-agent-{number}' for number in range(30)],
            'block_regexp_urls': [f'/hidden-{number}/.*[0-9]+' for number in range(20)]}),
        plugin('key-rate-limit', 'UNSPECIFIED_PHASE', 10, {
            'limit_by_header': 'x-mse-consumer', 'limit_keys': limits})])


# A route like those that a user's Ingress makes; {number} tells them apart.
ROUTE = '''apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  annotations:
    higress.io/destination: qwen.static
  name: route-{number}
  namespace: higress-system
spec:
  ingressClassName: higress
  rules:
    - host: route-{number}.example.com
      http:
        paths:
          - backend:
              resource:
                apiGroup: networking.higress.io
                kind: McpBridge
                name: default
            path: /v1
            pathType: Prefix
'''


def gateways(only=()):
    """The rows of gateways.conf, or those named; the row says in which order."""
    with open(os.path.join(HERE, 'gateways.conf')) as file:
        lines = [line.strip() for line in file]
    rows = [Gateway(line) for line in lines if line and not line.startswith('#')]
    unknown = set(only) - {row.name for row in rows}
    if unknown:
        raise Failed(f'not in gateways.conf: {", ".join(sorted(unknown))}')
    return [row for row in rows if not only or row.name in only]


@contextlib.contextmanager
def wakeful_cores():
    """Where this is a virtual machine, keeps a core that has nothing to do from halting at once. Waking a halted one takes
    the hypervisor and counts as the waker's time: the slower a gateway is, the more often the peers on the other core
    halt, and the more of that it is charged for."""
    before = None
    with contextlib.suppress(OSError), open(HALT_POLL, 'r+') as file:
        before = file.read()
        file.write(HALT_AFTER_NS)
    try:
        yield
    finally:
        if before is not None:
            with open(HALT_POLL, 'w') as file:
                file.write(before)


@contextlib.contextmanager
def mock_upstream():
    """The mock on port 9000, among wakeful cores; gives its pid."""
    with wakeful_cores(), listening_mock() as pid:
        yield pid


@contextlib.contextmanager
def listening_mock():
    """The mock alone."""
    process = subprocess.Popen(
        pinned(CLIENT_CORE, [os.path.join(TOOLS, 'bench-mock'), '--port', '9000']),
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        first_line = process.stderr.readline()
        if 'mock on' not in first_line:
            raise Failed(f'the mock upstream does not start: {first_line}{process.stderr.read()}'.strip())
        yield process.pid
    finally:
        end(process)


def end(process):
    process.terminate()
    try:
        process.wait(8)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def fetch(url, data=None, headers=None, limit=5):
    """(status, body); raises OSError when there is no answer."""
    request = urllib.request.Request(url, data=data, headers={'content-type': 'application/json', **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=limit) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


def family(pid):
    """The process and all that it started."""
    found, to_visit = [], [pid]
    while to_visit:
        current = to_visit.pop()
        found.append(current)
        with contextlib.suppress(OSError):
            for thread in os.listdir(f'/proc/{current}/task'):
                with open(f'/proc/{current}/task/{thread}/children') as children:
                    to_visit += [int(child) for child in children.read().split()]
    return found


def cpu_seconds(pid):
    """User and system time of the process tree."""
    total = 0
    for member in family(pid) if pid else []:
        with contextlib.suppress(OSError), open(f'/proc/{member}/stat') as stat:
            fields = stat.read().rsplit(')', 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_mb(pid):
    """Resident memory of the process tree in MiB."""
    total = 0
    for member in family(pid) if pid else []:
        with contextlib.suppress(OSError), open(f'/proc/{member}/statm') as statm:
            total += int(statm.read().split()[1]) * PAGE
    return total / 1048576


def busy_seconds():
    """Seconds that each core has worked, by the core's number."""
    busy = {}
    with open('/proc/stat') as stat:
        for line in stat:
            if line.startswith('cpu') and line[3] != ' ':
                fields = line.split()
                values = [int(field) for field in fields[1:9]]
                busy[fields[0][3:]] = (sum(values) - values[3] - values[4]) / TICKS
    return busy
