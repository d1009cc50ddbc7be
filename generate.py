"""Writes on from prompts: python generate.py --workdir=DIR --prompt='def '

One prompt is continued as one watches; several (repeat --prompt) are continued as one batch. --show_chunks then shows
where the model cut prompt and continuation. DIR is a work directory of train.py, or a directory with official weights
of an H-Net or a T-Free-HAT; the latter decodes as the published code if its config.json has "delivery": "published".
"""

import os
import sys

from absl import flags

from training import command_line

_WORKDIR = flags.DEFINE_string('workdir', None, 'Work directory of a run, or a directory with official weights.')
_STEP = flags.DEFINE_string(
  'step', None, "Checkpoint to use: a number or 'best' (lowest validation score); default: the newest."
)
_PROMPT = flags.DEFINE_multi_string('prompt', [], 'Text to continue (may be empty); repeat it for several.')
_MAX_BYTES = flags.DEFINE_integer(
  'max_bytes', 512, 'Most bytes of a continuation; it ends before at the end of a document.'
)
_TEMPERATURE = flags.DEFINE_float('temperature', 1.0, '0: always the likeliest byte.')
_TOP_P = flags.DEFINE_float('top_p', 1.0, 'Sample from the likeliest bytes that together have this probability.')
_SEED = flags.DEFINE_integer('seed', 0, 'The same seed, prompts and options give the same text.')
_SHOW_CHUNKS = flags.DEFINE_bool('show_chunks', False, 'Print the text again with its chunk boundaries.')


def main(_: list[str]) -> None:
  """Continues the prompts that the flags name."""
  import training
  from evaluation import generation, segmentation
  from text import paths

  if _WORKDIR.value is None:
    raise ValueError('--workdir is missing: name the work directory of a run or a directory with official weights')
  if not _PROMPT.value:
    raise ValueError("--prompt is missing: give a text to continue, --prompt='' for none")
  workdir = paths.of(_WORKDIR.value, '--workdir')
  on_terminal = sys.stdout.isatty()

  def show(shown: str) -> None:
    # A terminal obeys control characters; a file or a pipe gets the text as it is.
    print(shown.translate(segmentation.CONTROLS) if on_terminal else shown, end='', flush=True)

  prompts = [os.fsencode(prompt) for prompt in _PROMPT.value]
  options = (_MAX_BYTES.value, _TEMPERATURE.value, _TOP_P.value, _SEED.value)
  generation.check(prompts, *options)
  model = training.load(workdir, _STEP.value).model
  if len(prompts) == 1:
    taken = []

    def pieces():
      yield prompts[0]
      for (piece,) in generation.stream(model, prompts, *options):
        taken.append(piece)
        yield piece

    try:
      for shown in generation.decode_utf8(pieces()):
        show(shown)
    finally:
      show('\n')
    continuations = [b''.join(taken)]
  else:
    continuations = generation.generate(model, prompts, *options)
    for prompt, continuation in zip(prompts, continuations, strict=True):
      show(f'--- {segmentation.visible(prompt)}\n{"".join(generation.decode_utf8([continuation]))}\n')
  if _SHOW_CHUNKS.value:
    texts = [prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)]
    for whole, stages in zip(texts, segmentation.segment(model, texts), strict=True):
      print(f'--- chunks\n{segmentation.show_chunks(whole, stages)}')


if __name__ == '__main__':
  command_line.run(main)
