"""Likelihoods of continuations against a naive loop and the chain rule; greedy text against `generate`."""

import types

import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

import byte_models
from evaluation import continuations as lib
from evaluation import evaluate, generate
from evaluation.harness import ByteRequests
from evaluation.oracles import informative
from tests.byte_models import tiny_word_ar
from tests.test_contract import FAMILIES
from text import MemoryCorpus

ROWS = {'seq_len': 32, 'batch_size': 4}
TEXTS = ['The cat sat. ', 'naïve 日本 ', 'x', '', ' on the mat, and\n']
KINDS = {
  'hnet_one_stage': FAMILIES['hnet_one_stage'],
  'hat': FAMILIES['hat'],
  'units': tiny_word_ar.branch(units='char(limit=0x3000)'),
}


@pytest.fixture(scope='module', params=KINDS)
def model(request):
  return informative(byte_models.build(byte_models.parse(KINDS[request.param]), rngs=nnx.Rngs(0)))


def requests(*arguments):
  return [types.SimpleNamespace(args=of) for of in arguments]


def test_a_continuation_is_the_whole_less_its_context_in_every_family(model):
  asked = ByteRequests(model, **ROWS)
  pairs = [(context, continuation) for context in TEXTS for continuation in TEXTS]
  found = asked.loglikelihood(requests(*pairs))
  whole = asked.loglikelihood_rolling(requests(*((context + continuation,) for context, continuation in pairs)))
  alone = dict(zip(TEXTS, asked.loglikelihood_rolling(requests(*((context,) for context in TEXTS))), strict=True))
  for (context, continuation), (nats, is_greedy), total in zip(pairs, found, whole, strict=True):
    assert nats == pytest.approx(total - alone[context], abs=2e-4)
    assert is_greedy or continuation


def test_whole_texts_are_what_evaluate_scores(model):
  documents = [text.encode() * 3 for text in TEXTS if text]
  nats = lib.whole_log_likelihoods(model, documents, **ROWS)
  bits = -sum(nats) / np.log(2) / sum(map(len, documents))
  assert bits == pytest.approx(evaluate(model, MemoryCorpus(documents), **ROWS).bits_per_byte, abs=1e-5)


@settings(max_examples=8, derandomize=True, deadline=None)
@given(st.binary(max_size=9), st.binary(min_size=1, max_size=4))
def test_likelihoods_equal_a_naive_loop(two_byte_model, context, continuation):
  model = two_byte_model(positional=True)
  ((nats, is_greedy),) = lib.log_likelihoods(model, [(context, continuation)], **ROWS)
  expected, likeliest = 0.0, True
  for at, byte in enumerate(continuation):
    logits = model.naive_logits([254, *context, *continuation[:at]])
    expected += log_softmax(logits)[byte]
    likeliest &= int(logits.argmax()) == byte
  assert nats == pytest.approx(expected, rel=1e-5) and is_greedy == likeliest


def test_greedy_text_is_greedy_and_ends_before_what_ends_it(model):
  asked = ByteRequests(model, **ROWS, bytes_per_token=2)
  prompts = ['The c', 'x', '', 'naïve ']  # as many as there are rows: one program
  plain = asked.generate_until(requests(*((prompt, {'max_gen_toks': 6}) for prompt in prompts)))
  whole = generate(model, [prompt.encode() for prompt in prompts], 12, temperature=0)
  assert plain == [text.decode('utf-8', 'replace') for text in whole]
  if model.word_end is None:
    pairs = [(prompt.encode(), text) for prompt, text in zip(prompts, whole, strict=True)]
    assert all(is_greedy for _, is_greedy in lib.log_likelihoods(model, pairs, **ROWS))
  end = whole[0][3:5]
  decoding = lib.Decoding(max_bytes=12, until=(end, b'\x00never'))
  cut = lib.continue_until(model, [prompt.encode() for prompt in prompts], [decoding] * 4, batch_size=4)
  assert cut == [text.partition(end)[0] for text in whole]


def test_settings_of_tasks_are_read_by_all_their_names(two_byte_model):
  decode = ByteRequests(two_byte_model(positional=False), **ROWS)._decoding
  assert decode({}) == lib.Decoding(max_bytes=1024)
  assert decode({'until': '\n', 'max_new_tokens': 3}) == lib.Decoding(12, (b'\n',))
  assert decode({'until': ['é', ''], 'temperature': 0.7, 'top_p': 0.9}) == lib.Decoding(1024, ('é'.encode(),), 0.7, 0.9)
  assert decode({'do_sample': False, 'temperature': 0.7}).temperature == 0
