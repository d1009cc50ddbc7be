"""Converts a consolidated checkpoint of the published BLT or of its entropy model (a torch state dict) to safetensors.

  python -m byte_models.blt.convert --config params.json --checkpoint consolidated.pth --out weights/blt_1b

A .pth file is a pickle: it is read as `hnet.convert` reads one, with `weights_only=True`, and refused if it needs more
than tensors. Needs torch (pip install -r requirements-torch.txt). The config that is written has the authors' keys
under 'args'; what cuts patches is not among them, so `from_pretrained` asks for boundary='…'.
"""

import json
import sys
from pathlib import Path

from byte_models.blt import entropy, official
from byte_models.blt.config import parse
from hnet.convert import command, read_state_dict
from layers import weights


def convert(config_file: Path, checkpoint: Path, out: Path) -> None:
  """Checks every name and shape against the configuration, then writes config.json and model.safetensors."""
  state = read_state_dict(checkpoint)
  args = entropy.args_of(weights.read_json(config_file))
  if args is not None:
    weights.check(entropy.parts(weights.read_config(config_file, entropy.parse)), state, checkpoint)
    weights.write(out, {'args': dict(args)}, state)
    return
  config = weights.read_config(config_file, lambda values: parse(official.branch_of(values, boundary='space_end')))
  weights.check(official.parts(config), state, checkpoint)
  weights.write(out, {'args': json.loads(config.published)}, state)


def main(arguments: list[str] | None = None) -> int:
  """The command."""
  return command('byte_models.blt.convert', __doc__, convert, arguments)


if __name__ == '__main__':
  sys.exit(main())
