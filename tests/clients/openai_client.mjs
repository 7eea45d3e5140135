// OpenAI's own Node client, unmodified, against a gateway; one line a check.
//
// usage: node openai_client.mjs BASE_URL

import assert from "node:assert/strict";
import OpenAI from "openai";

const TOOL = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};
const PICTURE =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const HELLO = [{ role: "user", content: "Hello there" }];
const model = "gpt-4o";

async function chat(client) {
  const answer = await client.chat.completions.create({ model, messages: HELLO });
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.match(answer.choices[0].message.content, /Hello there/);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  return answer.choices[0].message.content;
}

async function stream(client) {
  const whole = await chat(client);
  const asked = await client.chat.completions.create({
    model,
    messages: HELLO,
    stream: true,
    stream_options: { include_usage: true },
  });
  const pieces = [];
  let finish, usage;
  for await (const chunk of asked) {
    usage = chunk.usage ?? usage;
    for (const choice of chunk.choices) {
      pieces.push(choice.delta.content ?? "");
      finish = choice.finish_reason ?? finish;
    }
  }
  assert.equal(pieces.join(""), whole);
  assert.ok(pieces.filter(Boolean).length > 1, "it came in one piece");
  assert.equal(finish, "stop");
  assert.ok(usage.completion_tokens > 0);
}

async function streamHelper(client) {
  const whole = await chat(client);
  const runner = client.chat.completions.stream({ model, messages: HELLO });
  assert.equal((await runner.finalChatCompletion()).choices[0].message.content, whole);
}

async function tools(client, streamed) {
  const messages = [{ role: "user", content: "Please use get_weather for Hangzhou" }];
  for (let step = 0; step < 5; step++) {
    const body = { model, messages, tools: [TOOL] };
    const answer = streamed
      ? await client.chat.completions.stream(body).finalChatCompletion()
      : await client.chat.completions.create(body);
    assert.equal(answer.choices[0].finish_reason, "tool_calls");
    const [call] = answer.choices[0].message.tool_calls;
    assert.equal(call.function.name, "get_weather");
    assert.equal(typeof JSON.parse(call.function.arguments).city, "string");
    messages.push({
      role: "assistant",
      content: null,
      tool_calls: [{ id: call.id, type: "function", function: { name: call.function.name, arguments: call.function.arguments } }],
    });
    messages.push({ role: "tool", tool_call_id: call.id, content: `${20 + step} degrees` });
    const next = await client.chat.completions.create({ model, messages, tools: [TOOL] });
    assert.match(next.choices[0].message.content, new RegExp(`${20 + step} degrees`));
    messages.push({ role: "assistant", content: next.choices[0].message.content });
    messages.push({ role: "user", content: `And get_weather again, the ${step}. time` });
  }
}

async function vision(client) {
  const content = [
    { type: "text", text: "What is this?" },
    { type: "image_url", image_url: { url: PICTURE } },
  ];
  const answer = await client.chat.completions.create({ model, messages: [{ role: "user", content }] });
  assert.match(answer.choices[0].message.content, /^I see 1 image\./);
}

async function embeddings(client) {
  for (const encoding_format of ["float", "base64", undefined]) {
    const answer = await client.embeddings.create({ model: "text-embedding-3-small", input: ["one", "two"], encoding_format });
    assert.deepEqual(answer.data.map((row) => row.index), [0, 1]);
    assert.ok(answer.data[0].embedding.length > 0);
    assert.equal(answer.data[0].embedding.length, answer.data[1].embedding.length);
  }
}

async function models(client) {
  const listed = [];
  for await (const found of client.models.list()) listed.push(found.id);
  assert.ok(listed.includes(model), listed.join(" "));
}

async function errors(client) {
  const classes = {
    400: OpenAI.BadRequestError,
    401: OpenAI.AuthenticationError,
    403: OpenAI.PermissionDeniedError,
    404: OpenAI.NotFoundError,
    409: OpenAI.ConflictError,
    422: OpenAI.UnprocessableEntityError,
    429: OpenAI.RateLimitError,
    500: OpenAI.InternalServerError,
  };
  for (const [status, kind] of Object.entries(classes)) {
    for (const streamed of [false, true]) {
      const asked = client.chat.completions.create(
        { model: `fault-${status}`, messages: HELLO, stream: streamed },
        { maxRetries: 0 },
      );
      const error = await asked.then(() => assert.fail(`${status} raised nothing`), (error) => error);
      assert.ok(error instanceof kind, `${status}: ${error}`);
      assert.equal(error.status, Number(status));
      assert.ok(error.error.message);
      assert.ok(error.headers.get("x-request-id"));
    }
  }
}

async function cut(client) {
  const pieces = [];
  const consume = async () => {
    const asked = await client.chat.completions.create(
      { model: "fault-cut-after-3", messages: HELLO, stream: true },
      { maxRetries: 0 },
    );
    for await (const chunk of asked) pieces.push(...chunk.choices.map((choice) => choice.delta.content ?? ""));
  };
  await assert.rejects(consume, (error) => error instanceof OpenAI.APIError);
  assert.ok(pieces.join(""), "nothing came before the cut");
}

async function abort(client) {
  const controller = new AbortController();
  const asked = await client.chat.completions.create(
    { model: "fault-stall-between-after-2", messages: HELLO, stream: true },
    { signal: controller.signal },
  );
  for await (const _ of asked) {
    controller.abort();
    break;
  }
}

async function abortEarly(client) {
  const controller = new AbortController();
  const asked = client.chat.completions.create({ model: "fault-stall-head", messages: HELLO }, { signal: controller.signal });
  setTimeout(() => controller.abort(), 200);
  await assert.rejects(asked, (error) => error instanceof OpenAI.APIUserAbortError);
}

async function retries(client) {
  for (const [spelled, least] of [["retry-after-1", 1800], ["retry-after-ms-700", 1200]]) {
    const started = performance.now();
    const answer = await client.chat.completions.create(
      { model: `fault-429-${spelled}-first-2`, messages: HELLO },
      { maxRetries: 2, headers: { "x-mock-key": `node-${spelled}` } },
    );
    assert.ok(answer.choices[0].message.content);
    const waited = performance.now() - started;
    assert.ok(waited >= least, `${spelled}: only ${waited} ms`);
  }
}

const checks = {
  chat,
  stream,
  "stream helper": streamHelper,
  tools: (client) => tools(client, false),
  "tools, streamed": (client) => tools(client, true),
  vision,
  embeddings,
  models,
  "error classes": errors,
  "cut stream": cut,
  abort,
  "abort before the answer": abortEarly,
  retries,
};
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "sk-client", timeout: 60_000 });
for (const [name, check] of Object.entries(checks)) {
  await check(client);
  console.log("ok", name);
}
