"""Questions and answers against what they say, read back from their text."""

import re
import unicodedata

import pytest

from text import character_tasks as lib

ENGLISH = lib.words_of(
  [
    'the house quiet garden window yellow seven mountain river bread table green apple orange stone cloud silver '
    'winter summer autumn naïve crème café résumé über größe señor plates knives letters banana little coffee'
  ]
)
KOREAN = lib.words_of(
  [
    '모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다 인간은 천부적으로 이성과 양심을',
    '부여받았으며 서로 형제애의 정신으로 행동하여야한다 사람은 누구나 어떠한 종류의 차별도 받지않고 선언에 규정된',
  ]
)


def answer(question):
  """What a question asks for, by replacing in strings."""
  asked = re.findall(r'"([^"]*)"', question)
  if question.startswith('spell'):
    return None
  if question.startswith('write'):
    return unicodedata.normalize('NFC', asked[0].replace(' ', ''))
  text = asked[-1]
  is_words = ' ' in text
  parts = text.split(' ') if is_words else list(text)
  if question.startswith('of'):
    (found,) = {part for part in asked[0].split(' ') if part in parts}
    return found
  if question.startswith('put') and ' after ' in question:
    parts = [each for part in parts for each in ([part, asked[0]] if part == asked[1] else [part])]
  elif question.startswith('put'):
    parts = [asked[0] if part == asked[1] else part for part in parts]
  elif question.startswith('leave'):
    parts = [part for part in parts if part != asked[0]]
  else:
    assert question.startswith('swap') and parts.count(asked[0]) == parts.count(asked[1]) == 1
    one, other = map(parts.index, asked[:2])
    parts[one], parts[other] = parts[other], parts[one]
  return (' ' if is_words else '').join(parts)


@pytest.mark.parametrize('task', lib.TASKS)
@pytest.mark.parametrize('words', [ENGLISH, KOREAN], ids=['english', 'korean'])
def test_answers_are_right_and_candidates_differ(task, words):
  found = lib.items(task, words, 12, 2, 3)
  assert len(found) == 12 and found == lib.items(task, words, 12, 2, 3) != lib.items(task, words, 12, 2, 4)
  for item in found:
    *examples, question = item.prompt.split('\n')
    assert len(examples) == 2 and question.endswith(': "') and len(set(item.answers)) == lib.CANDIDATES
    for line in [*examples, question + item.answers[item.right]]:
      asked, _, said = line.rpartition(': "')
      said = said.removesuffix('"')
      if asked.startswith('spell'):
        word = re.findall(r'"([^"]*)"', asked)[0]
        assert unicodedata.normalize('NFC', said.replace(' ', '')) == word
        assert len(said.split(' ')) == len(unicodedata.normalize('NFD' if 'parts' in task else 'NFC', word))
      else:
        assert said == answer(asked)
    wrong = [text for place, text in enumerate(item.answers) if place != item.right]
    assert item.answers[item.right] not in wrong


@pytest.mark.parametrize('task', ['contains_char', 'delete_word', 'insert_char', 'spell', 'swap_word'])
def test_who_looks_at_the_answers_alone_is_right_in_a_quarter(task):
  found = lib.items(task, ENGLISH, 1200, 0, 0)
  rules = (len, str, lambda text: text[::-1], lambda text: -text.count('e'))
  for rule in rules:
    right = sum(max(range(4), key=lambda place, of=item: rule(of.answers[place])) == item.right for item in found)
    assert 0.2 < right / len(found) < 0.3  # four standard deviations of a quarter


def test_words_are_letters_in_lower_case_the_frequent_first_and_clauses_are_cut():
  assert lib.words_of(['The the CAT, 3 cats; an e\u0301te\u0301']) == ['the', 'cat', 'cats', 'été']
  assert lib.words_of(['人人生而自由在尊严和权利上一律平等。']) == ['人人生而自由在尊严和']
  assert lib.words_of(['हिन्दी']) == ['हिन्दी']


def test_what_words_do_not_give_is_nothing_and_too_few_are_refused():
  plain = [word for word in ENGLISH if word.isascii()]
  assert lib.items('spell_parts', plain, 5, 1, 0) == []
  assert [len(lib.items('spell', ['abc'] + [f'{chr(97 + n)}bcdefg' for n in range(24)], 5, 1, 0))] == [5]
  with pytest.raises(ValueError, match='3 words of 3 letters and more are too few to ask about: give 20'):
    lib.items('spell', ['one', 'two', 'three'], 5, 1, 0)
