// Anthropic's own Node client, unmodified, against a gateway; one line a check.
//
// usage: node anthropic_client.mjs BASE_URL

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const TOOL = {
  name: "get_weather",
  description: "The weather of a city",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const PICTURE =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const HELLO = [{ role: "user", content: "Hello there" }];
const BODY = { model: "claude-sonnet-4", max_tokens: 500, messages: HELLO };

async function message(client) {
  const answer = await client.messages.create(BODY);
  assert.equal(answer.stop_reason, "end_turn");
  assert.match(answer.content[0].text, /Hello there/);
  assert.ok(answer.usage.input_tokens > 0 && answer.usage.output_tokens > 0);
  return answer.content[0].text;
}

async function stream(client) {
  const whole = await message(client);
  const pieces = [];
  const asked = client.messages.stream(BODY).on("text", (text) => pieces.push(text));
  const final = await asked.finalMessage();
  assert.equal(pieces.join(""), whole);
  assert.ok(pieces.length > 1, "it came in one piece");
  assert.equal(final.stop_reason, "end_turn");
}

async function tools(client, streamed) {
  const messages = [{ role: "user", content: "Please use get_weather for Hangzhou" }];
  for (let step = 0; step < 5; step++) {
    const body = { ...BODY, messages, tools: [TOOL] };
    const answer = streamed ? await client.messages.stream(body).finalMessage() : await client.messages.create(body);
    assert.equal(answer.stop_reason, "tool_use");
    const call = answer.content.find((block) => block.type === "tool_use");
    assert.equal(call.name, "get_weather");
    assert.equal(typeof call.input.city, "string");
    messages.push({ role: "assistant", content: [{ type: "tool_use", id: call.id, name: call.name, input: call.input }] });
    messages.push({ role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: `${20 + step} degrees` }] });
    const next = await client.messages.create({ ...BODY, messages, tools: [TOOL] });
    assert.match(next.content[0].text, new RegExp(`${20 + step} degrees`));
    messages.push({ role: "assistant", content: next.content[0].text });
    messages.push({ role: "user", content: `And get_weather again, the ${step}. time` });
  }
}

async function vision(client) {
  const content = [
    { type: "image", source: { type: "base64", media_type: "image/png", data: PICTURE } },
    { type: "text", text: "What is this?" },
  ];
  const answer = await client.messages.create({ ...BODY, messages: [{ role: "user", content }] });
  assert.match(answer.content[0].text, /^I see 1 image\./);
}

async function errors(client) {
  const classes = {
    400: Anthropic.BadRequestError,
    401: Anthropic.AuthenticationError,
    403: Anthropic.PermissionDeniedError,
    404: Anthropic.NotFoundError,
    422: Anthropic.UnprocessableEntityError,
    429: Anthropic.RateLimitError,
    500: Anthropic.InternalServerError,
  };
  for (const [status, kind] of Object.entries(classes)) {
    const asked = client.messages.create({ ...BODY, model: `fault-${status}` }, { maxRetries: 0 });
    const error = await asked.then(() => assert.fail(`${status} raised nothing`), (error) => error);
    assert.ok(error instanceof kind, `${status}: ${error}`);
    assert.equal(error.status, Number(status));
  }
}

async function cut(client) {
  const names = [];
  const consume = async () => {
    const asked = await client.messages.create({ ...BODY, model: "fault-cut-after-3", stream: true }, { maxRetries: 0 });
    for await (const event of asked) names.push(event.type);
  };
  await assert.rejects(consume, (error) => error instanceof Anthropic.APIError);
  assert.ok(names.includes("message_start") && !names.includes("message_stop"), names.join(" "));
}

async function abort(client) {
  const asked = await client.messages.create({ ...BODY, model: "fault-stall-between-after-2", stream: true });
  for await (const _ of asked) {
    asked.controller.abort();
    break;
  }
}

async function retries(client) {
  const started = performance.now();
  const answer = await client.messages.create(
    { ...BODY, model: "fault-429-retry-after-1-first-2" },
    { maxRetries: 2, headers: { "x-mock-key": "node" } },
  );
  assert.ok(answer.content[0].text);
  assert.ok(performance.now() - started >= 1800, "it did not wait");
}

const checks = {
  message,
  stream,
  tools: (client) => tools(client, false),
  "tools, streamed": (client) => tools(client, true),
  vision,
  "error classes": errors,
  "cut stream": cut,
  abort,
  retries,
};
const client = new Anthropic({ baseURL: process.argv[2], apiKey: "sk-client", timeout: 60_000 });
for (const [name, check] of Object.entries(checks)) {
  await check(client);
  console.log("ok", name);
}
