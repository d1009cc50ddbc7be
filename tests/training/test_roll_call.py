"""The roll call without JAX: its processes are threads here."""

import concurrent.futures
import queue
import socket
import threading
import time

import pytest

from training import roll_call
from training.roll_call import RollCall


@pytest.fixture
def address():
  with socket.create_server(('', 0)) as free:
    return f'localhost:{free.getsockname()[1]}'


def call(address, number, process, ended=None, **timeouts):
  timeouts = {'initialization_timeout': 60, 'heartbeat_timeout': 60, 'stall_timeout': 0} | timeouts
  end = lambda sentence, is_failure: ended.put((process, sentence, is_failure))
  return RollCall(address, number, process, end=end, **timeouts)


def meet_all(calls):
  """What each gets or raises."""
  results = [None] * len(calls)

  def meet(index):
    try:
      results[index] = calls[index].meet()
    except (OSError, ValueError) as error:
      results[index] = error

  threads = [threading.Thread(target=meet, args=(index,)) for index in range(len(calls))]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return results


def running(address, number, **timeouts):
  """(calls, what ended them) of a run that goes on."""
  ended = queue.Queue()
  calls = [call(address, number, process, ended, **timeouts) for process in range(number)]
  assert len(set(meet_all(calls))) == 1
  for one in calls:
    one.watch()
  return calls, ended


def test_all_get_the_address_of_jax_and_leave_together(address):
  calls, ended = running(address, 5)
  threads = [threading.Thread(target=one.leave) for one in calls]
  for thread in threads[1:]:
    thread.start()
  threads[1].join(0.3)
  assert threads[1].is_alive()  # process 0 is still at work
  threads[0].start()
  for thread in threads:
    thread.join()
  assert ended.empty()


def test_a_failure_of_one_is_told_to_all_when_all_have_come(address):
  calls, _ = running(address, 3)

  def gather(*failures):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
      return set(pool.map(lambda one, failure: one.gather_failures(failure), calls, failures))

  assert gather('', '', '') == {''}
  assert gather('', 'disk full', '') == {'process 1: disk full'}
  assert gather('no place', '', 'é' * roll_call.LONGEST_MESSAGE)  # what is too long is cut, not refused
  assert gather('no place', '', 'disk full') == {'process 0: no place; process 2: disk full'}


def test_process_numbers_that_disagree_are_told_to_both(address):
  first, second = meet_all([call(address, 2, 0), call(address, 3, 1)])
  assert isinstance(first, ValueError) and str(first) == str(second)
  assert 'process 0 (pid ' in str(first) and 'was started with num_processes=2 and process 1 (pid ' in str(first)


def test_two_processes_of_the_same_number_are_told_to_all(address):
  results = meet_all([call(address, 4, 0), call(address, 4, 1), call(address, 4, 1)])
  assert all(isinstance(error, ValueError) for error in results)
  assert all(str(error).startswith('two processes were started with process_id=1: pid ') for error in results)


def test_two_processes_0_are_told_by_the_port(address):
  first, second = meet_all([call(address, 2, 0, initialization_timeout=2) for _ in range(2)])
  sentences = sorted(map(str, (first, second)))
  assert sentences[0].startswith('1 of 2 processes (1) did not come to the coordinator at localhost:')
  assert sentences[1].startswith(f'process 0 cannot listen at {address} (Address already in use)')


def test_a_coordinator_that_cannot_be_reached_is_named_with_the_time(address):
  with pytest.raises(OSError, match=rf'^the coordinator at {address} could not be reached within 0\.5 s \(.+\): start'):
    call(address, 2, 1, initialization_timeout=0.5).meet()


@pytest.mark.parametrize('wrong', ['localhost', 'localhost:', ':8476', 'localhost:port', 'localhost:70000'])
def test_an_address_is_host_and_port(wrong):
  with pytest.raises(ValueError, match=r"^coordinator_address '.+' must be host:port, as in"):
    call(wrong, 2, 0).meet()


def test_strangers_at_the_port_are_turned_away(address):
  host, port = address.split(':')

  def knock():
    while True:
      try:
        with socket.create_connection((host, int(port))) as stranger:
          stranger.sendall(b'GET / HTTP/1.1\r\n\r\n')
          assert stranger.recv(100) == b''
        return
      except ConnectionRefusedError:
        continue
      except ConnectionResetError:
        return

  calls = [call(address, 2, process, queue.Queue()) for process in range(2)]
  meeting = threading.Thread(target=calls[0].meet)
  meeting.start()
  knock()
  calls[1].meet()
  meeting.join()


def test_a_killed_process_is_told_to_all_others_by_its_name(address):
  calls, ended = running(address, 3)
  calls[1]._others[0].socket.shutdown(socket.SHUT_RDWR)  # what the kernel does for a killed process
  told = dict(ended.get()[:2] for _ in range(3))
  assert told[0] == told[2] and told[0].startswith('process 1 (pid ') and 'was lost: it was killed' in told[0]


def test_a_process_that_is_killed_while_it_waits_for_the_end_of_all_is_lost_too(address):
  calls, ended = running(address, 3)
  threading.Thread(target=calls[1].leave, daemon=True).start()
  while not any(other.leaving for other in calls[0]._others):
    time.sleep(0.01)
  calls[1]._others[0].socket.shutdown(socket.SHUT_RDWR)
  told = dict(ended.get(timeout=60)[:2] for _ in range(3))
  assert told[0] == told[2] and told[0].startswith('process 1 (pid ') and 'was lost: it was killed' in told[0]


def test_a_silent_process_is_lost_after_the_heartbeat_timeout(address):
  ended = queue.Queue()
  calls = [call(address, 3, process, ended, heartbeat_timeout=1) for process in range(3)]
  meet_all(calls)
  calls[0].watch()
  calls[1].watch()
  told = dict(ended.get()[:2] for _ in range(2))
  assert told[0] == told[1] and 'process 2 (pid ' in told[0] and 'nothing was heard of it for 1 s; start' in told[0]


def test_a_process_that_gets_no_further_is_named_after_the_stall_timeout(address):
  calls, ended = running(address, 3, heartbeat_timeout=1, stall_timeout=2)
  for one in (calls[0], calls[0], calls[1], calls[2], calls[2]):
    one.progress()
  _, sentence, _ = ended.get()
  assert sentence.startswith('no step was finished for 2 s, and the last to get further was process 1 (pid ')


@pytest.mark.parametrize('process', [0, 1])
def test_why_a_process_failed_is_told_to_the_others(address, process):
  calls, ended = running(address, 3)
  calls[process].fail('the disk is on fire')
  told = [ended.get() for _ in range(2)]
  assert {number for number, _, _ in told} == {0, 1, 2} - {process}
  assert all(is_failure and f'process {process} (pid ' in sentence for _, sentence, is_failure in told)
  assert all(sentence.endswith('ended: the disk is on fire') for _, sentence, _ in told)
