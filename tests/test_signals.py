"""What signals ask for, seen from the process that gets them."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time

import pytest

from visreg.signals import Left, Signals


def send(number, times=1):
    for _ in range(times):
        os.kill(os.getpid(), number)


@pytest.fixture
def child():
    """Fork a process that runs a function and ends with what it returns; return a function that waits for the end."""
    children = []

    def start(function):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            code = 70
            try:
                code = function(lambda: os.write(writer, b"."))
            finally:
                os._exit(code)
        os.close(writer)
        children.append((pid, reader))
        return pid, lambda: os.read(reader, 1)

    yield start
    for pid, reader in children:
        os.close(reader)
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def ended(pid, seconds=30):
    """Wait until a child has ended and return its exit code, negative for a signal."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    raise AssertionError("the process did not end")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_a_second_sigint_interrupts(number):
    with Signals() as signals:
        assert signals.received == 0
        send(number)
        assert signals.received == number
        send(signal.SIGTERM)
        assert signals.received == number
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_handlers_are_put_back():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    threads = threading.active_count()
    with Signals() as signals:
        assert signals.listening
    assert not signals.listening
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads


def test_what_is_leavable_is_left_once():
    with Signals() as signals:
        assert signals.leavable(lambda: 3) == 3
        with pytest.raises(Left) as caught:
            signals.leavable(lambda: send(signal.SIGTERM) or time.sleep(60))
        assert caught.value.number == signal.SIGTERM
        with pytest.raises(Left):
            signals.leavable(lambda: pytest.fail("was begun, though a signal had come"))
        send(signal.SIGTERM)


def test_what_is_not_leavable_is_finished():
    done = []
    with Signals() as signals:
        signals.leavable(lambda: None)
        send(signal.SIGINT)
        done.append(True)
    assert (signals.received, done) == (signal.SIGINT, [True])


def test_no_code_in_between_can_take_it_for_an_error():
    def stubborn():
        try:
            send(signal.SIGTERM)
            time.sleep(60)
        except Exception:
            pytest.fail("Left is an Exception")

    with Signals() as signals, pytest.raises(Left):
        signals.leavable(stubborn)


def test_a_lost_terminal_is_logged_when_that_is_safe(caplog, monkeypatch):
    monkeypatch.setattr("visreg.signals.logger.parent.propagate", True)
    with Signals() as signals:
        send(signal.SIGHUP)
        assert not caplog.records
        signals.tell()
    assert "SIGHUP: the terminal is gone; training goes on" in caplog.text
    assert signals.received == 0


def test_another_thread_listens_to_nothing():
    found = []

    def listen():
        with Signals() as signals:
            found.append(signals.listening)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [False]


def test_two_interrupts_in_the_midst_of_one_long_operation_end_the_process(child):
    """Python sees neither before the operation is over, and then takes them for one."""

    def work(ready):
        with Signals():
            ready()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)  # minutes, in one call, in which other threads may run
        return 0

    pid, wait = child(work)
    wait()
    os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    os.kill(pid, signal.SIGINT)
    assert ended(pid) == 130


def test_a_process_that_is_forked_leaves_signals_to_its_parent(child):
    """A terminal sends SIGINT to both, which must not count twice in the parent, nor be obeyed in the child."""

    def work(ready):
        with Signals() as signals:
            grandchild = os.fork()
            if not grandchild:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGHUP)
                os._exit(7 if signals.received == 0 else 8)
            code = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            return code if signals.received else 9

    pid, _ = child(work)
    assert ended(pid) == 7


def test_a_forked_process_ends_by_sigterm(child):
    def work(ready):
        with Signals():
            grandchild = os.fork()
            if not grandchild:
                time.sleep(60)
                os._exit(1)
            os.kill(grandchild, signal.SIGTERM)
            return -os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])

    pid, _ = child(work)
    assert ended(pid) == signal.SIGTERM
