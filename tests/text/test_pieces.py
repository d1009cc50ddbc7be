"""Ends of a tokenizer's pieces as labels: those of the tokenizer itself, wherever rows cut a document."""

import itertools
import json
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings

import hnet
from layers.contract import EVAL, Context
from tests.hnet.tiny import ONE_STAGE, TWO_STAGE, branch
from tests.text import tiny_subwords
from text import Batch, MemoryCorpus, marks, pieces, units, words
from text.packing import RowStream
from text.rows import evaluation_batches, training_batch

TEXT = tiny_subwords.TEXT.decode()


@pytest.fixture(scope='module')
def bpe(tmp_path_factory):
  return str(tiny_subwords.write(tmp_path_factory.mktemp('bpe') / 'bpe.json'))


@pytest.fixture(scope='module')
def unigram(tmp_path_factory):
  """Of SentencePiece's kind: '▁' for a space, and a fallback to bytes that is not to be used."""
  from tokenizers import Tokenizer, models, pre_tokenizers, trainers

  tokenizer = Tokenizer(models.Unigram())
  trainer = trainers.UnigramTrainer(vocab_size=120, unk_token='<unk>', special_tokens=['<unk>'], show_progress=False)
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='never')
  tokenizer.train_from_iterator([TEXT.replace('日', '')], trainer)
  path = tmp_path_factory.mktemp('unigram') / 'unigram.json'
  tokenizer.save(str(path))
  return str(path)


def spelled(sizes):
  return list(itertools.accumulate(sizes))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(word=tiny_subwords.WORDS)
def test_pieces_of_a_bpe_are_its_units(bpe, word):
  of_file = units.parse(f'subword(file={bpe})')
  assert pieces.parse(bpe)(word) == tuple(len(of_file.table[unit]) for unit in of_file(word))


def test_pieces_of_a_unigram_model_are_those_of_its_library(unigram):
  from tokenizers import Tokenizer

  tokenizer, sizes = Tokenizer.from_file(unigram), pieces.parse(unigram)
  found = 0
  for word in TEXT.split(' '):
    spaced = ' ' + word
    ends = sorted({len(spaced[:end].encode()) for _, end in tokenizer.encode(spaced).offsets})
    assert spelled(sizes(spaced.encode())) == ends
    found += len(ends) > 2
  assert found > 10


@settings(max_examples=100, deadline=None, derandomize=True)
@given(word=tiny_subwords.WORDS)
def test_pieces_of_a_unigram_model_spell_every_word(unigram, word):
  sizes = pieces.parse(unigram)(word)
  assert sum(sizes) == len(word) and all(size > 0 for size in sizes)


def ends_of(file, document, closes=False):
  """[bytes + 2] of a whole document, from the pieces of its words."""
  split, found = words.parse('hat(max_bytes=64)'), []
  for word in split.words(document):
    for size in pieces.parse(file)(word):
      found += [False] * (size - 1) + [True]
  if closes:
    space = [byte == ord(' ') for byte in document] + [False]
    after = [False, *found]
    found = [(found[t] and not space[t + 1]) or (after[t] and space[t]) for t in range(len(found))]
  return np.array([False, *found, False])


CORPUS = MemoryCorpus(
  [f'Some other words, {n} of  them cats;\n the towns… Überblick 日本語'.encode() for n in range(12)]
)


@pytest.mark.parametrize('closes', [False, True])
@pytest.mark.parametrize('kind', ['bpe', 'unigram'])
def test_labels_are_those_of_the_document_wherever_rows_cut_it(request, kind, closes):
  file = request.getfixturevalue(kind)
  specs = {'labels': f'pieces(file={file},spaces={"closes" if closes else "next"})'}
  whole = [ends_of(file, document, closes) for document in CORPUS]
  stream = RowStream(CORPUS.lengths, 23, 0)
  cut = stream.pieces(np.arange(30))
  evaluated = next(evaluation_batches(CORPUS, marks=specs, seq_len=23, batch_size=30))
  for of_pieces, batch in (cut, training_batch(CORPUS, cut, 30, 23, specs)), (evaluated.pieces, evaluated.batch):
    at = [0] * 30
    for row, document, start, stop, _ in zip(*map(np.ndarray.tolist, of_pieces), strict=True):
      found = batch.marks['labels'][row, at[row] : at[row] + stop - start]
      np.testing.assert_array_equal(found, whole[document][start:stop])
      at[row] += stop - start
    assert batch.marks['labels'].dtype == bool


def test_a_space_closes_a_word_where_that_is_asked_for(unigram):
  text = b'\xfethe cats  sat'
  at = lambda spec: np.flatnonzero(marks.mark(Batch.of([text]), {'l': spec}).marks['l'][0])
  ends, closing = at(f'pieces(file={unigram})'), at(f'pieces(file={unigram},spaces=closes)')
  assert {3, 8, 10} <= set(ends.tolist()) and {4, 9} <= set(closing.tolist()) and not {3, 8} & set(closing.tolist())
  assert len(text) - 1 in ends and len(text) - 1 in closing


