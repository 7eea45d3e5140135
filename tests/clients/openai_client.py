"""OpenAI's own Python client, unmodified, against a gateway; one line a check.

usage: openai_client.py BASE_URL [chat]

With `chat` only what every vendor can do is checked: chat, stream, tools, a picture.
"""

import json
import sys
import time

import openai

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
HELLO = [{"role": "user", "content": "Hello there"}]
MODEL = "gpt-4o"


def chat(client):
    answer = client.chat.completions.create(model=MODEL, messages=HELLO)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and choice.message.role == "assistant", answer
    assert "Hello there" in choice.message.content, answer
    assert choice.finish_reason == "stop", answer
    assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0, answer
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, answer
    return choice.message.content


def stream(client):
    whole = chat(client)
    pieces, finish, usage = [], None, None
    asked = client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    for chunk in asked:
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            finish = choice.finish_reason or finish
    assert "".join(pieces) == whole, (pieces, whole)
    assert len([piece for piece in pieces if piece]) > 1, "it came in one piece"
    assert finish == "stop" and usage.completion_tokens > 0, (finish, usage)


def tools(client, streamed):
    """Asks, calls the tool that the model wants, answers with what it gave; five steps."""
    messages = [{"role": "user", "content": "Please use get_weather for Hangzhou"}]
    for step in range(5):
        if streamed:
            call = streamed_call(client, messages)
        else:
            answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
            assert answer.choices[0].finish_reason == "tool_calls", answer
            (found,) = answer.choices[0].message.tool_calls
            call = (found.id, found.function.name, found.function.arguments)
        identity, name, arguments = call
        assert name == "get_weather" and identity, call
        assert isinstance(json.loads(arguments)["city"], str), call
        function = {"name": name, "arguments": arguments}
        messages.append(
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": identity, "type": "function", "function": function}],
            }
        )
        messages.append({"role": "tool", "tool_call_id": identity, "content": f"{20 + step} degrees"})
        answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
        assert f"{20 + step} degrees" in answer.choices[0].message.content, answer
        messages.append({"role": "assistant", "content": answer.choices[0].message.content})
        messages.append({"role": "user", "content": f"And get_weather again, the {step}. time"})


def streamed_call(client, messages):
    identity = name = None
    arguments, finish = "", None
    for chunk in client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL], stream=True):
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                assert call.index == 0, call
                identity = call.id or identity
                if call.function.name:
                    name = call.function.name
                arguments += call.function.arguments or ""
    assert finish == "tool_calls", finish
    return identity, name, arguments


def vision(client):
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    assert answer.choices[0].message.content.startswith("I see 1 image."), answer


def structured(client):
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string"}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        response_format={"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}},
    )
    assert isinstance(json.loads(answer.choices[0].message.content)["answer"], str), answer


def embeddings(client):
    for encoding in ("float", "base64", None):
        more = {"encoding_format": encoding} if encoding else {}
        answer = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"], **more)
        assert [row.index for row in answer.data] == [0, 1], answer
        assert len(answer.data[0].embedding) == len(answer.data[1].embedding) > 0, answer
        assert answer.usage.prompt_tokens > 0, answer


def models(client):
    listed = [model.id for model in client.models.list()]
    assert MODEL in listed, listed


def completions(client):
    answer = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Hello there")
    assert answer.choices[0].text, answer


def responses(client):
    answer = client.responses.create(model=MODEL, input="Hello there")
    assert "Hello there" in answer.output_text and answer.status == "completed", answer
    pieces, last = [], None
    for event in client.responses.create(model=MODEL, input="Hello there", stream=True):
        if event.type == "response.output_text.delta":
            pieces.append(event.delta)
        last = event.type
    assert "".join(pieces) == answer.output_text and last == "response.completed", (pieces, last)


def errors(client):
    classes = {
        400: openai.BadRequestError,
        401: openai.AuthenticationError,
        403: openai.PermissionDeniedError,
        404: openai.NotFoundError,
        409: openai.ConflictError,
        422: openai.UnprocessableEntityError,
        429: openai.RateLimitError,
        500: openai.InternalServerError,
        503: openai.InternalServerError,
    }
    once = client.with_options(max_retries=0)
    for status, kind in classes.items():
        for streamed in (False, True):
            try:
                once.chat.completions.create(model=f"fault-{status}", messages=HELLO, stream=streamed)
                raise AssertionError(f"{status} raised nothing")
            except openai.APIStatusError as error:
                assert type(error) is kind, (status, error)
                assert error.status_code == status and error.body["message"], error.body
                assert error.response.headers["x-request-id"], error.response.headers


def cut(client):
    """A stream that the vendor cuts raises; what came before it is kept."""
    once = client.with_options(max_retries=0)
    pieces = []
    try:
        for chunk in once.chat.completions.create(model="fault-cut-after-3", messages=HELLO, stream=True):
            pieces += [choice.delta.content or "" for choice in chunk.choices]
        raise AssertionError("a cut stream ended like a whole one")
    except openai.APIError as error:
        assert "upstream" in str(error), error
    assert "".join(pieces), "nothing came before the cut"


def abort(client):
    """Leaves in mid-stream; whether the vendor hears of it is asked of the vendor."""
    asked = client.chat.completions.create(model="fault-stall-between-after-2", messages=HELLO, stream=True)
    next(iter(asked))
    asked.close()


def retries(client):
    """Twice 429, then an answer: the client waits as long as `retry-after` says."""
    for spelled, least in (("retry-after-1", 1.8), ("retry-after-ms-700", 1.2)):
        patient = client.with_options(max_retries=2)
        started = time.monotonic()
        answer = patient.chat.completions.create(
            model=f"fault-429-{spelled}-first-2",
            messages=HELLO,
            extra_headers={"x-mock-key": f"python-{spelled}"},
        )
        assert answer.choices[0].message.content, answer
        waited = time.monotonic() - started
        assert waited >= least, f"{spelled}: only {waited} s"


def raw_headers(client):
    answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    assert answer.headers["content-type"].startswith("application/json"), answer.headers
    assert answer.headers["x-request-id"], answer.headers
    assert answer.parse().choices, answer


EVERYWHERE = {
    "chat": chat,
    "stream": stream,
    "tools": lambda client: tools(client, False),
    "tools, streamed": lambda client: tools(client, True),
    "vision": vision,
}
OPENAI_ONLY = {
    "structured output": structured,
    "embeddings": embeddings,
    "models": models,
    "completions": completions,
    "responses": responses,
    "error classes": errors,
    "cut stream": cut,
    "abort": abort,
    "retries": retries,
    "raw headers": raw_headers,
}


def main(base_url, which="all"):
    client = openai.OpenAI(base_url=base_url, api_key="sk-client", timeout=60)
    checks = EVERYWHERE if which == "chat" else {**EVERYWHERE, **OPENAI_ONLY}
    for name, check in checks.items():
        check(client)
        print("ok", name, flush=True)


main(*sys.argv[1:])
