"""Python imports this before moto's server when it stands in PYTHONPATH. It corrects what moto 5.2.5 lacks.

SendTaskFailure: moto's interpreter takes a cause, but its HTTP layer drops it, so a state machine's Catch would see none.
"""

from moto.core.responses import EmptyResult
from moto.stepfunctions.responses import StepFunctionResponse


def send_task_failure(self):
    self.stepfunction_backend.send_task_failure(
        self._get_param("taskToken"),
        error=self._get_param("error"),
        cause=self._get_param("cause"),
    )
    return EmptyResult()


StepFunctionResponse.send_task_failure = send_task_failure
