# ruff: noqa
# mypy: ignore-errors
# The guide's section 4.2 as it was printed: the function that it calls is not there, and with these settings a worker
# that dies takes its task with it.
from celery import Celery

app = Celery("glm_tasks", broker="redis://localhost:6379/0")


@app.task
def process_glm_request(input_data):
    # 调用GLM模型处理
    result = call_glm_api(input_data)
    return result
