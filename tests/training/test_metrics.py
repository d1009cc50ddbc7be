import io
import json
import re
import time

import pytest
import rich.console
from tensorboardX.proto import event_pb2

from training import flops
from training import step as step_lib
from training.metrics import Display, Meter, MetricsWriter, duration, summary_line


def test_what_is_not_finite_is_null(tmp_path):
  writer = MetricsWriter(tmp_path, 0, print)
  writer.write(1, {'loss': float('nan'), 'bpb': 2.0})
  writer.close()
  assert json.loads((tmp_path / 'metrics.jsonl').read_text()) == {'step': 1, 'loss': None, 'bpb': 2.0}
  assert writer.last() == {'loss': None, 'bpb': 2.0}


def events(directory):
  """(step, name, value) of every scalar in the event files of a directory."""
  for path in sorted(directory.iterdir()):
    data = path.read_bytes()
    while data:  # records: length, its checksum, content, its checksum
      length = int.from_bytes(data[:8], 'little')
      event = event_pb2.Event.FromString(data[12 : 12 + length])
      data = data[16 + length :]
      yield from ((event.step, value.tag, value.simple_value) for value in event.summary.value)


def test_tensorboard_has_what_is_finite_also_after_a_quick_restart(tmp_path):
  for step in (1, 2):
    writer = MetricsWriter(tmp_path, step - 1, print)
    writer.write(step, {'loss': 0.5 * step, 'bpb': float('nan')})
    writer.close()
  assert list(events(tmp_path / 'tensorboard')) == [(1, 'loss', 0.5), (2, 'loss', 1.0)]


def test_metrics_without_a_value_are_in_no_file_and_no_line(tmp_path):
  values = step_lib.read({'loss': 1.0, 'bpb': 0.0, 'text_bytes': 0.0, 'eos_nats': 2.0, 'ends': 3.0, 'bytes': 4.0})
  assert values == {'loss': 1.0, 'eos_nats': 2.0, 'bytes': 4.0}
  writer = MetricsWriter(tmp_path, 0, print)
  writer.write(1, values)
  writer.close()
  assert json.loads((tmp_path / 'metrics.jsonl').read_text()) == {'step': 1, **values}
  assert {name for _, name, _ in events(tmp_path / 'tensorboard')} == values.keys()
  assert 'bpb' not in summary_line(1, 2, values, 1.0)


def test_a_new_writer_drops_what_is_after_its_step(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
  MetricsWriter(tmp_path, 2, print).close()
  assert (tmp_path / 'metrics.jsonl').read_text() == '{"step": 1}\n{"step": 2}\n'


def test_lines_that_could_not_be_written_come_later_and_are_told_once(tmp_path):
  told = []
  writer = MetricsWriter(tmp_path / 'absent', 0, told.append)
  writer.write(1, {'loss': 1.0})
  writer.write(2, {'loss': 2.0})
  (tmp_path / 'absent').mkdir()
  writer.write(3, {'loss': 3.0})
  assert len(told) == 1 and 'metrics cannot be written' in told[0]
  steps = [json.loads(line)['step'] for line in (tmp_path / 'absent' / 'metrics.jsonl').read_text().splitlines()]
  assert steps == [1, 2, 3]


def test_a_terminal_gets_a_bar_with_the_time_left_and_a_file_plain_lines(capsys):
  display = Display()
  display._console = rich.console.Console(file=io.StringIO(), force_terminal=True, width=120)
  display.start(100, 10)
  display.advance(50, 'bpb 1.5')
  display.line('[not markup]')
  display.stop()
  shown = re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', display._console.file.getvalue())  # without colours and cursor moves
  for part in ('50/100', 'bpb 1.5', 'left', '[not markup]'):
    assert part in shown
  plain = Display()
  plain.start(100, 10)
  plain.advance(50)
  plain.line('[not markup]')
  plain.stop()
  assert capsys.readouterr().out == '[not markup]\n'


def test_the_meter_leaves_pauses_out():
  meter = Meter()
  meter.add(1000.0)
  time.sleep(0.02)
  with meter:
    time.sleep(0.2)
  bytes_per_second, steps_per_second, _ = meter.read()
  assert 1000 / 0.1 < bytes_per_second < 1000 / 0.02 and bytes_per_second == pytest.approx(1000 * steps_per_second)


def test_utilization_counts_forward_and_backward_once():
  assert flops.utilization(10.0, 100.0, 6000.0) == pytest.approx(0.5)
  assert flops.matmul_peak('float32') > 1e8


def test_lines_are_short():
  stages = ({'bytes_per_chunk': 4.567, 'fill': 0.5},)
  line = summary_line(5, 10, {'loss': 1.0, 'bpb': 2.0, 'learning_rate': 1e-3, 'stages': stages, 'other': 1.0}, 3723)
  assert line == 'step 5/10  loss 1.0000  bpb 2.0000  lr 0.001  bytes_per_chunk_0 4.57  left 1:02:03'
  assert duration(61) == '1:01'
