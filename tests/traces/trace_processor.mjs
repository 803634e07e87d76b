// Perfetto's own trace processor, the WebAssembly build that its UI runs, behind the HTTP interface that the Python
// package `perfetto` speaks. Usage: node trace_processor.mjs FOLDER, where FOLDER holds engine_bundle.js and *.wasm.
// Prints the port that it listens on, and ends with its standard input.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

const folder = process.argv[2];
const APPEND_TRACE_DATA = 1, FINALIZE_TRACE_DATA = 2, QUERY_STREAMING = 3;
const REQUEST = 2, DATA = 101, QUERY_ARGS = 103, APPEND_RESULT = 201, QUERY_RESULT = 203;
const LENGTH_DELIMITED = 2;

// The bundle is made for a web worker and refuses to run under anything that looks like node.
process.type = "renderer";
globalThis.self = globalThis;
globalThis.WorkerGlobalScope = class {};
globalThis.location = { href: "http://localhost/" };
globalThis.XMLHttpRequest = class {
  open(_method, name) {
    this.name = name;
  }
  send() {
    this.response = readFileSync(join(folder, this.name));
  }
};
console.warn = () => {};
(0, eval)(readFileSync(join(folder, "engine_bundle.js"), "utf8"));
await new Promise((resolve) => setTimeout(resolve, 0));

const replies = [];
const port = { postMessage: (bytes) => replies.push(Buffer.from(bytes)) };
self.onmessage({ data: port });

function varint(value) {
  const bytes = [];
  for (; value >= 0x80; value = Math.floor(value / 128)) bytes.push((value % 128) | 0x80);
  return Buffer.from([...bytes, value]);
}

function field(number, content) {
  return Buffer.concat([varint(number * 8 + LENGTH_DELIMITED), varint(content.length), content]);
}

function readVarint(bytes, position) {
  let value = 0, scale = 1;
  for (;;) {
    const byte = bytes[position++];
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return [value, position];
    scale *= 128;
  }
}

function* fields(bytes) {
  for (let position = 0, key, length; position < bytes.length;) {
    [key, position] = readVarint(bytes, position);
    if (key % 8 !== LENGTH_DELIMITED) {
      [, position] = readVarint(bytes, position);
      continue;
    }
    [length, position] = readVarint(bytes, position);
    yield [Math.floor(key / 8), bytes.subarray(position, position + length)];
    position += length;
  }
}

// The answer's messages one after the other are, in protobuf, one message with all their parts.
function call(method, resultField, argumentField, argument) {
  replies.length = 0;
  const parts = [varint(REQUEST * 8), varint(method)];
  if (argument !== undefined) parts.push(field(argumentField, argument));
  port.onmessage({ data: new Uint8Array(field(1, Buffer.concat(parts))) });
  const results = [];
  for (const [, message] of fields(Buffer.concat(replies)))
    for (const [number, content] of fields(message)) if (number === resultField) results.push(content);
  return Buffer.concat(results);
}

const routes = {
  "/parse": (body) => call(APPEND_TRACE_DATA, APPEND_RESULT, DATA, body),
  "/notify_eof": () => call(FINALIZE_TRACE_DATA),
  "/query": (body) => call(QUERY_STREAMING, QUERY_RESULT, QUERY_ARGS, body),
};

const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const route = routes[request.url];
    try {
      response.writeHead(route ? 200 : 404).end(route ? route(Buffer.concat(parts)) : "");
    } catch (error) {
      process.stderr.write(`${error}\n`);
      response.destroy();
    }
  });
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`${server.address().port}\n`));
process.stdin.on("end", () => process.exit()).resume();
