// OpenAI's client for Node against a running `gen serve`: $ADDRESS, with the key $KEY.

import assert from "node:assert/strict";
import OpenAI from "openai";

const { ADDRESS, KEY } = process.env;
const [model, prompt] = ["imagenet56-64", "golden retriever"];
const client = new OpenAI({ baseURL: `${ADDRESS}/v1`, apiKey: KEY, maxRetries: 0 });

const answer = await client.images.generate({ model, prompt, n: 2, seed: 7 });
assert.equal(answer.data.length, 2);
assert.ok(Buffer.from(answer.data[0].b64_json, "base64").includes("gen:sample"));
assert.equal(answer.usage.output_tokens, 128);

const seen = [];
const events = await client.images.generate({ model, prompt, stream: true, partial_images: 1, seed: 7 });
for await (const event of events) {
  seen.push(event.type);
  if (event.type.endsWith("completed")) assert.equal(event.b64_json, answer.data[0].b64_json);
}
assert.deepEqual(seen, ["image_generation.partial_image", "image_generation.completed"]);

await assert.rejects(client.images.generate({ model, prompt, size: "1536x1024" }), error => {
  assert.ok(error instanceof OpenAI.BadRequestError);
  assert.equal(error.param, "size");
  return true;
});
await assert.rejects(client.images.generate({ model: "none", prompt }), OpenAI.NotFoundError);
const stranger = new OpenAI({ baseURL: `${ADDRESS}/v1`, apiKey: "sk-wrong-wrong-wrong", maxRetries: 0 });
await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
assert.deepEqual((await client.models.list()).data.map(each => each.id), [model]);
console.log("openai for Node: ok");
