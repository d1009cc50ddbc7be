"""A small byte-level BPE over several scripts, and the words that tests draw."""

from hypothesis import strategies as st

from text import subwords, words

TEXT = (
  'In 1914 the 3 towns had 500 souls; in 1915 the towns had 400. The cat sat on the mat, the other cats sat there. '
  'Ein Überblick über die Straße, naïve cafés. 日本語の文章を書く。日本の本を読む。 '
  'ภาษาไทยและภาษาอื่น ภาษา. 🙂🙂🙃 🙂🙂🙃 '
).encode() * 3
PIECES = st.one_of(
  st.sampled_from(
    [b' the', b'towns', b'0123456789' * 8, 'Überblick'.encode(), '日本語'.encode(), 'ภาษาไทย'.encode(), '🙂🙃'.encode()]
  ),
  st.text(st.characters(codec='utf-8'), max_size=6).map(str.encode),
  st.binary(max_size=8),
  st.sampled_from([b'\xc0', b'\xfe', b'\xff', b'\xed\xa0\x80', '日'.encode()[:2], b'\x80', b'\xf0\x9f']),
)
WORDS = st.lists(PIECES, max_size=5).map(b''.join)


def write(path, vocabulary=360):
  """Trains it on TEXT and writes it; the path."""
  subwords.train([TEXT], words.parse('hat(max_bytes=64)'), vocabulary).save(str(path))
  return path
