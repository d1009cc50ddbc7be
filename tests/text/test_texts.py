"""What a run trains on and validates on, and how much of the one stands in the other."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.opening import jsonl
from text import MemoryCorpus, Mixture, Texts, noise, open_corpus, overlap, texts
from text.corpus import Joined
from text.prepare import ByHash, prepare

DOCUMENTS = [f'document {number} of some.\n'.encode() * (1 + number % 5) for number in range(160)]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """80 files in a/, 80 other ones in b/, all of a/ in a.jsonl."""
  root = tmp_path_factory.mktemp('texts')
  for folder, documents in (('a', DOCUMENTS[:80]), ('b', DOCUMENTS[80:])):
    (root / folder).mkdir()
    for number, document in enumerate(documents):
      (root / folder / f'{number}.txt').write_bytes(document)
  (root / 'a.jsonl').write_bytes(jsonl(DOCUMENTS[:80]))
  return root


A, B = 'files:{}/a/*.txt', 'files:{}/b/*.txt'
UPPER = 'noise:upper_case:'


@pytest.mark.parametrize(
  'source, validation, trained, validated',
  [
    (A, '', [72], [8]),
    (A, A, [72], [8]),
    (A, B, [80], [80]),  # files of their own are all used
    (A, 'files:{}/./a/**/*.txt', [72], [8]),  # the same files by another glob
    (A, UPPER + A, [72], [8]),
    (UPPER + A, A, [72], [8]),
    (UPPER + A, B, [80], [80]),
    (A, UPPER + B, [80], [80]),
    (A, (A, B), [72], [8, 80]),
    (A, 'files:{}/*/*.txt', [72], [12]),  # of the files that are in both, no document is in both
    ('files:{}/*/*.txt', B, [148], [4]),
    (A, 'files:{}/a.jsonl#text', [80], [80]),  # the same text in another file, which the overlap tells
    (((A, 1.0), (B, 1.0)), '', [72, 76], [8, 4]),
    (((A, 1.0), (B, 1.0)), B, [80, 76], [4]),
    (((A, 1.0), (UPPER + A, 1.0)), A, [72, 72], [8]),
    (((A, 1.0), ('python_docs', 1.0)), 'python_docs', [80, None], [None]),
    (A + '@all', A, [80], [80]),
    (A, A + '@all', [72], [80]),
    (A + '@all', B + '@all', [80], [80]),
  ],
)
def test_files_are_divided_where_the_same_are_trained_and_validated_on(root, source, validation, trained, validated):
  fill = lambda value: (
    value.format(root)
    if isinstance(value, str)
    else tuple(item.format(root) if isinstance(item, str) else (item[0].format(root), item[1]) for item in value)
  )
  found = Texts.of(fill(source), fill(validation))
  training, held_out = found.open_training(), found.open_validation()
  counts = lambda corpora: [None if corpus.name.startswith('python') else len(corpus) for corpus in corpora]
  assert counts(training.corpora) == trained and counts(held_out.values()) == validated
  for corpus in (*training.corpora, *held_out.values()):
    assert (
      f'{len(corpus):,} of {corpus.whole:,} documents' if corpus.whole else f'{len(corpus)} docu'
    ) in corpus.title()
    assert corpus.whole is None or len(corpus) < corpus.whole
  for name, corpus in held_out.items():
    assert found.open(name).fingerprint == corpus.fingerprint  # as eval.py --source opens it


def test_a_part_is_the_part_that_it_always_was(root):
  found = Texts.of(A.format(root))
  for split, corpus in (('train', found.open_training().corpora[0]), ('validation', found.open(A.format(root)))):
    names = sorted((root / 'a').iterdir(), key=str)
    chosen = lambda document: int.from_bytes(hashlib.sha256(document).digest()[:8], 'big') < 0.05 * 2**64
    kept = [path.read_bytes() for path in names if chosen(path.read_bytes()) == (split == 'validation')]
    assert list(corpus) == kept and corpus.fingerprint == MemoryCorpus(kept, split=split).fingerprint
    assert corpus.name == f'{A.format(root)} ({split})'
  whole = Texts.of(A.format(root), B.format(root)).open_training().corpora[0]
  assert whole.fingerprint == open_corpus(A.format(root) + '@all', 'train').fingerprint


def test_other_text_is_scored_whole_and_trained_text_only_where_it_was_held_out(root):
  a, b = A.format(root), B.format(root)
  assert len(Texts.of(a, '').open(b)) == 80 and len(Texts.of(a, '').open(UPPER + b, 'test')) == 80
  assert len(Texts.of(a, '').open(f'files:{root}/*/*.txt')) == 12
  assert len(Texts.of(a, b).open(a)) == 80  # it trained on all of it
  assert len(Texts.of(None).open(a)) == 80 and Texts.of(None).validation == ()  # official weights
  assert Texts.of(None).open('python_docs').whole > len(Texts.of(None).open('python_docs'))
  assert len(Texts.of('files:/gone/*.txt', '').open(a)) == 80  # the text of the run is not there any more
  with pytest.raises(ValueError, match='has no test split'):
    Texts.of(a, '').open(a, 'test')


@pytest.mark.parametrize(
  'source, why',
  [
    ('files:a/*.txt@all', 'takes all of its documents'),
    ('noise:drop(rate=0.1):noise:antspeak:files:a/*.txt#text@all', 'takes all of its documents'),
    ((('python_docs', 1.0), ('files:a@all', 1.0)), 'takes all of its documents'),
    ('tfds:some/where:train', 'names one split and no other'),
    ('noise:drop:tfds:some:1.0.0:train[:90%]#text', 'names one split and no other'),
  ],
)
def test_held_out_text_that_no_source_has_is_refused_before_anything_is_opened(source, why):
  with pytest.raises(ValueError, match=rf"data\.validation is '', .* has none, since it {why}: name the text to valid"):
    Texts.of(source, '').check()
  Texts.of(source, 'files:b/*.txt').check()
  Texts.of(source, [source if isinstance(source, str) else source[1][0]]).check()


# --- overlap

SMALL = st.lists(
  st.sampled_from([b'a', b'b', b'ab', b'ba', b'abc' * 30, b'abd' * 30, b'xbc' * 30]), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=100)
@given(SMALL, st.lists(SMALL, max_size=3), st.booleans())
def test_the_overlap_is_that_of_a_naive_comparison(held_out, training, is_joined):
  corpora = [MemoryCorpus(documents) for documents in training]
  joined = Joined([MemoryCorpus(held_out[:1]), MemoryCorpus(held_out[1:] or [b'zz'])], 'joined')
  corpus = joined if is_joined else MemoryCorpus(held_out)
  found = overlap.overlap(corpus, [Joined(corpora, 'all')] if is_joined and corpora else corpora)
  common = [document for document in corpus if any(document in documents for documents in training)]
  assert found == overlap.Overlap(len(common), len(corpus), sum(map(len, common)), True)


def test_what_two_sides_of_one_rule_hold_is_not_compared(root, tmp_path, monkeypatch):
  class Group:
    key = 'documents'

    def __iter__(self):
      return iter(DOCUMENTS)

  prepare([Group()], tmp_path / 'some', source='memory', splits=ByHash(0.2, 0.2))
  monkeypatch.setattr(overlap._Index, 'find', None)
  for source in (A.format(root), f'prepared:{tmp_path}/some', UPPER + A.format(root)):
    found = Texts.of(source)
    (corpus,) = found.open_validation().values()
    assert overlap.overlap(corpus, found.open_training().corpora).documents == 0
  assert open_corpus(f'prepared:{tmp_path}/some', 'validation').whole == len(DOCUMENTS)


def test_noise_of_training_text_stands_in_it(root):
  a = A.format(root) + '@all'
  clean, noisy, other = (open_corpus(source, 'train') for source in (a, f'noise:drop:{a}', f'noise:antspeak:{a}'))
  for held_out, trained in ((noisy, clean), (clean, noisy), (noisy, other)):
    assert overlap.overlap(held_out, [trained]).documents == 80
  assert overlap.overlap(noisy, [open_corpus(B.format(root) + '@all', 'train')]).documents == 0
  assert noisy[0] == noise.parse('drop')(clean[0], int.from_bytes(hashlib.sha256(clean[0]).digest()[:8], 'big'))


def test_texts_that_are_too_large_are_compared_in_part_and_it_is_said(monkeypatch):
  corpus = MemoryCorpus(DOCUMENTS)
  monkeypatch.setattr(overlap, 'MOST_CANDIDATES', len(DOCUMENTS))
  assert overlap.overlap(corpus, [corpus]) == overlap.Overlap(160, 160, sum(map(len, DOCUMENTS)), True)
  monkeypatch.setattr(overlap, 'MOST_BYTES', 5000)
  found = overlap.overlap(corpus, [corpus])
  assert 0 < found.documents < 160 and found.sentences()[0].startswith(f'at least {found.documents} of 160 validation')
  for limit in ('MOST_DOCUMENTS', 'MOST_CANDIDATES'):
    monkeypatch.setattr(overlap, limit, 100)
    (said,) = overlap.overlap(corpus, [corpus]).sentences()
    assert said == 'its 160 documents were not compared with the training text: there is too much of it'
    monkeypatch.undo()


def test_the_lines_at_the_start_say_what_is_used_and_what_is_common(root, tmp_path):
  (tmp_path / 'some.jsonl').write_bytes(jsonl(DOCUMENTS[78:82]) + b'\n')
  training = Mixture([open_corpus(A.format(root), 'train')])
  validation = {'some': open_corpus(f'files:{tmp_path}/some.jsonl#text@all', 'validation')}
  size, scored, common = (sum(map(len, docs)) for docs in (training.corpora[0], DOCUMENTS[78:82], DOCUMENTS[78:80]))
  assert list(texts.described(training, validation, 10))[1].endswith(
    f', {scored} bytes, of which the first 10 are scored'
  )
  assert list(texts.described(training, validation, scored)) == [
    f'trains on {A.format(root)} (train): 72 of 80 documents, {size:,} bytes',
    f'validates on files:{tmp_path}/some.jsonl#text@all: 4 documents, {scored} bytes',
    f'  empty lines passed over: 1 (the first: {tmp_path}/some.jsonl:5)',
    f'files:{tmp_path}/some.jsonl#text@all: 2 of 4 validation documents ({common} bytes) stand in the training text',
  ]
