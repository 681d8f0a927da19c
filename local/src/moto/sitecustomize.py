"""Python imports this before moto's server when it stands in PYTHONPATH. It corrects what moto 5.2.5 lacks.

SendTaskFailure: moto's interpreter takes a cause, but its HTTP layer drops it, so a state machine's Catch would see none.

Streams of tables: before each transaction moto copies the table, to put it back if that fails, and with it every record that its
stream ever had. A record never changes, so that a copy of their list does, and a transaction does not take longer with each write
before it. An iterator reads the stream of the table that is there, and not of one that a transaction has undone. Nor is every
iterator kept for ever: AWS's end after a quarter of an hour, here all but the newest go.
"""

import copy

from moto.core.responses import EmptyResult
from moto.dynamodb.models.table import StreamShard
from moto.dynamodbstreams.models import DynamoDBStreamsBackend
from moto.stepfunctions.responses import StepFunctionResponse

ITERATORS = 100


def send_task_failure(self):
    self.stepfunction_backend.send_task_failure(
        self._get_param("taskToken"),
        error=self._get_param("error"),
        cause=self._get_param("cause"),
    )
    return EmptyResult()


StepFunctionResponse.send_task_failure = send_task_failure


def copy_shard(self, memo):
    copied = StreamShard.__new__(StreamShard)
    memo[id(self)] = copied
    copied.__dict__.update(self.__dict__)
    copied.table = copy.deepcopy(self.table, memo)
    copied.items = list(self.items)
    return copied


StreamShard.__deepcopy__ = copy_shard


def get_records(self, iterator_arn, limit):
    iterator = self.shard_iterators[iterator_arn]
    iterator.stream_shard = self._get_table_from_arn(iterator_arn).stream_shard
    records = iterator.get(limit)
    while len(self.shard_iterators) > ITERATORS:
        del self.shard_iterators[next(iter(self.shard_iterators))]
    return records


DynamoDBStreamsBackend.get_records = get_records
