"""The judge is judged: a worse figure, a better one, and one that is missing."""
import copy
import unittest
from unittest import mock

import report


def phase(us_per_request, p50):
    return {'us_per_request': us_per_request, 'us_per_event': 20.0, 'rss_mb': 35.0, 'open_streams': 1000,
            'lat_us': {'p50': p50}, 'hop_us': {'p50': 100.0}, 'ttft_us': {'p50': 200.0}, 'foreign_gateway_core': 0.02}


def run(number, own_cpu=30.0):
    def gateway(name, cpu, p50):
        return {'name': name, 'run': number, 'ready_s': 0.02, 'idle_mb': 15.0,
                **{name: phase(cpu, p50) for name in ('max', 'r300', 'paced', 'hold')}}
    return [gateway('direct', 0, 100.0), gateway('hyper-stream', 20.0, 150.0), gateway('hyper-json', 25.0, 160.0),
            gateway('envoy', 50.0, 200.0), gateway('tollgate', own_cpu, 180.0),
            gateway('tollgate-bare', 30.0, 180.0), gateway('tollgate-told', 33.0, 180.0),
            gateway('tollgate-access', own_cpu * 1.1, 180.0), gateway('tollgate-wasm', own_cpu * 1.15, 180.0),
            gateway('envoy-wasm', 60.0, 180.0)]


class Judgement(unittest.TestCase):
    def setUp(self):
        size = mock.patch('report.os.path.getsize', return_value=20 * 1048576)
        self.addCleanup(size.stop)
        size.start()
        self.runs = report.by_run(run(1) + run(2) + run(3))
        _, self.judged, complaints = report.table(self.runs, {})
        self.assertEqual(complaints, [])

    def test_ratios_are_taken_in_a_run_and_added_latency_is_over_the_upstream(self):
        self.assertEqual(self.judged['cpu_request_envoy'], 0.6)
        self.assertEqual(self.judged['added_p50_envoy'], 0.8)
        self.assertEqual(self.judged['stream_kb'], 20.48)
        self.assertEqual(self.judged['told_request'], 1.1)
        self.assertAlmostEqual(self.judged['access_request'], 1.1)
        self.assertAlmostEqual(self.judged['module_request'], 1.15)
        self.assertAlmostEqual(self.judged['module_added'], 0.45)
        self.assertEqual(self.judged['ready_ms'], 20)
        self.assertEqual(self.judged['binary_mb'], 20)

    def test_sixteen_percent_worse_is_a_complaint_and_fourteen_is_not(self):
        worse = report.by_run(run(1, 34.9) + run(2, 34.9) + run(3, 34.9))
        names = [complaint.split(':')[0] for complaint in report.table(worse, self.judged)[2]]
        self.assertEqual(names, ['CPU a request beside envoy', 'CPU a request beside hyper-json'])
        slightly = report.by_run(run(1, 34.1) + run(2, 34.1) + run(3, 34.1))
        self.assertEqual(report.table(slightly, self.judged)[2], [])

    def test_one_slow_run_of_three_does_not_count(self):
        mixed = report.by_run(run(1) + run(2, 90.0) + run(3))
        self.assertEqual(report.table(mixed, self.judged)[2], [])

    def test_a_missing_phase_is_a_complaint(self):
        cut = copy.deepcopy(self.runs)
        del cut[0]['tollgate']['hold']
        lines, judged, complaints = report.table(cut, self.judged)
        self.assertEqual(len(complaints), 1)
        self.assertNotIn('stream_kb', judged)
        self.assertIn('| memory of an open stream | not measured |', '\n'.join(lines))

    def test_a_limit_that_is_not_met_is_shown(self):
        slow = report.by_run(run(1, 45.0) + run(2, 45.0) + run(3, 45.0))
        lines = report.table(slow, {})[0]
        self.assertIn('| CPU a request | 45.0 µs | envoy 50.0 µs | **0.90** (0.90–0.90) | 0.80 | NO |  |', lines)


if __name__ == '__main__':
    unittest.main()
