"""Who takes part in a run of several processes, and whether they are still there.

Process 0 listens at the coordinator's address, the others connect to it and stay connected. Before JAX is started they
compare what they were started with; afterwards each says every few seconds that it lives and how far it is. A process
that ends tells the others why; one that is killed closes its connection, one that is stopped falls silent, one that
hangs no longer gets further: in each case process 0 tells all others, and all end with the same sentence. (JAX's own
service watches, too, and aborts a process with a page of C++; it is given more time, so that it only stands by.)

Messages are lines of JSON, one object each: {"hello": …}, {"welcome": port}, {"refused": sentence}, {"alive": ticks},
{"failures": text}, {"failed": reason}, {"lost": sentence}, {"leaving": 0}, {"goodbye": 0}.
"""

import dataclasses
import json
import os
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

LONGEST_MESSAGE = 2**16  # bytes
_LONGEST_TEXT = LONGEST_MESSAGE // 8  # characters, of which JSON writes some as six bytes


@dataclasses.dataclass(frozen=True)
class Member:
  """A process as the others know it; host and pid are for people."""

  process_id: int
  num_processes: int
  host: str
  pid: int

  def __str__(self) -> str:
    return f'process {self.process_id} (pid {self.pid} on {self.host})'


class _Connection:
  """One end of a connection: JSON objects in and out."""

  def __init__(self, connected: socket.socket):
    self.socket, self._read, self._lock = connected, b'', threading.Lock()
    connected.settimeout(10.0)  # of one write: a process that is stopped reads nothing
    self.member: Member | None = None
    self.heard, self.ticks = 0.0, 0
    self.leaving, self.may_close = False, False
    self.failures: queue.SimpleQueue[str] = queue.SimpleQueue()

  def send(self, message: Mapping[str, Any]) -> None:
    """Raises OSError where the other end is gone."""
    with self._lock:
      self.socket.sendall(json.dumps(message).encode() + b'\n')

  def receive(self) -> list[dict[str, Any]]:
    """The messages that have come; call it when there is something to read. Raises OSError at the end of the
    connection and for what is no message.
    """
    data = self.socket.recv(LONGEST_MESSAGE)
    if not data:
      raise OSError('the connection is closed')
    *lines, self._read = (self._read + data).split(b'\n')
    try:
      messages = [json.loads(line) for line in lines]
    except ValueError:
      messages = [None]
    if len(self._read) > LONGEST_MESSAGE or not all(isinstance(message, dict) for message in messages):
      raise OSError('what came is not a message of this program')
    return messages


