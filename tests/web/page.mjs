// The page against a running `gen serve`, $ADDRESS with the key $KEY, in jsdom: its script with a document and the
// real network, without pixels.

import assert from "node:assert/strict";
import { JSDOM, VirtualConsole } from "jsdom";

const { ADDRESS, KEY } = process.env;
const html = await (await fetch(ADDRESS)).text();

function beforeParse(window) {
  window.fetch = (path, options = {}) => fetch(new URL(path, ADDRESS), options);
  Object.assign(window, { AbortController, TextDecoderStream });
  let urls = 0;
  window.URL.createObjectURL = () => `blob:${++urls}`;
  window.URL.revokeObjectURL = () => {};
  // jsdom has no modal dialogs yet.
  window.HTMLDialogElement.prototype.showModal ??= function () { this.setAttribute("open", ""); };
  window.HTMLDialogElement.prototype.close ??= function () { this.removeAttribute("open"); };
}

const virtualConsole = new VirtualConsole();
virtualConsole.on("jsdomError", error => { throw error; });
const options = { url: `${ADDRESS}/`, runScripts: "dangerously", pretendToBeVisual: true, virtualConsole, beforeParse };
const { window } = new JSDOM(html, options);
const { document } = window;
const $ = id => document.getElementById(id);
const pictures = () => [...document.querySelector(".batch").querySelectorAll(".picture")];

async function until(what, holds) {
  for (let i = 0; i < 3000; i++) {
    if (holds()) return;
    await new Promise(done => setTimeout(done, 20));
  }
  throw new Error(`never ${what}: ${$("state").textContent} ${$("error").textContent}`);
}

const submit = () => $("form").requestSubmit($("draw"));

// A key is asked for, and kept for the tab.
await until("asks for a key", () => !$("key-field").hidden && !$("error").hidden);
$("key").value = KEY;
$("use-key").click();
await until("ready", () => $("state").textContent === "Ready");
assert.equal(window.sessionStorage.getItem("key"), KEY);
assert.ok($("classes").children.length > 10 && $("class").value);

// Images grow, and are shown large with their command.
$("class").value = "207 golden retriever";
$("number").value = "2";
$("seed").value = "7";
const grown = new Set();
const watch = records => records.forEach(r => r.oldValue?.includes("growing") && grown.add(r.target));
new window.MutationObserver(watch).observe($("batches"), { attributes: true, attributeOldValue: true, subtree: true });
submit();
await until("done", () => $("state").textContent === "Done");
assert.equal(grown.size, 2);
assert.ok(pictures().every(picture => !picture.disabled && !picture.classList.contains("growing")));
pictures()[1].click();
assert.match($("large-command").textContent, /^gen sample --model \S+ --class 207 --num 2 --seed 7 --cfg /);
assert.equal($("download").download, "gen-golden-retriever-7-1.png");
$("close").click();

// Another seed, a cancelled request, and an error in the server's words.
document.querySelector(".again").click();
await until("again", () => document.querySelectorAll(".batch").length === 2 && $("state").textContent === "Done");
$("number").value = "10";
submit();
await until("busy", () => !$("cancel").disabled);
$("cancel").click();
await until("cancelled", () => $("state").textContent === "Cancelled" && $("cancel").disabled);
$("class").value = "golden retreiver";
submit();
await until("refused", () => $("error").textContent.includes("did you mean"));
console.log("page in jsdom: ok");
process.exit(0);
