// OpenAI's own Node client, unmodified, asks the gateway which models it may use; one line a check.
//
// usage: node openai_models.mjs BASE_URL KEY MODEL...

import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, apiKey, ...expected] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, timeout: 60_000, maxRetries: 0 });

const listed = [];
for await (const model of client.models.list()) listed.push(model);
assert.deepEqual(listed.map((model) => model.id), expected);
console.log("ok list");

assert.deepEqual(await client.models.retrieve(expected[0]), listed[0]);
console.log("ok retrieve");

await assert.rejects(client.models.retrieve("none-of-them"), (error) => {
  return error instanceof OpenAI.NotFoundError && error.code === "model_not_found";
});
console.log("ok not found");

await assert.rejects(new OpenAI({ baseURL, apiKey: "somebody", maxRetries: 0 }).models.list(), OpenAI.AuthenticationError);
console.log("ok stranger");
