"""Anthropic's own Python client, unmodified, against a gateway; one line a check.

usage: anthropic_client.py BASE_URL [claude]

With `claude` the vendor is Anthropic's own kind, and what no other vendor has is checked too.
"""

import sys
import time

import anthropic

TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
HELLO = [{"role": "user", "content": "Hello there"}]
MODEL = "claude-sonnet-4"


def ask(client, **more):
    return client.messages.create(**{"model": MODEL, "max_tokens": 500, "messages": HELLO, **more})


def message(client):
    answer = ask(client, system="Be brief.")
    assert answer.type == "message" and answer.role == "assistant", answer
    assert "Hello there" in answer.content[0].text, answer
    assert answer.stop_reason == "end_turn", answer
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0, answer
    return answer.content[0].text


def stream(client):
    whole = message(client)
    more = {"model": MODEL, "max_tokens": 500, "messages": HELLO, "system": "Be brief."}
    with client.messages.stream(**more) as asked:
        pieces = list(asked.text_stream)
        final = asked.get_final_message()
    assert "".join(pieces) == whole and len(pieces) > 1, (pieces, whole)
    assert final.stop_reason == "end_turn" and final.usage.output_tokens > 0, final


def event_order(client):
    names = [event.type for event in ask(client, stream=True)]
    assert names[0] == "message_start" and names[-1] == "message_stop", names
    assert names.count("content_block_start") == names.count("content_block_stop") == 1, names
    assert "message_delta" in names, names


def tools(client, streamed):
    messages = [{"role": "user", "content": "Please use get_weather for Hangzhou"}]
    for step in range(5):
        more = {"model": MODEL, "max_tokens": 500, "messages": messages, "tools": [TOOL]}
        if streamed:
            with client.messages.stream(**more) as asked:
                answer = asked.get_final_message()
        else:
            answer = client.messages.create(**more)
        assert answer.stop_reason == "tool_use", answer
        (call,) = [block for block in answer.content if block.type == "tool_use"]
        assert call.name == "get_weather" and isinstance(call.input["city"], str), call
        used = {"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}
        messages.append({"role": "assistant", "content": [used]})
        result = {"type": "tool_result", "tool_use_id": call.id, "content": f"{20 + step} degrees"}
        messages.append({"role": "user", "content": [result]})
        answer = ask(client, messages=messages, tools=[TOOL])
        assert f"{20 + step} degrees" in answer.content[0].text, answer
        messages.append({"role": "assistant", "content": answer.content[0].text})
        messages.append({"role": "user", "content": f"And get_weather again, the {step}. time"})


def vision(client):
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
    answer = ask(client, messages=[{"role": "user", "content": content}])
    assert answer.content[0].text.startswith("I see 1 image."), answer


def errors(client):
    classes = {
        400: anthropic.BadRequestError,
        401: anthropic.AuthenticationError,
        403: anthropic.PermissionDeniedError,
        404: anthropic.NotFoundError,
        429: anthropic.RateLimitError,
        500: anthropic.InternalServerError,
    }
    once = client.with_options(max_retries=0)
    for status, kind in classes.items():
        try:
            ask(once, model=f"fault-{status}")
            raise AssertionError(f"{status} raised nothing")
        except anthropic.APIStatusError as error:
            assert isinstance(error, kind), (status, error)
            assert error.status_code == status and error.body["error"]["message"], error.body


def cut(client):
    once = client.with_options(max_retries=0)
    pieces = []
    try:
        for event in ask(once, model="fault-cut-after-3", stream=True):
            pieces.append(event.type)
        raise AssertionError("a cut stream ended like a whole one")
    except anthropic.APIError as error:
        assert "upstream" in str(error), error
    assert "message_start" in pieces and "message_stop" not in pieces, pieces


def abort(client):
    asked = ask(client, model="fault-stall-between-after-2", stream=True)
    next(iter(asked))
    asked.close()


def retries(client):
    started = time.monotonic()
    answer = ask(
        client.with_options(max_retries=2),
        model="fault-429-retry-after-1-first-2",
        extra_headers={"x-mock-key": "python"},
    )
    assert answer.content[0].text, answer
    assert time.monotonic() - started >= 1.8, "it did not wait"


def unknown_fields(client):
    """What the SDK does not know and the gateway need not: betas, fields of tomorrow."""
    answer = client.beta.messages.create(
        model=MODEL,
        max_tokens=500,
        messages=HELLO,
        betas=["one-2025-01-01", "two-2025-01-01"],
        metadata={"user_id": "u-1"},
        extra_body={"field_of_tomorrow": {"a": [1, 2]}},
    )
    assert answer.content[0].text, answer


def count_tokens(client):
    assert client.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens > 0


def thinking(client):
    answer = ask(client, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000)
    kinds = [block.type for block in answer.content]
    assert kinds[0] == "thinking" and kinds[-1] == "text", answer


CLAUDE_ONLY = {
    "count tokens": count_tokens,
    "thinking": thinking,
}
CHECKS = {
    "message": message,
    "stream": stream,
    "order of events": event_order,
    "tools": lambda client: tools(client, False),
    "tools, streamed": lambda client: tools(client, True),
    "vision": vision,
    "unknown fields": unknown_fields,
    "error classes": errors,
    "cut stream": cut,
    "abort": abort,
    "retries": retries,
}


def main(base_url, vendor="any"):
    client = anthropic.Anthropic(base_url=base_url, api_key="sk-client", timeout=60)
    checks = {**CHECKS, **CLAUDE_ONLY} if vendor == "claude" else CHECKS
    for name, check in checks.items():
        check(client)
        print("ok", name, flush=True)


main(*sys.argv[1:])