LABELLED = {'boundary': 'supervised(inner=8)', 'pool': 'mean', 'unpool': 'repeat', 'combine': 'sum'}


def labelled(by):
  return branch(ONE_STAGE, chunking={**LABELLED, 'losses': [f'bce(labels=pieces,by={by})']})


def test_a_model_trains_on_labels_and_needs_none_to_evaluate_and_decode(bpe, tmp_path):
  config = hnet.parse(labelled(f'pieces(file={bpe},words=hat(max_bytes=32))'))
  model = hnet.build(config, rngs=nnx.Rngs(0))
  assert model.marks == {} and model.labels == {'pieces': f'pieces(file={bpe},words=hat(max_bytes=32))'}
  batch = Batch.of([b'\xfethe other cats sat.\xff', b'\xfeIn 1914\xff'])
  training = Context(rng=jax.random.key(0))
  marked = marks.mark(batch, model.marks | model.labels)
  losses = lambda batch, context: jax.eval_shape(lambda model: model(batch, context=context).aux_losses, model)
  assert losses(marked, training).keys() == {'bce'} == losses(marked, EVAL).keys()
  assert losses(batch, EVAL) == {}
  with pytest.raises(ValueError, match="the batch lacks the label 'pieces': .*model.marks | model.labels"):
    losses(batch, training)
  gone = hnet.build(hnet.parse(labelled(f'pieces(file={tmp_path}/gone.json)')), rngs=nnx.Rngs(0))

  def decode(model):
    _, cache = model.prefill(batch, np.array([4, 3]), model.init_cache(2, 32))
    return model.step(np.array([65, 66], np.uint8), cache)[0]

  assert jax.eval_shape(decode, gone).shape == (2, 256)
  with pytest.raises(FileNotFoundError, match=r"there is no file '.*gone\.json'"):
    marks.parse(gone.marks | gone.labels)


def test_what_looks_ahead_is_a_label_and_never_a_boundary(bpe):
  ahead = {**LABELLED, 'boundary': f'mark(pieces,by=pieces(file={bpe}))', 'losses': [], 'pool': 'first'}
  with pytest.raises(ValueError, match=r"the mark 'pieces' \(pieces\(file=.*\) of a byte depends on later bytes"):
    hnet.parse(branch(ONE_STAGE, chunking=ahead))
  both = [{'boundary': 'mark(pieces,by=fixed(size=3))'}, {**LABELLED, 'losses': ['bce(pieces,by=hat)']}]
  with pytest.raises(ValueError, match="reads the mark 'pieces' as hat and another part as fixed"):
    hnet.parse(branch(TWO_STAGE, chunking=both))
  with pytest.raises(ValueError, match='gets no gradient through what it decides: name the losses'):
    hnet.parse(branch(ONE_STAGE, chunking=LABELLED))


def write(path, tokenizer, **changes):
  path.write_text(json.dumps({**json.loads(tokenizer), **changes}))
  return path


def test_what_cannot_be_is_one_sentence(unigram, tmp_path):
  content = pathlib.Path(unigram).read_text()
  normalized = write(tmp_path / 'n.json', content, normalizer={'type': 'NFKC'})
  (tmp_path / 'damaged.json').write_text('{')
  for spec, error, sentence in [
    ('pieces', ValueError, r"mark 'pieces' names no file: write pieces\(file=PATH\)"),
    (f'pieces(file={unigram},spaces=both)', ValueError, "spaces='both' must be next or closes"),
    (f'pieces(file={unigram},words=lines)', ValueError, "splitter 'lines' is not known|'lines'"),
    (f'pieces(file={unigram},digest=12)', ValueError, 'is another file, with digest'),
    (f'pieces(file={normalized})', ValueError, 'it has a normalizer, so that its pieces do not spell the text'),
    (f'pieces(file={tmp_path}/damaged.json)', ValueError, 'the file is damaged or no tokenizer.json'),
    (f'pieces(file={tmp_path}/none.json)', FileNotFoundError, 'there is no file'),
    ('only_scripts(latin+elvish)', ValueError, "'elvish' is no script: use latin, greek"),
  ]:
    with pytest.raises(error, match=sentence) as raised:
      marks.parse({'labels': spec})
    assert '\n' not in str(raised.value)


def test_text_in_a_script_that_the_model_has_nothing_for_is_refused():
  specs = {'script': 'only_scripts(latin+cyrillic)'}
  assert marks.mark(Batch.of(['\xfea 1ж…'.encode()]), specs).marks['script'].any()
  with pytest.raises(ValueError, match='the text has characters of the script greek, and the model is for latin'):
    marks.mark(Batch.of(['\xfea λόγος'.encode()]), specs)
