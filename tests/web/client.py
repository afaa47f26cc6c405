"""OpenAI's client for Python against a running `gen serve`: $ADDRESS, with the key $KEY."""

import base64
import concurrent.futures
import os
import time
import urllib.request

import openai

ADDRESS, KEY = os.environ["ADDRESS"], os.environ["KEY"]
MODEL, CLASS = "imagenet56-64", "golden retriever"


def client(**options):
    return openai.OpenAI(base_url=f"{ADDRESS}/v1", **{"api_key": KEY, "max_retries": 0, **options})


def wait_until_ready():
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{ADDRESS}/readyz") as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server does not become ready")


def fails(kind, param=None, code=None, **fields):
    try:
        client().images.generate(**{"model": MODEL, "prompt": CLASS, **fields})
    except kind as error:
        assert param is None or error.param == param, error
        assert code is None or error.code == code, error
        return error
    raise AssertionError(f"no {kind.__name__} for {fields}")


def whole():
    answer = client().images.generate(model=MODEL, prompt=CLASS, n=4, extra_body={"seed": 7})
    assert len(answer.data) == 4 and answer.size == "64x64" and answer.usage.output_tokens == 4 * 64
    files = [base64.b64decode(image.b64_json) for image in answer.data]
    assert all(file.startswith(b"\x89PNG") and b"gen:sample" in file for file in files)
    again = client().images.generate(model="gpt-image-1", prompt=CLASS, n=4, extra_body={"seed": 7})
    assert [image.b64_json for image in again.data] == [image.b64_json for image in answer.data]
    return answer


def stream(first):
    events = client().images.generate(
        model=MODEL, prompt=CLASS, n=2, stream=True, partial_images=2, extra_body={"seed": 7}
    )
    kinds = {0: [], 1: []}
    for event in events:
        kinds[event.image_index].append(event.type.rsplit(".", 1)[1])
        if event.type == "image_generation.completed":
            assert event.b64_json == first.data[event.image_index].b64_json
            assert event.usage.total_tokens == 64
    assert all(kind == ["partial_image", "partial_image", "completed"] for kind in kinds.values()), kinds


def errors():
    fails(openai.BadRequestError, "size", "invalid_value", size="1536x1024")
    fails(openai.BadRequestError, "style", "unknown_parameter", style="vivid")
    fails(openai.BadRequestError, "response_format", "invalid_value", response_format="url")
    fails(openai.BadRequestError, "n", "integer_above_max_value", n=11)
    fails(openai.NotFoundError, "model", "model_not_found", model="dall-e-2")
    try:
        client(api_key="sk-wrong-wrong-wrong").models.list()
        raise AssertionError("a wrong key is taken")
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key", error


def overload():
    """A full queue is refused; a client that waits as it is told gets its images all the same."""

    def ask(retries):
        try:
            patient = client(max_retries=retries, timeout=600)
            return len(patient.images.generate(model=MODEL, prompt=CLASS, n=4).data)
        except openai.RateLimitError as error:
            assert int(error.response.headers["retry-after"]) >= 1
            return 0

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        hasty = list(pool.map(ask, [0] * 12))
        assert 0 in hasty and 4 in hasty, hasty
        patient = list(pool.map(ask, [50] * 6))
        assert patient == [4] * 6, patient


def models():
    listed = client().models.list().data
    assert [model.id for model in listed] == [MODEL] and listed[0].owned_by == "gen"
    assert client().models.retrieve(MODEL).id == MODEL


wait_until_ready()
first = whole()
stream(first)
errors()
models()
overload()
print(f"openai {openai.__version__} for Python: ok")
