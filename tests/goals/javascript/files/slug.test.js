import assert from "node:assert";
import test from "node:test";
import { slug } from "./slug.js";

test("all that is no letter or digit becomes one hyphen", () => {
  assert.strictEqual(slug("Hello,  big World"), "hello-big-world");
});

test("no hyphen at the ends", () => {
  assert.strictEqual(slug("  (Hello!) "), "hello");
});