class RollCall:
  """The connections of one process to the others: `meet`, then `watch`, then `leave` or `fail`."""

  def __init__(
    self,
    address: str,
    num_processes: int,
    process_id: int,
    *,
    initialization_timeout: float,
    heartbeat_timeout: float,
    stall_timeout: float,
    end: Callable[[str, bool], None],
  ):
    """address: host:port of process 0. Timeouts in seconds: until all have come; until one that is not heard of is
    lost; until a run whose steps do not end is given up (0: never). end: called from a thread with the sentence for the
    user and whether it is a failure that another process told of itself; it must end this process.
    """
    self.me = Member(process_id, num_processes, socket.gethostname(), os.getpid())
    self._address, self._end = address, end
    self._initialization, self._heartbeat, self._stall = initialization_timeout, heartbeat_timeout, stall_timeout
    self._interval = min(heartbeat_timeout / 5, 5.0)
    self._others: list[_Connection] = []  # of process 0: to all others; of another: to process 0
    self._ticks, self._clock, self._advanced = 0, 0.0, (0, 0.0)
    self._leaving, self._all_left = False, threading.Event()

  # --- Before JAX is started

  def meet(self) -> str:
    """Waits until all processes have come and agree; the address at which JAX's coordinator is to listen.

    Raises OSError, with one sentence, if process 0 cannot be reached or some do not come in time, ValueError if the
    processes were not started as parts of one run.
    """
    host, colon, port = self._address.rpartition(':')
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
      raise ValueError(f'coordinator_address {self._address!r} must be host:port, as in 10.0.0.1:8476')
    host, deadline = host.strip('[]'), time.monotonic() + self._initialization
    own_port = self._call(int(port), deadline) if self.me.process_id == 0 else self._answer(host, int(port), deadline)
    return f'[{host}]:{own_port}' if ':' in host else f'{host}:{own_port}'

  def _call(self, port: int, deadline: float) -> int:
    """Process 0: takes in all others."""
    wanted = set(range(1, self.me.num_processes))
    try:
      dual = {'family': socket.AF_INET6, 'dualstack_ipv6': True} if socket.has_dualstack_ipv6() else {}
      listening = socket.create_server(('', port), backlog=1024, **dual)
    except OSError as error:
      raise OSError(
        f'process 0 cannot listen at {self._address} ({os.strerror(error.errno)}): another run, or another process 0 '
        'of this one, has the port; end it or name another port'
      ) from None
    with listening, selectors.DefaultSelector() as selector:
      selector.register(listening, selectors.EVENT_READ)
      while wanted:
        left = deadline - time.monotonic()
        if left <= 0:
          some = ', '.join(map(str, sorted(wanted)[:8])) + (', …' if len(wanted) > 8 else '')
          sentence = (
            f'{len(wanted)} of {self.me.num_processes} processes ({some}) did not come to the coordinator at '
            f'{self._address} within {self._initialization:g} s: start them, or give a longer initialization_timeout'
          )
          self._tell({'refused': sentence})
          raise OSError(sentence)
        for key, _ in selector.select(left):
          if key.fileobj is listening:
            connection = _Connection(listening.accept()[0])
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            continue
          try:
            self._take_in(key.data, wanted)
          except OSError:  # a stranger at the door, or one that was ended while it waited
            selector.unregister(key.fileobj)
            key.fileobj.close()
            if key.data in self._others:
              self._others.remove(key.data)
              wanted.add(key.data.member.process_id)
    with socket.create_server(('', 0)) as free:
      own_port = free.getsockname()[1]
    self._tell({'welcome': own_port})
    return own_port

  def _take_in(self, connection: _Connection, wanted: set[int]) -> None:
    for message in connection.receive():
      try:
        member = connection.member = Member(**message['hello'])
      except (KeyError, TypeError):
        raise OSError('no greeting') from None
      self._others.append(connection)
      known = [self.me, *(other.member for other in self._others[:-1])]
      twin = next((other for other in known if other.process_id == member.process_id), None)
      if member.num_processes != self.me.num_processes:
        sentence = (
          f'{self.me} was started with num_processes={self.me.num_processes} and {member} with {member.num_processes}: '
          'start all with the same'
        )
      elif twin:
        sentence = (
          f'two processes were started with process_id={member.process_id}: pid {twin.pid} on {twin.host} and pid '
          f'{member.pid} on {member.host}; give each its own'
        )
      else:
        wanted.discard(member.process_id)
        continue
      self._tell({'refused': sentence})
      raise ValueError(sentence)

  def _answer(self, host: str, port: int, deadline: float) -> int:
    """Another process: comes to process 0."""
    reason = 'no answer'
    while True:
      try:
        left = max(deadline - time.monotonic(), 0.1)
        connection = _Connection(socket.create_connection((host, port), timeout=min(left, 10.0)))
        break
      except OSError as error:
        reason = str(error.strerror or error)
        if time.monotonic() > deadline:
          raise OSError(
            f'the coordinator at {self._address} could not be reached within {self._initialization:g} s ({reason}): '
            'start process 0 there, or correct coordinator_address'
          ) from None
        time.sleep(0.2)
    self._others = [connection]
    try:
      connection.send({'hello': dataclasses.asdict(self.me)})
      connection.socket.settimeout(self._initialization + 10.0)  # process 0 gives up first, and says why
      (message,) = connection.receive()
      connection.socket.settimeout(10.0)
    except OSError as error:
      raise OSError(f'the coordinator at {self._address} went away before the run began ({error})') from None
    if 'refused' in message:
      raise ValueError(message['refused'])
    return message['welcome']

  # --- While the run goes on

  def watch(self) -> None:
    """Begins to watch the others."""
    for other in self._others:
      other.heard = self._clock
    threading.Thread(target=self._watch, name='roll call', daemon=True).start()

  def progress(self) -> None:
    """Says that this process got further; all call it at the same places of the program."""
    self._ticks += 1

  def fail(self, reason: str) -> None:
    """Tells the others why this process ends."""
    self._tell({'failed': f'{self.me} ended: {reason}'[:_LONGEST_TEXT]})

  def gather_failures(self, failure: str) -> str:
    """Waits until all processes have come to this point; what has failed in which of them, '' if nothing has.

    All call it in the same order, one thread of each at a time. failure: one short line, '' if this one did not fail.
    """
    if self.me.process_id > 0:
      self._tell({'failures': failure[:_LONGEST_TEXT]})
      return self._others[0].failures.get()
    told = {other.member.process_id: other.failures.get() for other in self._others} | {0: failure}
    failures = '; '.join(f'process {process}: {told[process]}' for process in sorted(told) if told[process])
    self._tell({'failures': failures[:_LONGEST_TEXT]})
    return failures[:_LONGEST_TEXT]

  def leave(self) -> None:
    """Returns when all processes have come to this point."""
    self._leaving = True
    self._tell({'leaving': 0})
    self._all_left.wait()

  def _watch(self) -> None:
    spoken, now = -self._interval, time.monotonic()
    with selectors.DefaultSelector() as selector:
      for other in self._others:
        selector.register(other.socket, selectors.EVENT_READ, other)
      while self._others:
        ready = selector.select(self._interval / 2)
        before, now = now, time.monotonic()
        self._clock += min(now - before, self._interval)  # while this process was stopped itself it cannot tell
        for key, _ in ready:
          other = key.data
          try:
            for message in other.receive():
              self._hear(other, message)
            other.heard = self._clock
          except OSError:
            selector.unregister(other.socket)
            self._others.remove(other)
            if not other.may_close:
              self._lose(f'{self._name(other)} was lost: it was killed or its machine went away')
        if self._clock - spoken >= self._interval:
          spoken = self._clock
          self._tell({'alive': self._ticks})
        for other in self._others:
          if self._clock - other.heard > self._heartbeat and not other.may_close:
            self._lose(f'{self._name(other)} was lost: nothing was heard of it for {self._heartbeat:g} s')
        if self.me.process_id == 0:
          self._look_for_stall()
          if self._leaving and all(other.leaving for other in self._others):
            self._tell({'goodbye': 0})
            self._all_left.set()
            return

  def _hear(self, other: _Connection, message: Mapping[str, Any]) -> None:
    if 'alive' in message:
      other.ticks = message['alive']
    elif 'failures' in message:
      other.failures.put(message['failures'])
    elif 'leaving' in message:
      other.leaving = True
    elif 'goodbye' in message:
      other.may_close = True
      self._all_left.set()
    elif 'lost' in message:
      self._end(message['lost'], False)
    elif 'failed' in message:
      other.may_close = True
      self._tell({'failed': message['failed']}, but=other)
      self._end(message['failed'], True)

  def _look_for_stall(self) -> None:
    """Process 0: whether the process that is furthest behind has got further lately."""
    least, last = min(((other.ticks, self._name(other)) for other in self._others), default=(self._ticks, ''))
    if self._ticks < least:
      least, last = self._ticks, str(self.me)
    if least != self._advanced[0]:
      self._advanced = least, self._clock
    elif self._stall and self._clock - self._advanced[1] > self._stall:
      self._lose(f'no step was finished for {self._stall:g} s, and the last to get further was {last}')

  def _lose(self, sentence: str) -> None:
    sentence += '; start all processes again to go on from the last checkpoint'
    if self.me.process_id == 0:
      self._tell({'lost': sentence})
    self._end(sentence, False)

  def _name(self, other: _Connection) -> str:
    return str(other.member) if other.member else f'process 0 (the coordinator, {self._address})'

  def _tell(self, message: Mapping[str, Any], but: _Connection | None = None) -> None:
    for other in list(self._others):
      if other is not but:
        try:
          other.send(message)
        except OSError:
          continue  # whoever reads from it finds out
