// Files are sent by tus 1.0, each in chunks that the server has safe before the next; what broke off goes on.
"use strict";

const place = document.getElementById("drop");
const told = document.getElementById("told");
const table = place.querySelector("table");
const CHUNK = 32 << 20;
const PATIENCE = [1, 2, 5, 10, 20, 30]; // seconds before another try
const TUS = { "Tus-Resumable": "1.0.0" };
const waiting = [];
let working = false;
let unfinished = 0;

place.hidden = false;
document.getElementById("files").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = "";
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  place.classList.add("over");
});
document.addEventListener("dragleave", () => place.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  place.classList.remove("over");
  take(event.dataTransfer.files);
});
window.addEventListener("beforeunload", (event) => {
  if (unfinished) event.preventDefault();
});

function take(files) {
  for (const file of files) {
    const row = table.tBodies[0].insertRow();
    const name = row.insertCell();
    name.textContent = file.name;
    name.className = "name";
    const size = row.insertCell();
    size.textContent = sizeOf(file.size);
    size.className = "number";
    const state = row.insertCell();
    const digest = row.insertCell();
    digest.className = "digest small";
    state.textContent = "waits";
    waiting.push({ file, state, digest });
    unfinished += 1;
  }
  table.hidden = table.tBodies[0].rows.length === 0;
  work();
}

async function work() {
  if (working) return;
  working = true;
  while (waiting.length) {
    const one = waiting.shift();
    try {
      await send(one);
    } catch (error) {
      one.state.textContent = `not sent: ${error.message}`;
      one.state.className = "bad";
      const again = document.createElement("button");
      again.type = "button";
      again.textContent = "Try again";
      again.addEventListener("click", () => {
        one.state.textContent = "waits";
        one.state.className = "";
        waiting.push(one);
        unfinished += 1;
        work();
      });
      one.state.append(" ", again);
    }
    unfinished -= 1;
  }
  working = false;
}

async function send(one) {
  const { file, state, digest } = one;
  const key = `drop ${place.dataset.uploads} ${file.name} ${file.size} ${file.lastModified}`;
  state.textContent = "begins";
  let [url, offset] = await find(key);
  if (url === null) {
    url = await create(file);
    offset = 0;
    keep(key, url);
  }
  const started = performance.now();
  const first = offset;
  let failures = 0;
  let answer = null;
  while (answer === null || offset < file.size) {
    if (file.size === 0) break;
    try {
      answer = await send_chunk(url, file, offset, (sent) => {
        const seconds = (performance.now() - started) / 1000;
        const rate = (offset + sent - first) / Math.max(seconds, 0.001);
        const left = rate > 0 ? (file.size - offset - sent) / rate : 0;
        const percent = Math.floor((100 * (offset + sent)) / file.size);
        state.textContent = `${percent} % · ${sizeOf(rate)}/s · ${timeOf(left)} left`;
      });
      offset = Number(answer.getResponseHeader("Upload-Offset"));
      failures = 0;
    } catch (problem) {
      if (problem.isFinal) {
        forget(key);
        throw problem;
      }
      if (failures === PATIENCE.length) throw new Error("the connection is lost; choose the file again to go on");
      state.textContent = "waits for the connection";
      await sleep(PATIENCE[failures]);
      failures += 1;
      try {
        offset = await probe(url);
        if (offset === file.size) break;
      } catch (lost) {
        if (lost.isFinal) {
          forget(key);
          throw lost;
        }
      }
    }
  }
  forget(key);
  state.textContent = "stored";
  state.className = "good";
  digest.title = hex(answer === null ? null : answer.getResponseHeader("Repr-Digest"));
  digest.textContent = digest.title && `${digest.title.slice(0, 16)}…`;
  told.textContent = "What is stored has arrived whole; its checksum is what sha512sum says of your file.";
}

async function find(key) {
  const url = kept(key);
  if (url === null) return [null, 0];
  try {
    return [url, await probe(url)];
  } catch (problem) {
    if (!problem.isFinal) throw problem;
    forget(key);
    return [null, 0];
  }
}

async function create(file) {
  const path = btoa(String.fromCharCode(...new TextEncoder().encode(file.name)));
  const mtime = btoa(String(BigInt(file.lastModified) * 1000000n));
  const headers = { ...TUS, "Upload-Length": String(file.size), "Upload-Metadata": `path ${path},mtime_ns ${mtime}` };
  const answer = await fetch(place.dataset.uploads, { method: "POST", headers });
  if (!answer.ok) throw await problemOf(answer);
  return answer.headers.get("Location");
}

async function probe(url) {
  const answer = await fetch(url, { method: "HEAD", headers: TUS });
  if (!answer.ok) throw await problemOf(answer);
  return Number(answer.headers.get("Upload-Offset"));
}

function send_chunk(url, file, offset, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells nothing of what has gone out
    request.open("PATCH", url);
    for (const [name, value] of Object.entries(TUS)) request.setRequestHeader(name, value);
    request.setRequestHeader("Upload-Offset", String(offset));
    request.setRequestHeader("Content-Type", "application/offset+octet-stream");
    request.upload.addEventListener("progress", (event) => progress(event.loaded));
    request.addEventListener("error", () => reject(new Error("the connection is lost")));
    request.addEventListener("load", () => {
      if (request.status < 300) resolve(request);
      else reject(problem(request.status, request.responseText));
    });
    request.send(file.slice(offset, Math.min(offset + CHUNK, file.size)));
  });
}

async function problemOf(answer) {
  return problem(answer.status, await answer.text());
}

function problem(status, text) {
  let said = `the server answered ${status}`;
  let code = "";
  try {
    const known = JSON.parse(text);
    said = known.detail || known.title || said;
    code = known.code;
  } catch {
    // no problem document: the status has to do
  }
  const error = new Error(said);
  error.isFinal = code === "drop_refused" || (status >= 400 && status < 500 && ![408, 409, 429].includes(status));
  return error;
}

// A browser may keep nothing for us; then an upload that breaks off begins anew
function kept(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function keep(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // as above
  }
}

function forget(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // as above
  }
}

function hex(field) {
  const found = /sha-512=:([^:]+):/.exec(field || "");
  if (!found) return "";
  return [...atob(found[1])].map((letter) => letter.charCodeAt(0).toString(16).padStart(2, "0")).join("");
}

function sizeOf(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (bytes >= 1000 && step < units.length - 1) {
    bytes /= 1000;
    step += 1;
  }
  return `${step ? bytes.toPrecision(3) : Math.round(bytes)} ${units[step]}`;
}

function timeOf(seconds) {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  if (seconds < 3600) return `${Math.ceil(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function sleep(seconds) {
  return new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}
