"""Gold units survive their document, and nothing else passes for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text import gold

UNITS = st.lists(st.binary(min_size=1, max_size=9).filter(lambda unit: gold.SEPARATOR not in unit), min_size=1)


@given(UNITS)
def test_units_of_a_joined_document_are_the_units(units):
  assert gold.units(gold.join(units)) == tuple(units)


@pytest.mark.parametrize('units', [[], [b''], [b'a', b''], [b'a\x1fb']])
def test_units_that_would_not_come_back_are_refused(units):
  with pytest.raises(ValueError, match='gold'):
    gold.join(units)


@pytest.mark.parametrize('document', [b'', b'\x1fa', b'a\x1f', b'a\x1f\x1fb'])
def test_a_document_with_an_empty_unit_is_refused(document):
  with pytest.raises(ValueError, match='no document of a gold corpus'):
    gold.units(document)
