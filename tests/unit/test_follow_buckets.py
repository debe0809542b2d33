"""Which queues a worker listens to while it runs."""

from types import SimpleNamespace

from worker.consumer import FollowBuckets


class FakeConsumer:
    """A consumer that records which queues it listens to. `app.context.wanted_queues` is the test's to change."""

    def __init__(self, *wanted):
        self.listening = []
        self.app = SimpleNamespace(context=SimpleNamespace(wanted_queues=wanted))
        self.timer = SimpleNamespace(call_repeatedly=self._call_repeatedly)

    def add_task_queue(self, queue):
        """Record that the consumer listens to the queue."""
        self.listening.append(queue)

    def cancel_task_queue(self, queue):
        """Record that the consumer no longer listens to the queue."""
        self.listening.remove(queue)

    def _call_repeatedly(self, seconds, action, arguments):
        self.follow = lambda: action(*arguments)


def test_a_queue_that_is_no_longer_wanted_is_cancelled():
    """A worker cancels a queue that it no longer wants, adds a new one, and keeps the one that stays."""
    consumer = FakeConsumer("a", "b")
    FollowBuckets(consumer).start(consumer)
    assert consumer.listening == ["a", "b"]
    consumer.app.context.wanted_queues = ("b", "c")
    consumer.follow()
    consumer.follow()
    assert consumer.listening == ["b", "c"]
