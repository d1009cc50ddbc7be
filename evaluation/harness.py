"""Runs tasks of lm-evaluation-harness on a trained model: python -m evaluation.harness --workdir=DIR --tasks=NAME,…

Needs `pip install -r requirements-harness.txt`. DIR is a work directory of train.py, or a directory with official
weights. Tasks are those of the library, whose data most often come from a hub, and those of YAML files under
--include_path, whose data may be local (docs/suites.md). Prints the library's table and writes its numbers to
DIR/harness.json. Byte models have no tokens: a task's `max_gen_toks` counts --bytes_per_token bytes each.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from training import command_line

_WORKDIR = flags.DEFINE_string('workdir', None, 'Work directory of a run, or a directory with official weights.')
_STEP = flags.DEFINE_string(
  'step', None, "Checkpoint to score: a number or 'best' (lowest validation score); default: the newest."
)
_TASKS = flags.DEFINE_list('tasks', [], 'Names of tasks or groups.')
_INCLUDE = flags.DEFINE_string('include_path', None, 'Directory with YAML files of further tasks.')
_SHOTS = flags.DEFINE_integer('num_fewshot', None, 'Examples in a prompt; default: as the task says.', lower_bound=0)
_LIMIT = flags.DEFINE_integer('limit', None, 'Only the first so many documents of each task.', lower_bound=1)
_SEQ_LEN = flags.DEFINE_integer('seq_len', None, 'Symbols per row; default: as the run validates.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', None, 'Rows per batch; default: as the run validates.')
_BYTES = flags.DEFINE_integer('bytes_per_token', 4, 'Bytes that a task may write for each token.', lower_bound=1)
_OUTPUT = flags.DEFINE_string('output', None, 'Where the numbers go; default: harness.json in the work directory.')

_OFFICIAL_SHAPE = {'seq_len': 8192, 'batch_size': 1}
_LIMITS = ('max_gen_toks', 'max_new_tokens', 'max_tokens', 'max_completion_tokens')  # names of one thing, first wins
_MOST_TOKENS = 256  # where a task says nothing


class ByteRequests:
  """What the library asks of its `LM`, by a model of any family; `harness_model` makes one class of both."""

  def __init__(self, model: Any, seq_len: int, batch_size: int, bytes_per_token: int = 4):
    super().__init__()
    self._model, self._bytes_per_token = model, bytes_per_token
    self._rows = {'seq_len': seq_len, 'batch_size': batch_size}

  def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
    """(nats, whether greedy) of each request's (context, continuation)."""
    from evaluation import continuations

    pairs = [tuple(map(_bytes, request.args)) for request in requests]
    return continuations.log_likelihoods(self._model, pairs, **self._rows)

  def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
    """Nats of each request's (text,), scored as `eval.py` scores a document."""
    from evaluation import continuations

    return continuations.whole_log_likelihoods(self._model, [_bytes(of.args[0]) for of in requests], **self._rows)

  def generate_until(self, requests: Sequence[Any]) -> list[str]:
    """The continuation of each request's (context, settings), without what ended it; not UTF-8 is U+FFFD."""
    from evaluation import continuations

    prompts, decodings = zip(*((_bytes(of.args[0]), self._decoding(of.args[1])) for of in requests), strict=True)
    found = continuations.continue_until(self._model, prompts, decodings, self._rows['batch_size'])
    return [text.decode('utf-8', 'replace') for text in found]

  def _decoding(self, settings: dict[str, Any]) -> Any:
    from evaluation.continuations import Decoding

    until = settings.get('until') or []
    tokens = next((settings[name] for name in _LIMITS if settings.get(name) is not None), _MOST_TOKENS)
    is_greedy = not settings.get('do_sample', settings.get('temperature', 0) > 0)
    return Decoding(
      max_bytes=int(tokens) * self._bytes_per_token,
      until=tuple(_bytes(end) for end in ([until] if isinstance(until, str) else until) if end),
      temperature=0.0 if is_greedy else float(settings.get('temperature', 1.0)),
      top_p=float(settings.get('top_p', 1.0)),
    )


def harness_model(model: Any, seq_len: int, batch_size: int, bytes_per_token: int = 4) -> Any:
  """An `lm_eval.api.model.LM`, to be given to `lm_eval.simple_evaluate`; ImportError where lm_eval is not installed."""
  from lm_eval.api.model import LM

  return type('ByteLM', (ByteRequests, LM), {})(model, seq_len, batch_size, bytes_per_token)


def main(_: list[str]) -> None:
  """Evaluates the model that the flags name."""
  import importlib.util

  if _WORKDIR.value is None:
    raise ValueError('--workdir is missing: name the work directory of a run or a directory with official weights')
  if not _TASKS.value:
    raise ValueError('--tasks is missing: name tasks, --tasks=arc_easy,lambada_openai, or yours with --include_path')
  if importlib.util.find_spec('lm_eval') is None:
    raise ValueError('lm-evaluation-harness is not installed: pip install -r requirements-harness.txt')

  import training
  from evaluation import report
  from text import paths

  workdir = paths.of(_WORKDIR.value, '--workdir')
  output = workdir / 'harness.json' if _OUTPUT.value is None else paths.of(_OUTPUT.value, '--output')
  if _INCLUDE.value is not None and not paths.of(_INCLUDE.value, '--include_path').is_dir():
    raise ValueError(f'--include_path={_INCLUDE.value} is no directory: name one with YAML files of tasks')
  loaded = training.load(workdir, _STEP.value)
  report.check_writable(output)

  import lm_eval
  from lm_eval import tasks as tasks_lib
  from lm_eval.utils import make_table

  manager = tasks_lib.TaskManager(include_path=_INCLUDE.value)
  if unknown := [name for name in _TASKS.value if name not in manager.all_tasks]:
    raise ValueError(f"--tasks: '{unknown[0]}' is no task of lm_eval {lm_eval.__version__}, nor of --include_path")
  settings = loaded.config.get('eval', {})
  shape = {
    name: given or settings.get(name) or loaded.config.get(name) or default
    for (name, default), given in zip(_OFFICIAL_SHAPE.items(), (_SEQ_LEN.value, _BATCH_SIZE.value), strict=True)
  }
  found = lm_eval.simple_evaluate(
    harness_model(loaded.model, **shape, bytes_per_token=_BYTES.value),
    tasks=_TASKS.value,
    num_fewshot=_SHOTS.value,
    limit=_LIMIT.value,
    task_manager=manager,
    log_samples=False,
  )
  print(make_table(found))
  kept = {name: found[name] for name in ('results', 'groups', 'versions', 'n-shot', 'n-samples') if name in found}
  about = {'workdir': _WORKDIR.value, 'step': loaded.step, 'lm_eval': lm_eval.__version__, **shape}
  report.write_json(output, report.as_json({**about, 'bytes_per_token': _BYTES.value, **kept}))
  print(f'scores: {output}')


def _bytes(text: str) -> bytes:
  return text.encode('utf-8', 'surrogatepass')


if __name__ == '__main__':
  command_line.run(main)
