"""The parts of chunkers against the published code (tests/goldens/chunkers)."""

import pytest

from tests.goldens import GOLDENS
from tests.goldens.chunkers import compare

FOLDERS = sorted(path.parent for path in (GOLDENS / 'chunkers').glob('*/config.json'))


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_every_tensor_is_that_of_the_published_code(folder):
  found = compare(folder)
  assert found
  assert {name: difference for name, difference in found.items() if not difference.is_small} == {}


def test_a_folder_of_another_kind_is_named(tmp_path):
  (tmp_path / 'config.json').write_text('{"nonsense": 1}')
  with pytest.raises(ValueError, match='config.json has the keys nonsense: no comparison of .*pooling'):
    compare(tmp_path)
